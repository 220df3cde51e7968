"""The record of a language model's run as text to read."""

from collections.abc import Mapping
from typing import Any

from fastsnn_jax.record.arithmetic import divide
from fastsnn_jax.record.text import Sections, cell, data_lines, listed, pairs, table


def lm_sections(record: Mapping[str, Any]) -> Sections:
    """What a language model's record holds beside the envelope, by title."""
    return {
        "run": _run(record),
        "model": pairs(record["model"]),
        "training": pairs(record["training_config"]),
        "validation": _evaluation(record),
        "steps (nats per token)": _history(record["training_history"]),
        **_distillation(record.get("distillation")),
        "spikes": pairs(record["spikes"] or {}) or ["none"],
        "spikes by projection": _activity(record["activity"]),
        "sample": printable(record["sample"]).splitlines(),
    }


def _run(record: Mapping[str, Any]) -> list[str]:
    results = record["training_results"]
    return pairs({
        "time": record["timestamp"],
        "model": f"{record['model_class']}, {cell(record['parameters'])} parameters",
        **data_lines(record["dataset"]),
        "tokenizer": listed(record["tokenizer"]),
        "text": listed(record["text"]),
        "trained": f"{cell(results['steps_trained'])} steps, {cell(results['tokens_seen'])} tokens "
                   f"in {cell(results['training_time_seconds'])} s, "
                   f"{cell(results['tokens_per_s'])} tokens/s",
        "seed": record["seed"],
        "git": record["git_hash"],
    })


def _evaluation(record: Mapping[str, Any]) -> list[str]:
    scored, results, twin = record["evaluation"], record["training_results"], record["twin"] or {}
    difference = twin.get("relative_difference")
    return pairs({
        "loss": f"{cell(scored['val_loss'])} nats per token, over {cell(scored['tokens'])} tokens",
        "perplexity": scored["perplexity"],
        "bits per byte": scored["bits_per_byte"],
        "accuracy": f"{cell(scored['accuracy'])} %",
        "best in training": results["best_val_loss"],
        "last train loss": results["final_train_loss"],
        "twin without spikes": f"loss {cell(twin.get('val_loss'))}, perplexity "
                               f"{cell(twin.get('perplexity'))}",
        "loss against twin": None if difference is None else f"{100 * difference:+.3f} %",
    })


def _distillation(section: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """What a run with a teacher says of it."""
    if section is None:
        return {}
    teacher = section["teacher"]
    return {"distillation": pairs({
        "teacher": f"{teacher['source']}, {cell(teacher['parameters'])} parameters",
        "teacher's attention": teacher["model"].get("attn_kind"),
        "loss": f"{cell(section['mix'])} * T^2 * divergence + rest * cross-entropy, "
                f"T = {cell(section['temperature'])}",
        "teacher's loss": section["teacher_val_loss"],
        "student's loss before": section["student_val_loss_before"],
        "same choice as teacher": f"{cell(100 * section['agreement'])} %",
        "divergence from teacher": f"{cell(section['divergence'])} nats per token",
    })}


def _history(history: Mapping[str, Any]) -> list[str]:
    """The steps that were validated, and the last."""
    columns = (history[key] for key in ("steps", "train_loss", "val_loss"))
    rows = list(zip(*columns, strict=True))
    shown = [row for row in rows[:-1] if row[2] is not None] + rows[-1:]
    return table([("step", "train", "validation"), *shown])


def _activity(activity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    titles = ("", "channels", "fan-out", "per channel", "active", "unary", "bit-plane", "saturated")
    counted = ("active", "unary", "bit_plane", "saturated")
    rows = [
        (key, counts["channels"], counts["fan_out"],
         divide(counts["bit_plane"], counts["tokens"] * counts["channels"]),
         *(counts[name] for name in counted))
        for key, counts in activity.items()
    ]
    return table([titles, *rows])


def printable(text: str) -> str:
    """Text without what a terminal would obey: an untrained model says anything."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)

"""The figures of a language model's record that follow from its others, in one place."""

import math
from collections.abc import Mapping
from typing import Any

from fastsnn_jax.record.arithmetic import divide

SPIKE_FIGURES = (
    "spikes_per_channel", "unary_per_channel", "active_fraction", "sparsity", "saturated_fraction",
    "synaptic_events_per_token", "dense_macs_per_token",
)
_HEADLINES = tuple(name for name in SPIKE_FIGURES if name != "active_fraction")


def derived_figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a language model's record that is determined by the rest, nested like it.

        perplexity          = exp(val_loss)
        bits_per_byte       = val_loss / ln 2 / bytes_per_token
        relative_difference = (val_loss - twin's val_loss) / twin's val_loss

    and the figures of ``spike_figures``; of a run with a teacher, what came of it. A figure that
    lacks an operand is None.
    Building a record merges these in; validating one compares with them.
    """
    scored, results, twin = record["evaluation"], record["training_results"], record["twin"]
    history, loss = record["training_history"], record["evaluation"]["val_loss"]
    evaluation = {
        "perplexity": perplexity(loss),
        "bits_per_byte": divide(loss, math.log(2) * record["text"]["bytes_per_token"]),
    }
    training = {
        "best_val_loss": min(_defined(history["val_loss"]), default=None),
        "final_train_loss": next(reversed(_defined(history["train_loss"])), None),
    }
    compared = None if twin is None else {
        "perplexity": perplexity(twin["val_loss"]),
        "relative_difference": divide(loss - twin["val_loss"], twin["val_loss"]),
    }
    activity, spikes = record["activity"], None
    if activity:
        spikes = spike_figures(activity, record["spikes"]["bits"])
    return {
        "training_results": training,
        "evaluation": evaluation,
        "twin": compared,
        "spikes": spikes,
        "metrics": {
            "val_loss": loss,
            **evaluation,
            "accuracy": scored["accuracy"],
            "best_val_loss": training["best_val_loss"],
            "ann_val_loss": None if twin is None else twin["val_loss"],
            "steps_trained": results["steps_trained"],
            "tokens_per_s": results["tokens_per_s"],
            **{name: None if spikes is None else spikes[name] for name in _HEADLINES},
            **_taught(record.get("distillation"), loss),
        },
    }


def _taught(distillation: Mapping[str, Any] | None, loss: float) -> dict[str, Any]:
    if distillation is None:
        return {}
    names = ("teacher_val_loss", "student_val_loss_before", "agreement")
    return {name: distillation[name] for name in names} | {"student_val_loss": loss}


def spike_figures(activity: Mapping[str, Mapping[str, Any]], bits: int) -> dict[str, Any]:
    """What the counts of all projections come to; an input that several read is counted once.

        spikes_per_channel        = bit-plane spikes / (tokens * channels)      distinct inputs
        sparsity                  = 1 - spikes_per_channel / bits
        synaptic_events_per_token = sum of bit-plane spikes * fan-out / tokens  all projections
        dense_macs_per_token      = sum of channels * fan-out                   all projections

    Sums come before divisions, so that inputs weigh by their channels. ``unary_per_channel``,
    ``active_fraction`` and ``saturated_fraction`` divide as ``spikes_per_channel`` does.

    >>> counts = dict(tokens=2, channels=4, active=3, unary=9, bit_plane=6, saturated=0)
    >>> figures = spike_figures({"q": counts | {"input": "q", "fan_out": 5}}, bits=3)
    >>> figures["spikes_per_channel"], figures["sparsity"], figures["synaptic_events_per_token"]
    (0.75, 0.75, 15.0)
    """
    synapses = list(activity.values())
    inputs = [counts for key, counts in activity.items() if counts["input"] == key]
    tokens = inputs[0]["tokens"]
    places = tokens * sum(counts["channels"] for counts in inputs)
    active, unary, bit_plane, saturated = (
        divide(sum(counts[name] for counts in inputs), places)
        for name in ("active", "unary", "bit_plane", "saturated")
    )
    used = divide(bit_plane, bits)
    events = sum(counts["bit_plane"] * counts["fan_out"] for counts in synapses)
    return {
        "tokens": tokens,
        "spikes_per_channel": bit_plane,
        "unary_per_channel": unary,
        "active_fraction": active,
        "sparsity": None if used is None else 1 - used,
        "saturated_fraction": saturated,
        "synaptic_events_per_token": divide(events, tokens),
        "dense_macs_per_token": sum(c["channels"] * c["fan_out"] for c in synapses),
    }


def perplexity(loss: float) -> float | None:
    """``exp(loss)``; None where a double cannot hold it.

    >>> perplexity(0.0), perplexity(1000.0)
    (1.0, None)
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return None


def _defined(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]

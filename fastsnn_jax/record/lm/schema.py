"""What ``record.json`` of a language model holds, and that its figures agree with each other."""

from typing import Any

from fastsnn_jax.config import SNNConfig
from fastsnn_jax.record.envelope import check_agreement, check_entries, check_length
from fastsnn_jax.record.kinds import (
    COUNT,
    NON_NEGATIVE,
    NUMBER,
    OBJECT,
    PERCENT,
    POSITIVE,
    TEXT,
    RecordError,
    check_tree,
    dict_of,
    list_of,
    nullable,
)
from fastsnn_jax.record.lm.figures import SPIKE_FIGURES, derived_figures

KIND = "lm"

HISTORY = {
    "steps": list_of(COUNT),
    "train_loss": list_of(nullable(NUMBER)),
    "val_loss": list_of(nullable(NUMBER)),
    "spikes_per_channel": nullable(dict_of(list_of(nullable(NON_NEGATIVE)))),
}

MEASURED_RESULTS = {
    "steps_trained": COUNT, "tokens_seen": COUNT, "training_time_seconds": NON_NEGATIVE,
    "tokens_per_s": nullable(NON_NEGATIVE),
}

MEASURED_EVALUATION = {"val_loss": NON_NEGATIVE, "accuracy": PERCENT, "tokens": COUNT}

LM = {
    "timestamp": TEXT,
    "model_class": TEXT,
    "model": OBJECT,
    "parameters": COUNT,
    "tokenizer": {"kind": TEXT, "vocab_size": COUNT},
    "text": {"context": COUNT, "bytes_per_token": POSITIVE, "train_tokens": COUNT,
             "validation_tokens": COUNT},
    "training_config": {"steps": COUNT, "batch_size": COUNT, "context": COUNT,
                        "learning_rate": NUMBER, "warmup_steps": COUNT, "weight_decay": NUMBER,
                        "clip_norm": nullable(NUMBER), "optimizer": TEXT, "accumulate": COUNT,
                        "dtype": TEXT},
    "training_results": {**MEASURED_RESULTS, "best_val_loss": nullable(NUMBER),
                         "final_train_loss": nullable(NUMBER)},
    "training_history": HISTORY,
    "evaluation": {**MEASURED_EVALUATION, "perplexity": nullable(NON_NEGATIVE),
                   "bits_per_byte": NON_NEGATIVE},
    "twin": nullable(OBJECT),
    "spikes": nullable(OBJECT),
    "sample": TEXT,
}

TWIN = {"val_loss": NON_NEGATIVE, "perplexity": nullable(NON_NEGATIVE),
        "relative_difference": nullable(NUMBER)}

SPIKES = {"tokens": COUNT, "bits": COUNT, **dict.fromkeys(SPIKE_FIGURES, nullable(NUMBER))}

ACTIVITY = {**dict.fromkeys(("tokens", "channels", "fan_out", "active", "unary", "bit_plane",
                             "saturated"), COUNT), "input": TEXT}

# Of a run since there was such an entry.
DECODING = {"context": COUNT, "products": COUNT, "operations": dict_of(COUNT),
            "held_words": COUNT, "cache_words": COUNT}

# Of a run with a teacher. The losses are of all held-out text; ``agreement`` is the share of its
# tokens for which both choose the same, ``divergence`` the student's from the teacher in nats.
DISTILLATION = {
    "teacher": {"source": TEXT, "sha256": TEXT, "model": OBJECT, "parameters": COUNT},
    "temperature": POSITIVE, "mix": NON_NEGATIVE, "teacher_val_loss": NON_NEGATIVE,
    "student_val_loss_before": NON_NEGATIVE, "agreement": NON_NEGATIVE, "divergence": NUMBER,
}

# What the derived figures are computed from, beside activity, twin and spikes.
OPERANDS = {
    **{key: LM[key] for key in ("text", "training_config", "training_history")},
    "training_results": MEASURED_RESULTS,
    "evaluation": MEASURED_EVALUATION,
}

# An input is the same whatever reads it; only the fan-out belongs to the projection.
_OF_THE_INPUT = [key for key in ACTIVITY if key != "fan_out"]


def validate_lm(where: str, record: Any) -> None:
    """Raises RecordError unless ``record`` is a complete, consistent record of a language model.

    Consistent: every figure that follows from others equals its recomputation (``derived_figures``)
    and the measured ones do not contradict each other: histories have one entry per logged step,
    projections of one input the same counts, and counts fit tokens, channels and bits.
    """
    check_entries(where, record, KIND, LM)
    for key, schema in (("twin", TWIN), ("spikes", SPIKES)):
        if record[key] is not None:
            check_tree(f"{where}.{key}", record[key], schema)
    if "decoding" in record:
        check_tree(f"{where}.decoding", record["decoding"], DECODING)
    if "distillation" in record:
        check_tree(f"{where}.distillation", record["distillation"], DISTILLATION)
    try:
        SNNConfig.from_json(record["model"])
    except (ValueError, TypeError) as error:
        raise RecordError(f"{where}.model: {error}") from error
    check_measured(where, record)
    check_agreement(where, record, derived_figures(record))


def check_measured(where: str, record: dict) -> None:
    """Raises RecordError where measured entries contradict each other."""
    _check_training(where, record)
    if record["twin"] is not None:
        check_tree(f"{where}.twin", record["twin"], {"val_loss": NON_NEGATIVE}, exact=False)
    if record["activity"]:
        check_tree(f"{where}.spikes", record["spikes"], {"bits": COUNT}, exact=False)
    for key, counts in record["activity"].items():
        inner = f"{where}.activity.{key}"
        check_tree(inner, counts, ACTIVITY)
        _check_counts(inner, counts, record["spikes"]["bits"])
    _check_inputs(f"{where}.activity", record["activity"])


def _check_training(where: str, record: dict) -> None:
    history, planned = record["training_history"], record["training_config"]["steps"]
    trained, steps = record["training_results"]["steps_trained"], history["steps"]
    series = {**history, **(history["spikes_per_channel"] or {})}
    del series["spikes_per_channel"]
    for name, entries in series.items():
        check_length(f"{where}.training_history.{name}", entries, len(steps))
    if steps != sorted(set(steps)):
        raise RecordError(f"{where}.training_history.steps: expected ascending steps, got {steps}")
    if not max(steps, default=0) <= trained <= planned:
        raise RecordError(f"{where}.training_results.steps_trained: expected a step from the last "
                          f"logged to the last planned, {planned}, got {trained}")


def _check_counts(where: str, counts: dict, bits: int) -> None:
    places = counts["tokens"] * counts["channels"]
    limits = (  # a count s != 0 has between 1 and |s| bits set, and no more than there are
        ("active", "tokens * channels", counts["active"], places),
        ("saturated", "tokens * channels", counts["saturated"], places),
        ("active", "bit_plane", counts["active"], counts["bit_plane"]),
        ("bit_plane", "unary", counts["bit_plane"], counts["unary"]),
        ("bit_plane", "bits * active", counts["bit_plane"], bits * counts["active"]),
    )
    for name, limit, value, most in limits:
        if value > most:
            raise RecordError(f"{where}.{name}: expected at most {limit} = {most}, got {value}")


def _check_inputs(where: str, activity: dict) -> None:
    for key, counts in activity.items():
        shared = activity.get(counts["input"])
        if shared is None or shared["input"] != counts["input"]:
            raise RecordError(f"{where}.{key}.input: expected a key that is its own input, "
                              f"got {counts['input']!r}")
        check_agreement(f"{where}.{key}", counts, {name: shared[name] for name in _OF_THE_INPUT})
    tokens = sorted({counts["tokens"] for counts in activity.values()})
    if len(tokens) > 1:
        raise RecordError(f"{where}: expected as many tokens for every synapse, got {tokens}")

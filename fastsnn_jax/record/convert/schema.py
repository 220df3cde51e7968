"""What ``record.json`` of a conversion run holds, and that its figures agree with each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastsnn_jax.energy.layer_counts import LayerCounts
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

KIND = "convert"

HISTORY = {
    "losses": list_of(NUMBER), "train_acc": list_of(PERCENT),
    "val_acc": list_of(PERCENT), "epoch_times": list_of(NON_NEGATIVE),
}

ANN = {
    "test_accuracy": PERCENT, "validation_accuracy": nullable(PERCENT),
    "macs_per_inference": COUNT, "energy_pj": dict_of(list_of(NON_NEGATIVE)),
}

MEASURED_CONVERSION = {
    "method": TEXT, "num_steps": COUNT, "fine_tune_epochs": COUNT,
    "validation_accuracy": PERCENT, "test_accuracy": PERCENT,
    "spikes_per_inference": NON_NEGATIVE, "synaptic_events_per_inference": NON_NEGATIVE,
    "energy_pj": list_of(NON_NEGATIVE),
}
ANYTIME = {"method": TEXT, "num_steps": COUNT, "planes": COUNT, "mean_planes": NON_NEGATIVE,
           "changed": COUNT}
CONVERSION = {**MEASURED_CONVERSION, "drop": NUMBER}

CONVERT = {
    "timestamp": TEXT,
    "model_class": TEXT,
    "parameters": COUNT,
    "training_config": {"epochs": COUNT, "batch_size": COUNT, "learning_rate": POSITIVE,
                        "optimizer": TEXT},
    "training_results": {"training_time_seconds": NON_NEGATIVE,
                         "samples_per_s": nullable(NON_NEGATIVE)},
    "training_history": HISTORY,
    "ann": ANN,
    "conversions": list_of(OBJECT),
    "chosen": list_of(COUNT),
    "anytime": ANYTIME,
    "shown": COUNT,
    "report": OBJECT,
}

# What the derived figures are computed from.
OPERANDS = {key: CONVERT[key] for key in ("ann", "conversions", "shown")}


def validate_convert(where: str, record: Any) -> None:
    """Raises RecordError unless ``record`` is a complete, consistent record of a conversion run.

    Consistent: every drop is the difference of its accuracies, the headline is that of the entry
    shown, and the counts of its layers add up to its synaptic events.
    """
    check_entries(where, record, KIND, CONVERT)
    epochs = len(record["training_history"]["losses"])
    for name, entries in record["training_history"].items():
        check_length(f"{where}.training_history.{name}", entries, epochs)
    for name, energy in record["ann"]["energy_pj"].items():
        check_length(f"{where}.ann.energy_pj.{name}", energy, 3)
    for index, entry in enumerate(record["conversions"]):
        inner = f"{where}.conversions[{index}]"
        check_tree(inner, entry, CONVERSION)
        check_length(f"{inner}.energy_pj", entry["energy_pj"], 3)
    check_agreement(where, record, derived_figures(record))
    _check_activity(where, record)


def derived_figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a conversion record that is determined by the rest, nested like it.

        drop = accuracy of the conventional network - accuracy in spikes, in points

    the headline, which is the entry shown beside the conventional network, and the entries
    that `chosen` names.
    Raises RecordError where there is no such entry, or one that lacks a figure.
    """
    rows, place, before = record["conversions"], record["shown"], record["ann"]["test_accuracy"]
    if place >= len(rows):
        raise RecordError(f"record.shown: expected an entry of {len(rows)}, got {place}")
    for index, row in enumerate(rows):
        check_tree(f"record.conversions[{index}]", row, MEASURED_CONVERSION, exact=False)
    drops = [before - row["test_accuracy"] for row in rows]
    row = rows[place]
    return {
        "conversions": [{"drop": drop} for drop in drops],
        "chosen": chosen(rows),
        "metrics": {
            "ann_test_accuracy": before,
            "test_accuracy": row["test_accuracy"],
            "drop": drops[place],
            **{name: row[name] for name in ("method", "num_steps", "fine_tune_epochs")},
            "event_syn_per_inference": row["synaptic_events_per_inference"],
            "dense_ops_per_inference": record["ann"]["macs_per_inference"],
        },
    }


def chosen(conversions: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each N the place of the conversion without training that is best on held-out images."""
    best: dict[int, int] = {}
    for place, row in enumerate(conversions):
        steps, accuracy = row["num_steps"], row["validation_accuracy"]
        known = best.get(steps)
        if not row["fine_tune_epochs"] and (
            known is None or accuracy > conversions[known]["validation_accuracy"]
        ):
            best[steps] = place
    return [best[steps] for steps in sorted(best)]


def _check_activity(where: str, record: Mapping[str, Any]) -> None:
    if not record["activity"]:
        raise RecordError(f"{where}.activity: expected the work of a layer, got none")
    try:
        layers = [
            LayerCounts.from_json(fields, f"{where}.activity.{name}")
            for name, fields in record["activity"].items()
        ]
    except ValueError as error:
        raise RecordError(str(error)) from error
    events = sum(layer.ac for layer in layers) / layers[0].samples
    check_agreement(
        f"{where}.activity: additions per inference", events,
        record["conversions"][record["shown"]]["synaptic_events_per_inference"],
    )

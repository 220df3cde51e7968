"""What ``record.json`` of an MNIST run holds, and that its figures agree with each other.

Beside the envelope it is, key for key, the notebook's checkpoint schema
``surrogate_complete_v1``, so that what reads one reads the other.
"""

from typing import Any

from fastsnn_jax.record.envelope import ENVELOPE, check_agreement, check_entries, check_length
from fastsnn_jax.record.kinds import (
    COUNT,
    NON_NEGATIVE,
    NUMBER,
    PERCENT,
    POSITIVE,
    TEXT,
    Kind,
    RecordError,
    Schema,
    check_tree,
    dict_of,
    list_of,
    nullable,
)
from fastsnn_jax.record.mnist.figures import (
    CONNECTIVITY_KEYS,
    LAYERS,
    TOTAL_KEYS,
    derived_figures,
)

KIND = "mnist"
NOTEBOOK_SCHEMA = "surrogate_complete_v1"

ACTIVITY = {"events": COUNT, "nonzero": COUNT, "saturated": COUNT}

# Of later records; where one of them stands it is of this kind.
LATER_ACTIVITY = {"neurons": POSITIVE, "weights": COUNT, "connections": COUNT,
                  "synaptic_events": nullable(COUNT), "silent": COUNT, "saturated_neurons": COUNT}
LATER_METRICS = {"neuron": {"update_ops": dict_of(COUNT), "state_words": COUNT},
                 "peak_events_per_step": nullable(COUNT)}

CONNECTIVITY = dict.fromkeys(CONNECTIVITY_KEYS, nullable(COUNT))

SIZES = {"n_input": COUNT, "n_hidden": nullable(COUNT), "n_output": COUNT}

TRAINING_TOTALS = {**dict.fromkeys(TOTAL_KEYS, nullable(COUNT)), "total_samples": COUNT}

INFERENCE_TOTALS = {
    "n_samples": COUNT, **dict.fromkeys(TOTAL_KEYS, nullable(COUNT)),
    "measurement_time_seconds": NON_NEGATIVE,
}


def _per(example: str) -> dict[str, Kind]:
    return {f"{layer}_per_{example}": nullable(NON_NEGATIVE) for layer in LAYERS}


NOTEBOOK = {
    "schema_version": TEXT,
    "timestamp": TEXT,
    "model_class": TEXT,
    **SIZES,
    "architecture": {**SIZES, **CONNECTIVITY, "threshold": nullable(NUMBER),
                     "decay": nullable(NUMBER)},
    "encoding": {"type": TEXT, "time_window": COUNT, "max_rate_hz": nullable(NUMBER),
                 "spike_prob_formula": nullable(TEXT)},
    "training_config": {"batch_size": COUNT, "max_epochs": COUNT, "learning_rate": NUMBER,
                        "weight_decay": NUMBER, "optimizer": TEXT, "patience": nullable(COUNT),
                        "grad_clip_max_norm": nullable(NUMBER)},
    "training_results": {"epochs_trained": COUNT, "total_samples": COUNT,
                         "training_time_seconds": NON_NEGATIVE,
                         "best_val_accuracy": nullable(PERCENT),
                         "final_train_accuracy": nullable(PERCENT)},
    "training_history": {"losses": list_of(NUMBER), "train_acc": list_of(nullable(PERCENT)),
                         "val_acc": list_of(nullable(PERCENT)),
                         "epoch_times": list_of(NON_NEGATIVE)},
    "test_accuracy": nullable(PERCENT),
    "training_spikes": {**TRAINING_TOTALS, **_per("sample")},
    "inference_spikes": {**INFERENCE_TOTALS, **_per("inference")},
    "connectivity": CONNECTIVITY,
    "energy_proxies": {"dense_ops_per_inference": nullable(COUNT),
                       "event_syn_per_inference": nullable(NON_NEGATIVE),
                       "sparsity_ratio": nullable(NON_NEGATIVE),
                       "formula_event_syn": TEXT, "formula_dense": TEXT},
}

MNIST = {
    **NOTEBOOK,
    "per_class_accuracy": list_of(nullable(PERCENT)),
    "confusion_matrix": list_of(list_of(COUNT)),
}


# What the derived figures are computed from.
OPERANDS = {
    "dataset": ENVELOPE["dataset"],
    **{key: MNIST[key] for key in ("architecture", "encoding", "training_history")},
    "confusion_matrix": MNIST["confusion_matrix"],
    "training_spikes": TRAINING_TOTALS,
    "inference_spikes": INFERENCE_TOTALS,
}


def validate_mnist(where: str, record: Any) -> None:
    """Raises RecordError unless ``record`` is a complete, consistent record of an MNIST run.

    Consistent: every figure that follows from others equals its recomputation (rates per example,
    energy proxies, accuracies of the confusion matrix, best and last of the history), the histories
    have one entry per epoch, and the confusion matrix one count per test example.
    """
    check_entries(where, record, KIND, MNIST)
    check_agreement(where, record, {"schema_version": NOTEBOOK_SCHEMA})
    for layer, counts in record["activity"].items():
        check_tree(f"{where}.activity.{layer}", counts, ACTIVITY, exact=False)
        _check_later(f"{where}.activity.{layer}", counts, LATER_ACTIVITY)
    _check_later(f"{where}.metrics", record["metrics"], LATER_METRICS)
    epochs = record["training_results"]["epochs_trained"]
    for name, entries in record["training_history"].items():
        check_length(f"{where}.training_history.{name}", entries, epochs)
    check_confusion(where, record)
    check_agreement(where, record, derived_figures(record))


def _check_later(where: str, entries: dict, schema: Schema) -> None:
    known = {name: kind for name, kind in schema.items() if name in entries}
    check_tree(where, entries, known, exact=False)


def check_confusion(where: str, record: dict) -> None:
    """Raises RecordError unless the confusion matrix is square and counts each test example."""
    where, matrix = f"{where}.confusion_matrix", record["confusion_matrix"]
    classes, size = record["architecture"]["n_output"], record["dataset"]["sizes"].get("test")
    check_length(where, matrix, classes)
    for index, row in enumerate(matrix):
        check_length(f"{where}[{index}]", row, classes)
    counted = sum(map(sum, matrix))
    if counted != size:
        raise RecordError(f"{where}: expected a sum of {size}, the test examples, got {counted}")

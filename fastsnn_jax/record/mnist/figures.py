"""The figures of an MNIST record that follow from its others, computed in one place."""

from collections.abc import Sequence
from typing import Any

from fastsnn_jax.record.arithmetic import add, divide, multiply

FORMULA_DENSE = "N_syn * T"
FORMULA_EVENT_SYN = "S_in * fanout_in_h + S_hid * fanout_h_out"
LAYERS = ("input", "hidden", "output")
TOTAL_KEYS = tuple(f"total_{layer}" for layer in LAYERS)
CONNECTIVITY_KEYS = (
    "n_syn_input_hidden", "n_syn_hidden_output", "n_synapses_total", "fanout_input_to_hidden",
    "fanout_hidden_to_output",
)


def derived_figures(record: dict) -> dict[str, Any]:
    """The part of an MNIST record that is determined by the rest, with the record's own nesting.

        dense_ops_per_inference = N_syn * T
        event_syn_per_inference = S_in * fanout_in_h + S_hid * fanout_h_out
        sparsity_ratio          = event_syn_per_inference / dense_ops_per_inference

    with S_in and S_hid the spikes per inference. A figure that lacks an operand is None.
    Building a record merges these in; validating one compares with them.
    """
    shape, history = record["architecture"], record["training_history"]
    synapses = add(shape["n_syn_input_hidden"], shape["n_syn_hidden_output"])
    connectivity = {key: shape.get(key) for key in CONNECTIVITY_KEYS} | {
        "n_synapses_total": synapses
    }
    inference = _per_example(record["inference_spikes"], "inference", "n_samples")
    dense = multiply(synapses, record["encoding"]["time_window"])
    events = add(
        multiply(inference["input_per_inference"], shape["fanout_input_to_hidden"]),
        multiply(inference["hidden_per_inference"], shape["fanout_hidden_to_output"]),
    )
    sparsity = divide(events, dense)
    test_accuracy, per_class_accuracy = accuracies(record["confusion_matrix"])
    epochs = len(history["losses"])
    best = max((a for a in history["val_acc"] if a is not None), default=None)
    return {
        **{key: shape[key] for key in ("n_input", "n_hidden", "n_output")},
        "architecture": {"n_synapses_total": synapses},
        "connectivity": connectivity,
        "training_results": {
            "epochs_trained": epochs,
            "total_samples": record["training_spikes"]["total_samples"],
            "best_val_accuracy": best,
            "final_train_accuracy": next(reversed(history["train_acc"]), None),
        },
        "test_accuracy": test_accuracy,
        "training_spikes": _per_example(record["training_spikes"], "sample", "total_samples"),
        "inference_spikes": inference,
        "energy_proxies": {
            "dense_ops_per_inference": dense,
            "event_syn_per_inference": events,
            "sparsity_ratio": sparsity,
            "formula_event_syn": FORMULA_EVENT_SYN,
            "formula_dense": FORMULA_DENSE,
        },
        "per_class_accuracy": per_class_accuracy,
        "metrics": {
            "test_accuracy": test_accuracy,
            "best_val_accuracy": best,
            "epochs_trained": epochs,
            "event_syn_per_inference": events,
            "sparsity_ratio": sparsity,
            **inference,
        },
    }


def accuracies(confusion: Sequence[Sequence[int]]) -> tuple[float | None, list[float | None]]:
    """Percent right overall and per true class; confusion[i][j] counts class i called j.

    >>> accuracies([[3, 1], [0, 0]])
    (75.0, [75.0, None])
    """
    right = [row[index] for index, row in enumerate(confusion)]
    seen = [sum(row) for row in confusion]
    overall = divide(100 * sum(right), sum(seen))
    return overall, [divide(100 * r, n) for r, n in zip(right, seen, strict=True)]


def _per_example(spikes: dict, per: str, count_key: str) -> dict[str, float | None]:
    return {
        f"{layer}_per_{per}": divide(spikes[f"total_{layer}"], spikes[count_key])
        for layer in LAYERS
    }

"""The record of an MNIST run as text to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastsnn_jax.record.text import Sections, cell, data_lines, listed, pairs, table


def mnist_sections(record: Mapping[str, Any]) -> Sections:
    """What an MNIST record holds beside the envelope, by title."""
    return {
        "run": _run(record),
        "accuracy": _accuracy(record),
        "epochs": _epochs(record["training_history"]),
        "confusion (row: true digit, column: answer)": _confusion(record),
        "spikes": _spikes(record),
        "energy proxies per inference": _energy(record),
        "activity": _activity(record["activity"]),
    }


def _run(record: Mapping[str, Any]) -> list[str]:
    shape, code, results = (
        record[key] for key in ("architecture", "encoding", "training_results")
    )
    network = "-".join(cell(shape[key]) for key in ("n_input", "n_hidden", "n_output"))
    return pairs({
        "time": record["timestamp"],
        "model": f"{record['model_class']} {network}, threshold {cell(shape['threshold'])}, "
                 f"decay {cell(shape['decay'])}",
        **data_lines(record["dataset"]),
        "encoding": f"{code['type']}, {code['time_window']} steps, at most "
                    f"{cell(code['max_rate_hz'])} Hz, {cell(code['spike_prob_formula'])}",
        "training": listed(record["training_config"]),
        "trained": f"{results['epochs_trained']} epochs, {cell(results['total_samples'])} "
                   f"examples in {cell(results['training_time_seconds'])} s",
        "seed": record["seed"],
        "git": record["git_hash"],
    })


def _accuracy(record: Mapping[str, Any]) -> list[str]:
    results = record["training_results"]
    classes = enumerate(record["per_class_accuracy"])
    return pairs({
        "test": f"{cell(record['test_accuracy'])} %",
        "best validation": f"{cell(results['best_val_accuracy'])} %",
        "last train": f"{cell(results['final_train_accuracy'])} %",
        "test by class": ", ".join(f"{digit}: {cell(percent)}" for digit, percent in classes),
    })


def _epochs(history: Mapping[str, Sequence]) -> list[str]:
    titles = ("epoch", "loss", "train %", "validation %", "seconds")
    columns = (history[key] for key in ("losses", "train_acc", "val_acc", "epoch_times"))
    rows = enumerate(zip(*columns, strict=True), start=1)
    return table([titles, *((epoch, *row) for epoch, row in rows)])


def _confusion(record: Mapping[str, Any]) -> list[str]:
    matrix = record["confusion_matrix"]
    return table([("", *range(len(matrix))), *((i, *row) for i, row in enumerate(matrix))])


def _spikes(record: Mapping[str, Any]) -> list[str]:
    training, inference = record["training_spikes"], record["inference_spikes"]
    titles = ("", "examples", "input", "hidden", "output")
    layers = titles[2:]
    return table([
        titles,
        ("training", training["total_samples"], *(training[f"total_{n}"] for n in layers)),
        ("  per example", "", *(training[f"{n}_per_sample"] for n in layers)),
        ("inference", inference["n_samples"], *(inference[f"total_{n}"] for n in layers)),
        ("  per example", "", *(inference[f"{n}_per_inference"] for n in layers)),
    ])


def _energy(record: Mapping[str, Any]) -> list[str]:
    proxies, shape = record["energy_proxies"], record["connectivity"]
    return pairs({
        "synapses": shape["n_synapses_total"],
        "fan-out": f"{cell(shape['fanout_input_to_hidden'])} of an input, "
                   f"{cell(shape['fanout_hidden_to_output'])} of a hidden neuron",
        "dense operations": f"{cell(proxies['dense_ops_per_inference'])} = "
                            f"{proxies['formula_dense']}",
        "synaptic events": f"{cell(proxies['event_syn_per_inference'])} = "
                           f"{proxies['formula_event_syn']}",
        "sparsity ratio": proxies["sparsity_ratio"],
    })


def _activity(activity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for counts in activity.values() for key in counts))
    rows = ((layer, *(counts.get(key) for key in columns)) for layer, counts in activity.items())
    return table([("", *columns), *rows])

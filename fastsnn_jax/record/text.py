"""A record as text to read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_record(record: Mapping[str, Any]) -> str:
    """The whole of a valid MNIST record as plain text; undefined figures are shown as "-"."""
    sections = {
        "run": _run(record),
        "accuracy": _accuracy(record),
        "epochs": _epochs(record["training_history"]),
        "confusion (row: true digit, column: answer)": _confusion(record),
        "spikes": _spikes(record),
        "energy proxies per inference": _energy(record),
        "activity": _activity(record["activity"]),
        "metrics": _pairs(record["metrics"]),
        "config": _pairs(record["config"]),
        "versions": _pairs(record["versions"]),
        "device": _pairs(record["device"]),
    }
    blocks = (
        "\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items()
    )
    return "\n\n".join(blocks)


def _run(record: Mapping[str, Any]) -> list[str]:
    dataset, shape, code = record["dataset"], record["architecture"], record["encoding"]
    sizes = ", ".join(f"{_cell(size)} {part}" for part, size in dataset["sizes"].items())
    training, results = record["training_config"], record["training_results"]
    network = "-".join(_cell(shape[key]) for key in ("n_input", "n_hidden", "n_output"))
    return _pairs({
        "time": record["timestamp"],
        "model": f"{record['model_class']} {network}, threshold {_cell(shape['threshold'])}, "
                 f"decay {_cell(shape['decay'])}",
        "dataset": f"{dataset['name']} ({sizes}), {dataset['source']}",
        "sha256": dataset["sha256"],
        "encoding": f"{code['type']}, {code['time_window']} steps, at most "
                    f"{_cell(code['max_rate_hz'])} Hz, {_cell(code['spike_prob_formula'])}",
        "training": ", ".join(f"{key} {_cell(value)}" for key, value in training.items()),
        "trained": f"{results['epochs_trained']} epochs, {_cell(results['total_samples'])} "
                   f"examples in {_cell(results['training_time_seconds'])} s",
        "seed": record["seed"],
        "git": record["git_hash"],
    })


def _accuracy(record: Mapping[str, Any]) -> list[str]:
    results = record["training_results"]
    classes = enumerate(record["per_class_accuracy"])
    return _pairs({
        "test": f"{_cell(record['test_accuracy'])} %",
        "best validation": f"{_cell(results['best_val_accuracy'])} %",
        "last train": f"{_cell(results['final_train_accuracy'])} %",
        "test by class": ", ".join(f"{digit}: {_cell(percent)}" for digit, percent in classes),
    })


def _epochs(history: Mapping[str, Sequence]) -> list[str]:
    titles = ("epoch", "loss", "train %", "validation %", "seconds")
    columns = (history[key] for key in ("losses", "train_acc", "val_acc", "epoch_times"))
    rows = enumerate(zip(*columns, strict=True), start=1)
    return _table([titles, *((epoch, *row) for epoch, row in rows)])


def _confusion(record: Mapping[str, Any]) -> list[str]:
    matrix = record["confusion_matrix"]
    return _table([("", *range(len(matrix))), *((i, *row) for i, row in enumerate(matrix))])


def _spikes(record: Mapping[str, Any]) -> list[str]:
    training, inference = record["training_spikes"], record["inference_spikes"]
    titles = ("", "examples", "input", "hidden", "output")
    layers = titles[2:]
    return _table([
        titles,
        ("training", training["total_samples"], *(training[f"total_{n}"] for n in layers)),
        ("  per example", "", *(training[f"{n}_per_sample"] for n in layers)),
        ("inference", inference["n_samples"], *(inference[f"total_{n}"] for n in layers)),
        ("  per example", "", *(inference[f"{n}_per_inference"] for n in layers)),
    ])


def _energy(record: Mapping[str, Any]) -> list[str]:
    proxies, shape = record["energy_proxies"], record["connectivity"]
    return _pairs({
        "synapses": shape["n_synapses_total"],
        "fan-out": f"{_cell(shape['fanout_input_to_hidden'])} of an input, "
                   f"{_cell(shape['fanout_hidden_to_output'])} of a hidden neuron",
        "dense operations": f"{_cell(proxies['dense_ops_per_inference'])} = "
                            f"{proxies['formula_dense']}",
        "synaptic events": f"{_cell(proxies['event_syn_per_inference'])} = "
                           f"{proxies['formula_event_syn']}",
        "sparsity ratio": proxies["sparsity_ratio"],
    })


def _activity(activity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for counts in activity.values() for key in counts))
    rows = ((layer, *(counts.get(key) for key in columns)) for layer, counts in activity.items())
    return _table([("", *columns), *rows])


def _pairs(values: Mapping[str, Any]) -> list[str]:
    width = max(map(len, values), default=0)
    return [f"{key:<{width}}  {_cell(value)}" for key, value in values.items()]


def _table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Aligned columns: the first to the left, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"

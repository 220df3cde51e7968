"""The record of a conversion run as text to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastsnn_jax.record.text import Sections, cell, data_lines, listed, pairs, table

TITLES = ("method", "N", "fine-tuned", "held-out %", "test %", "drop", "spikes",
          "synaptic events", "energy uJ")
_PJ_PER_UJ = 1e6


def convert_sections(record: Mapping[str, Any]) -> Sections:
    """What a conversion record holds beside the envelope, by title."""
    rows = conversion_rows(record)
    return {
        "run": _run(record),
        "conventional network": _conventional(record["ann"]),
        "in spikes, per inference": table([TITLES, *rows]),
        "chosen by the held-out images, without training": table([TITLES, *(
            rows[place] for place in record["chosen"]
        )]),
        "the most significant planes first": pairs(record["anytime"]),
        "epochs": _epochs(record["training_history"]),
        "layers of the conversion shown": _layers(record["activity"]),
    }


def conversion_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each method and N, under ``TITLES``."""
    return [
        (
            entry["method"], str(entry["num_steps"]), _epochs_word(entry["fine_tune_epochs"]),
            f"{entry['validation_accuracy']:.2f}", f"{entry['test_accuracy']:.2f}",
            f"{entry['drop']:.2f}",
            f"{entry['spikes_per_inference']:,.0f}",
            f"{entry['synaptic_events_per_inference']:,.0f}",
            f"{entry['energy_pj'][1] / _PJ_PER_UJ:.3f}",
        )
        for entry in record["conversions"]
    ]


def conversion_table(record: Mapping[str, Any]) -> str:
    """What became of the network, as a table in Markdown: a row for each method, a column for N."""
    rows = record["conversions"]
    steps = sorted({row["num_steps"] for row in rows})
    names = list(dict.fromkeys(map(_name, rows)))
    cells = {(_name(row), row["num_steps"]): _accuracy_and_energy(row) for row in rows}
    before = record["ann"]
    lines = [
        f"{record['model_class']} on {record['dataset']['name']}: "
        f"{before['test_accuracy']:.2f} % before conversion, "
        f"{before['macs_per_inference']:,} multiply-adds. Each cell: test accuracy in %, "
        "microjoules per inference.",
        "",
        "| method | " + " | ".join(f"N = {number}" for number in steps) + " |",
        "|---" * (1 + len(steps)) + "|",
    ]
    for name in names:
        row = [cells.get((name, number), "") for number in steps]
        lines.append("| " + " | ".join([name, *row]) + " |")
    chosen = {rows[place]["num_steps"]: rows[place] for place in record["chosen"]}
    words = [f"{chosen[number]['test_accuracy']:.2f}, {chosen[number]['method']}"
             if number in chosen else "" for number in steps]
    lines.append("| " + " | ".join(["chosen by held-out images", *words]) + " |")
    return "\n".join(lines) + "\n"


def _epochs_word(epochs: int) -> str:
    return f"{epochs} epoch" + "s" * (epochs != 1) if epochs else "-"


def _run(record: Mapping[str, Any]) -> list[str]:
    results = record["training_results"]
    return pairs({
        "time": record["timestamp"],
        "model": f"{record['model_class']}, {cell(record['parameters'])} parameters",
        **data_lines(record["dataset"]),
        "training": listed(record["training_config"]),
        "trained": f"{cell(results['training_time_seconds'])} s, "
                   f"{cell(results['samples_per_s'])} images/s",
        "seed": record["seed"],
        "git": record["git_hash"],
    })


def _conventional(before: Mapping[str, Any]) -> list[str]:
    return pairs({
        "test": f"{cell(before['test_accuracy'])} %",
        "validation": f"{cell(before['validation_accuracy'])} %",
        "multiply-adds": before["macs_per_inference"],
        **{f"energy of {name}": f"{energy[1] / _PJ_PER_UJ:.3f} uJ"
           for name, energy in before["energy_pj"].items()},
    })


def _epochs(history: Mapping[str, Sequence]) -> list[str]:
    columns = (history[key] for key in ("losses", "train_acc", "val_acc", "epoch_times"))
    rows = enumerate(zip(*columns, strict=True), start=1)
    return table([("epoch", "loss", "train %", "validation %", "seconds"),
                  *((epoch, *row) for epoch, row in rows)])


def _layers(activity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    shown = ("coding", "inputs", "outputs", "connections", "events", "ac", "mac", "saturated")
    rows = ((name, *(layer[key] for key in shown)) for name, layer in activity.items())
    return table([("", *shown), *rows])


def _name(row: Mapping[str, Any]) -> str:
    epochs = row["fine_tune_epochs"]
    return row["method"] + (f", fine-tuned {_epochs_word(epochs)}" if epochs else "")


def _accuracy_and_energy(row: Mapping[str, Any]) -> str:
    return f"{row['test_accuracy']:.2f}, {row['energy_pj'][1] / _PJ_PER_UJ:.3g}"

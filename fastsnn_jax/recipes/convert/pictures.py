"""Pictures and table of a conversion run, drawn from its record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax import scope
from fastsnn_jax._files import write_text
from fastsnn_jax.recipes.scope_page import write_scope
from fastsnn_jax.record import conversion_table

TABLE_FILE = "conversions.md"


def draw_all(out: Path, record: dict[str, Any], rates: Mapping[str, np.ndarray]) -> None:
    """Writes the curves over N, the learning curves, the table and the page.

    Args:
      rates: by layer of the conversion shown, mean spikes per step of each neuron.
    """
    before = record["ann"]
    curves: dict[str, dict[str, list[float]]] = {}
    for row in record["conversions"]:
        name = row["method"] + ", fine-tuned" * bool(row["fine_tune_epochs"])
        curve = curves.setdefault(name, {"num_steps": [], "accuracy": [], "energy_pj": []})
        curve["num_steps"].append(row["num_steps"])
        curve["accuracy"].append(row["test_accuracy"])
        curve["energy_pj"].append(row["energy_pj"][1])
    energies = {name: energy[1] for name, energy in before["energy_pj"].items()}
    figures = {
        "conversion": scope.conversion_curves(
            curves, ann_accuracy=before["test_accuracy"], ann_energy_pj=energies
        ),
        "curves": scope.curves(record["training_history"]),
    }
    for name, figure in figures.items():
        scope.save(figure, out / f"{name}.png")
    write_text(out / TABLE_FILE, conversion_table(record))
    write_scope(out, record, {"rates": {name: np.ravel(rate) for name, rate in rates.items()}})

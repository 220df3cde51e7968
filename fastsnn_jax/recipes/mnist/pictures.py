"""Pictures of an MNIST run, drawn from its record and a few test digits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax import scope
from fastsnn_jax.activity import SATURATED_RATE
from fastsnn_jax.recipes.mnist.config import MnistConfig
from fastsnn_jax.recipes.mnist.traces import (
    INPUT,
    NUM_MEMBRANES,
    Shown,
    busiest,
    digit_traces,
)
from fastsnn_jax.recipes.scope_page import write_scope


def draw_all(
    directory: Path, record: dict[str, Any], rates: Mapping[str, np.ndarray],
    drift: Mapping[str, Sequence[float]], config: MnistConfig, model: Any, shown: Shown,
) -> None:
    """Writes curves, confusion matrix, rasters, membranes, a rate histogram, and the page.

    Args:
      rates: by layer, mean spikes per step of each neuron.
      drift: by layer, its mean decay after every epoch, where it is learned.
      shown: a few digits of the test.
    """
    hidden = np.concatenate([rates[name].ravel() for name in model.layer_names[:-1]])
    figures = {
        "confusion": scope.confusion_matrix(record["confusion_matrix"]),
        "rates": scope.rate_histogram(hidden, hidden == 0, hidden >= SATURATED_RATE),
        "raster": _raster(shown, model.layer_names[0]),
        "membrane": _membrane(shown, model.layer_names[0], config.threshold),
    }
    if record["training_history"]["val_acc"]:
        figures["curves"] = scope.curves(record["training_history"], held_out=config.selected_on)
    for name, figure in figures.items():
        scope.save(figure, directory / f"{name}.png")
    write_scope(directory, record, digit_traces(config, shown, rates, drift))


def _raster(shown: Shown, layer: str) -> Any:
    """Spikes of the input and the first hidden layer, a column per digit."""
    trains = {INPUT: shown.spikes.get(INPUT), "hidden": shown.spikes[layer]}
    return scope.raster(
        {name: [train[:, i] for i in range(len(shown.labels))] for name, train in trains.items()
         if train is not None},
        titles=[f"digit {label}" for label in shown.labels], images=list(shown.images),
    )


def _membrane(shown: Shown, layer: str, threshold: float) -> Any:
    """Membranes of the busiest hidden neurons for the first digit."""
    spikes = shown.spikes[layer][:, 0]
    chosen = busiest(spikes, NUM_MEMBRANES)
    return scope.membrane(
        shown.membranes[layer][:, 0, chosen], threshold, spikes[:, chosen],
        names=[f"hidden {i}" for i in chosen],
    )

"""Pictures of an MNIST run, drawn from its record and a few test digits."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax import scope
from fastsnn_jax._typing import Array, Params
from fastsnn_jax.data import Examples
from fastsnn_jax.recipes.mnist.config import MnistConfig
from fastsnn_jax.recipes.mnist.inputs import InputPlan, encode

NUM_DIGITS = 4
NUM_MEMBRANES = 6
SATURATED_RATE = 0.95  # spikes per step from which a neuron carries next to no information


def draw_all(
    directory: Path, record: dict[str, Any], rates: dict[str, np.ndarray], config: MnistConfig,
    model: Any, params: Params, test: Examples,
) -> list[Path]:
    """Writes curves, confusion matrix, rasters, membranes and a rate histogram; returns the paths.

    Args:
      rates: by layer of hidden neurons, mean spikes per step of each.
      test: examples to pick the first digits of different classes from.
    """
    hidden = np.concatenate([values.ravel() for values in rates.values()])
    figures = {
        "confusion": scope.confusion_matrix(record["confusion_matrix"]),
        "rates": scope.rate_histogram(hidden, hidden == 0, hidden >= SATURATED_RATE),
    }
    if record["training_history"]["val_acc"]:
        figures["curves"] = scope.curves(record["training_history"], held_out=config.selected_on)
    figures |= _traces(config, model, params, test)
    paths = []
    for name, figure in figures.items():
        paths.append(directory / f"{name}.png")
        scope.save(figure, paths[-1])
    return paths


def _traces(config: MnistConfig, model: Any, params: Params, test: Examples) -> dict[str, Any]:
    """Rasters of input and first hidden layer for a few digits; membranes for the first of them."""
    chosen = np.unique(test.labels, return_index=True)[1][:NUM_DIGITS]
    images = test.images[chosen]
    layer = model.layer_names[0]

    @jax.jit
    def shown(params: Params, images: Array):
        plan = InputPlan("dense", 1, 0.0)
        scaled = images.astype(jnp.float32) / 255
        signal = encode(config, plan, jax.random.key(config.seed), scaled)
        return signal, model.apply({"params": params}, signal, (layer,))[2]

    signal, traces = shown(params, images)
    steps, count = config.num_steps, len(chosen)
    trains = {
        name: np.asarray(values).reshape(steps, count, -1)
        for name, values in (("input", signal), ("hidden", traces[layer].spikes))
    }
    if config.encoder == "direct":
        del trains["input"]  # analog, not spikes
    raster = scope.raster(
        {name: [train[:, i] for i in range(count)] for name, train in trains.items()},
        titles=[f"digit {label}" for label in test.labels[chosen]], images=list(images),
    )
    spikes = trains["hidden"][:, 0]
    busiest = np.argsort(-spikes.sum(0), kind="stable")[:NUM_MEMBRANES]
    membrane = np.asarray(traces[layer].membrane).reshape(steps, count, -1)[:, 0]
    return {
        "raster": raster,
        "membrane": scope.membrane(
            membrane[:, busiest], config.threshold, spikes[:, busiest],
            names=[f"hidden {i}" for i in busiest],
        ),
    }

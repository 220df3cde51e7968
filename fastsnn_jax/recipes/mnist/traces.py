"""What the network of an MNIST run does with a few digits, for pictures and SpikeScope."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._typing import Array, Float, Int, Params
from fastsnn_jax.data import Examples
from fastsnn_jax.recipes.mnist.config import MnistConfig
from fastsnn_jax.recipes.mnist.inputs import InputPlan, encode
from fastsnn_jax.scope.studio.trace_file import MAX_NEURONS, MAX_STEPS

INPUT = "input"
NUM_DIGITS = 4
NUM_MEMBRANES = 6


class Shown(NamedTuple):
    """A few digits of different classes, and what every layer did with them.

    Attributes:
      images: of the digits, and their ``labels``.
      spikes: by layer, "input" first unless it is analog.
      membranes: by layer.
    """

    images: np.ndarray
    labels: Int[np.ndarray, " B"]
    spikes: dict[str, Float[np.ndarray, "T B N"]]
    membranes: dict[str, Float[np.ndarray, "T B N"]]


def show_digits(config: MnistConfig, model: Any, params: Params, test: Examples) -> Shown:
    """Runs the first digits of different classes, with every spike and membrane kept."""
    chosen = np.unique(test.labels, return_index=True)[1][:NUM_DIGITS]
    names = model.layer_names

    @jax.jit
    def run(params: Params, images: Array):
        plan = InputPlan("dense", 1, 0.0)
        scaled = images.astype(jnp.float32) / 255
        signal = encode(config, plan, jax.random.key(config.seed), scaled)
        return signal, model.apply({"params": params}, signal, names)[2]

    signal, traces = run(params, test.images[chosen])

    def flat(values: Array) -> np.ndarray:
        return np.asarray(values).reshape(config.num_steps, len(chosen), -1)

    spikes = {name: flat(traces[name].spikes) for name in names}
    if config.encoder != "direct":  # there the input is analog, no spikes
        spikes = {INPUT: flat(signal), **spikes}
    membranes = {name: flat(traces[name].membrane) for name in names}
    return Shown(test.images[chosen], test.labels[chosen], spikes, membranes)


def peak_events(shown: Shown) -> int:
    """Most spikes of a step, those of all layers together, over the digits shown."""
    return int(np.sum([spikes.sum(-1) for spikes in shown.spikes.values()], axis=0).max())


def busiest(spikes: Float[np.ndarray, "T N"], limit: int) -> Int[np.ndarray, " n"]:
    """The neurons that fire most, at most ``limit``, from most to least."""
    return np.argsort(-spikes.sum(0), kind="stable")[:limit]


def digit_traces(
    config: MnistConfig, shown: Shown, rates: Mapping[str, np.ndarray],
    drift: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """Traces of the first digit, as in ``scope.save_traces``.

    Args:
      rates: by layer, mean spikes per step of each neuron.
      drift: by layer, its mean decay after every epoch, where it is learned.
    """
    raster, membrane = {}, {}
    for name, trains in shown.spikes.items():
        train = trains[:MAX_STEPS, 0]
        raster[name] = train[:, np.sort(busiest(train, MAX_NEURONS))].astype(np.uint8)
        if name != INPUT:
            chosen = busiest(train, NUM_MEMBRANES)
            membrane[name] = shown.membranes[name][:MAX_STEPS, 0][:, chosen]
    traces = {
        "raster": raster, "membrane": membrane,
        "threshold": dict.fromkeys(membrane, config.threshold),
        "rates": {name: np.ravel(values) for name, values in rates.items()},
    }
    decays = {f"decay of {name}": list(values) for name, values in drift.items()}
    return traces | ({"drift": decays} if decays else {})

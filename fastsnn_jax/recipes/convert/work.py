"""What a converted network does in an inference, and what that costs."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._typing import Array
from fastsnn_jax.activity import SpikeCount
from fastsnn_jax.energy.accountant import count
from fastsnn_jax.energy.counts import count_layers
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.neurons import integrate_and_fire

_OUTPUT = "output"
_ACCUMULATE = (("add", 1),)  # the readout sums what arrives and never fires


class Signal(NamedTuple):
    """Spikes of one site over all samples, as exact integers.

    Attributes:
      events: spikes of each neuron, ``int [*N]``.
      saturated: spikes that did not fit.
    """

    events: np.ndarray
    saturated: int


class _Synapses(NamedTuple):
    """What ``count_layers`` asks of a model."""

    synapses: Callable[[Any, tuple[int, ...]], dict[str, Callable]]
    neuron: Any


def count_work(
    model: Any, variables: Any, signals: Sequence[Signal], *, num_steps: int, samples: int,
    active: int, input_shape: tuple[int, ...], macs: Sequence[int], coding: str = "binary",
) -> dict[str, LayerCounts]:
    """Work of every synapse of a converted network, in order, over ``samples`` inferences.

    The input is of values: their product is made once, and its result added at each of the N steps.
    Each later synapse reads spikes; every neuron also adds a bias and is updated at each step. The
    readout only adds up.

    Args:
      model: has ``synapses(variables, input_shape)``, layers that follow each other.
      variables: of the conventional network; BatchNorm is taken as folded into its kernels.
      signals: of the sites, in the order of the network.
      num_steps: N, or the bit planes of a coding that has them.
      active: input values of all samples that were not 0.
      macs: of each layer of the conventional network, see `dense_macs`; behind a pool they are
        fewer than the synapses, which begin before it.
    """
    synapses = model.synapses(variables, input_shape)
    keys = list(synapses)
    shape = signals[-1].events.shape
    outputs = jax.eval_shape(synapses[keys[-1]], jax.ShapeDtypeStruct(shape, jnp.float32)).size
    arrived = [
        _counted(np.zeros(input_shape, np.int64), active),
        *(_counted(one.events, int(one.events.sum()), one.saturated) for one in signals),
        _counted(np.zeros(outputs, np.int64), 0),
    ]
    adapter = _Synapses(model.synapses, integrate_and_fire())
    counts = count_layers(
        adapter, variables, dict(zip([*keys, _OUTPUT], arrived, strict=True)),
        num_steps=num_steps, coding=coding, input_shape=input_shape, analog=keys[:1],
        samples=samples,
    )
    counts = {
        key: dataclasses.replace(
            layer, bias_add=samples * num_steps * layer.outputs, connections=dense
        )
        for (key, layer), dense in zip(counts.items(), macs, strict=True)
    }
    first, last = counts[keys[0]], counts[keys[-1]]
    counts[keys[0]] = dataclasses.replace(
        first, mac=first.mac // num_steps, activation_words=first.activation_words // num_steps
    )
    counts[keys[-1]] = dataclasses.replace(last, update_ops=_ACCUMULATE)
    return counts


def dense_macs(model: Any, variables: Any, x: Array) -> list[int]:
    """Multiply-adds of each layer of a conventional network, for all samples of ``x`` together."""
    _, counts = count(model.apply)(variables, x)
    return [product.macs for product in counts.products]


def spikes_per_inference(signals: Sequence[Signal], samples: int) -> float:
    """Spikes of all sites, in the mean of the samples."""
    return math.fsum(int(one.events.sum()) for one in signals) / samples


def _counted(events: Any, nonzero: Any, saturated: int = 0) -> SpikeCount:
    """A count over all samples together, as one row."""
    row: tuple[Any, ...] = (events[None], np.array([nonzero]), np.array([saturated]))
    return SpikeCount(*row)

"""What models share: a stack of spiking layers run over a window of time, counted on the way."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, Float, State
from fastsnn_jax.activity import count_spikes
from fastsnn_jax.nn.spiking import Signal, SpikingDense, convolve


def run_layers(
    layers: Sequence[nn.Module], state: State, x: Signal, logit_scale: float,
    trace: tuple[str, ...],
):
    """Runs spiking layers in order; results as in ``MLP.run``. The last layer is the readout."""
    names = [layer.name for layer in layers]
    unknown = [name for name in trace if name not in names]
    check(not unknown, "trace", f"layers must be among {', '.join(names)}", unknown)
    states, activity, traces = [], {}, {}
    for i, layer in enumerate(layers):
        if isinstance(layer, SpikingDense) and len(x.shape) == 5:  # conv maps become rows
            x = x.reshape(*x.shape[:2], -1)
        activity[f"{layer.name}/kernel"] = count_spikes(x)
        layer_state, x = layer(x, None if state is None else state[i], layer.name in trace)
        if layer.name in trace:
            traces[layer.name], x = x, x.spikes
        states.append(layer_state)
    activity["output"] = count_spikes(x)
    logits = logit_scale * _readout(x)
    outputs = (logits, activity, traces) if trace else (logits, activity)
    return tuple(states), outputs


def dense_synapse(kernel: Float[Array, "N M"]) -> Callable[[Array], Array]:
    """Linear map ``[N] -> [M]``; feature maps are flattened first."""
    return lambda spikes: spikes.reshape(-1) @ kernel


def conv_synapse(
    kernel: Float[Array, "h w C M"], strides: tuple[int, int]
) -> Callable[[Array], Array]:
    """Linear map ``[H, W, C] -> [H', W', M]``."""
    return lambda spikes: convolve(spikes[None, None], kernel, strides)[0, 0]


def _readout(spikes: Float[Array, "T B K"]) -> Float[Array, "B K"]:
    return jnp.sum(spikes, axis=0, dtype=jnp.float32)

"""What models share: a stack of spiking layers run over a window of time, counted on the way."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, Float, State
from fastsnn_jax.activity import count_spikes
from fastsnn_jax.nn.spiking import Signal, SpikingDense, convolve


def run_layers(
    layers: Mapping[str, nn.Module], state: State, x: Signal, logit_scale: float,
    trace: tuple[str, ...],
):
    """Runs spiking layers in order; results as in ``MLP.run``. The last layer is the readout."""
    check(len(layers) > 0, "model", "it must have at least one layer", len(layers))
    check(state is None or len(state) == len(layers), "model",
          f"state must hold the {len(layers)} layers", state and len(state), "use model.rest")
    unknown = [name for name in trace if name not in layers]
    check(not unknown, "trace", f"layers must be among {', '.join(layers)}", unknown)
    states, activity, traces = [], {}, {}
    signal: Any = x
    for i, (name, layer) in enumerate(layers.items()):
        if isinstance(layer, SpikingDense) and len(signal.shape) == 5:
            signal = signal.reshape(*signal.shape[:2], -1)  # conv maps become rows
        activity[f"{name}/kernel"] = count_spikes(signal)
        layer_state, signal = layer(signal, None if state is None else state[i], name in trace)
        if name in trace:
            traces[name], signal = signal, signal.spikes
        states.append(layer_state)
    activity["output"] = count_spikes(signal)
    logits = logit_scale * jnp.sum(signal, axis=0, dtype=jnp.float32)
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

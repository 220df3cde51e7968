"""Spiking layers: a synapse folded over time, then a neuron that scans it.

All of them map ``(x [T, B, *N], state) -> (state, spikes [T, B, *M])``; ``state=None`` starts at
rest. Parameters are read outside the scan. With ``trace=True`` they return a `Trace` in place of
the spikes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, Float, State
from fastsnn_jax.kernels.dense_synapse import dense_matmul
from fastsnn_jax.kernels.time_sum import add_bias
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.unroll import unroll

Signal = Array | SpikeTensor


class Trace(NamedTuple):
    """What a traced layer did at every step: for rasters and membrane plots.

    Attributes:
      spikes: ``[T, B, *N]``.
      membrane: ``[T, B, *N]``, the state's v after each step.
    """

    spikes: Float[Array, "T B *N"]
    membrane: Float[Array, "T B *N"]


class Spiking(nn.Module):
    """Any neuron as a layer: currents ``[T, B, *N]`` to spikes of the same shape.

    Attributes:
      neuron: see ``fastsnn_jax.neurons``.
    """

    neuron: Any

    @nn.compact
    def __call__(
        self, currents: Float[Array, "T B *N"], state: State = None, trace: bool = False
    ) -> tuple[State, Float[Array, "T B *N"] | Trace]:
        shape = currents.shape[2:]
        params = {}
        learnable = jax.eval_shape(lambda key: self.neuron.init(key, shape), jax.random.key(0))
        if jax.tree.leaves(learnable):
            params = self.param("neuron", self.neuron.init, shape)
        if state is None:
            state = self.neuron.rest(currents.shape[1:], currents.dtype)
        if trace:
            return unroll(self._traced_step, params, state, currents)
        return self.neuron.unroll(params, state, currents)

    def _traced_step(self, params, state, current):
        state, spikes = self.neuron.step(params, state, current)
        return state, Trace(spikes, state.v)


class SpikingDense(nn.Module):
    """Fully connected synapse and neuron.

    ``spikes = neuron(x @ kernel + bias)``; the product runs once over all T and B, or row by row
    over the events when ``x`` is a `SpikeTensor` in event form.

    Attributes:
      features: M, neurons of the layer.
      neuron: see ``fastsnn_jax.neurons``.
      gain: scale of the kernel's initial values, which are normal with variance gain^2 / N.
    """

    features: int
    neuron: Any
    gain: float = 1.0

    @nn.compact
    def __call__(
        self, x: Signal, state: State = None, trace: bool = False
    ) -> tuple[State, Float[Array, "T B M"] | Trace]:
        where = self.name or "SpikingDense"
        rank = 2 if isinstance(x, SpikeTensor) else 3  # a SpikeTensor's shape is without T
        check(len(x.shape) == rank, where, "input must be [T, B, N]", x.shape)
        kernel, bias = _parameters(self, where, (x.shape[-1],))
        current = x.synapse(kernel) if isinstance(x, SpikeTensor) else dense_matmul(x, kernel)
        return Spiking(self.neuron, name="spiking")(add_bias(current, bias), state, trace)


class SpikingConv(nn.Module):
    """Convolutional synapse and neuron on ``[T, B, H, W, C]``, "SAME" padding.

    Attributes:
      features: output channels.
      neuron: see ``fastsnn_jax.neurons``.
      kernel_size: (height, width).
      strides: (vertical, horizontal).
      gain: scale of the kernel's initial values, as in `SpikingDense`.
    """

    features: int
    neuron: Any
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    gain: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "T B H W C"], state: State = None, trace: bool = False
    ) -> tuple[State, Float[Array, "T B H W M"] | Trace]:
        where = self.name or "SpikingConv"
        if isinstance(x, SpikeTensor):
            raise TypeError(f"{where}: input must be an array [T, B, H, W, C], got a SpikeTensor")
        check(x.ndim == 5, where, "input must be [T, B, H, W, C]", x.shape)
        kernel, bias = _parameters(self, where, (*self.kernel_size, x.shape[-1]))
        x = x.astype(jnp.promote_types(x.dtype, kernel.dtype))  # spikes may come as integers
        current = add_bias(convolve(x, kernel, self.strides), bias)
        return Spiking(self.neuron, name="spiking")(current, state, trace)


def _parameters(module: Any, where: str, fan_in: tuple[int, ...]) -> tuple[Array, Array]:
    """Kernel ``[*fan_in, features]`` and bias of a layer; its last fan-in axis is the input's."""
    if module.has_variable("params", "kernel"):
        channels = module.get_variable("params", "kernel").shape[-2]
        check(fan_in[-1] == channels, where, f"input must have {channels} channels", fan_in[-1])
    init = nn.initializers.variance_scaling(module.gain**2, "fan_in", "normal")
    kernel = module.param("kernel", init, (*fan_in, module.features))
    return kernel, module.param("bias", nn.initializers.zeros, (module.features,))


def convolve(
    x: Float[Array, "T B H W C"], kernel: Float[Array, "h w C M"], strides: tuple[int, int]
) -> Float[Array, "T B H W M"]:
    """Convolution of every step, folded as [B, T] so that a sharded B stays whole."""
    steps, batch = x.shape[:2]
    folded = jnp.swapaxes(x, 0, 1).reshape(batch * steps, *x.shape[2:])
    out = jax.lax.conv_general_dilated(
        folded, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.swapaxes(out.reshape(batch, steps, *out.shape[1:]), 0, 1)

"""Feed-forward layers whose every product reads spikes.

Both map ``signal [B, L, D] -> (y [B, L, D], activity)``.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._typing import Array, Float
from fastsnn_jax.nn.projection import Activity, Coding, Projection, Signal, project


class PulseFFN(nn.Module):
    """Projection, neuron, projection; the neuron is the nonlinearity.

        y = down(neuron(up(x)))

    The neuron's counts are unsigned, so it is a ReLU in steps; without spikes it is the ReLU.

    Attributes:
      features, hidden: D and the width between the projections.
      neuron: of the hidden layer, made unsigned; None without spikes.
      output_gain: scale of the last projection's initial values.
      dtype: compute dtype.
    """

    features: int
    hidden: int
    neuron: Any = None
    output_gain: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, signal: Signal) -> tuple[Float[Array, "B L D"], Activity]:
        up = Projection(self.hidden, gain=2**0.5, dtype=self.dtype, name="up")
        down = Projection(self.features, gain=self.output_gain, dtype=self.dtype, name="down")
        (x,), activity = project(signal, [up])
        if self.neuron is None:
            x, neuron = jax.nn.relu(x), None
        else:
            if not hasattr(self.neuron, "signed"):
                raise TypeError(f"PulseFFN: neuron must have a field signed, got {self.neuron!r}; "
                                "use ffn='gated', whose neuron keeps the sign")
            neuron = dataclasses.replace(self.neuron, signed=False)
        (y,), counted = project(Coding(neuron, name="coding")(x), [down])
        return y, activity | counted


class GatedFFN(nn.Module):
    """SwiGLU with spikes into all three projections.

        y = down(silu(gate(x)) * up(x))

    Attributes: as of `PulseFFN`; the neuron's counts keep their sign.

    Reference: Shazeer 2020, arXiv:2002.05202.
    """

    features: int
    hidden: int
    neuron: Any = None
    output_gain: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, signal: Signal) -> tuple[Float[Array, "B L D"], Activity]:
        gate = Projection(self.hidden, dtype=self.dtype, name="gate")
        up = Projection(self.hidden, dtype=self.dtype, name="up")
        down = Projection(self.features, gain=self.output_gain, dtype=self.dtype, name="down")
        (gated, x), activity = project(signal, [gate, up])
        x = jax.nn.silu(gated) * x
        (y,), counted = project(Coding(self.neuron, name="coding")(x), [down])
        return y, activity | counted

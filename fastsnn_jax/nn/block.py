"""One layer of a language model."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._checks import check_choice
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.config import NORMS
from fastsnn_jax.nn.projection import Activity, Coding


class Block(nn.Module):
    """Pre-norm residual block; each norm's output is coded as spikes once, for all who read it.

        x <- x + attention(coding(norm(x)));  x <- x + ffn(coding(norm(x)))

    Attributes:
      attention: see ``fastsnn_jax.nn.attention``.
      ffn: see ``fastsnn_jax.nn.ffn``.
      neuron: codes the outputs of the norms; None without spikes.
      norm: "rms" or "layer".
      norm_eps: of the norms.
      dropout: share of each branch's outputs dropped in training.
      dtype: compute dtype.
    """

    attention: Any
    ffn: Any
    neuron: Any = None
    norm: str = "rms"
    norm_eps: float = 1e-6
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], cache: Any = None, train: bool = False
    ) -> tuple[Any, Float[Array, "B L D"], Activity]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        normed = make_norm(self, "attention_norm")(x)
        cache, y, activity = self.attention(
            Coding(self.neuron, name="attention_coding")(normed), cache
        )
        x = x + drop(y)
        normed = make_norm(self, "ffn_norm")(x)
        y, counted = self.ffn(Coding(self.neuron, name="ffn_coding")(normed))
        return cache, x + drop(y), activity | counted


def make_norm(module: Any, name: str | None = None) -> nn.Module:
    """The norm a module asks for by its ``norm``, ``norm_eps`` and ``dtype``."""
    check_choice("make_norm", "norm", module.norm, NORMS)
    kind = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}[module.norm]
    return kind(module.norm_eps, dtype=module.dtype, name=name)

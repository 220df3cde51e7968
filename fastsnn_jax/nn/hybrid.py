"""Several attention branches side by side in one layer."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from fastsnn_jax._checks import check_choice
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.nn.projection import Activity, Coding, Projection, Signal, project


class HybridMix(nn.Module):
    """Attention branches over one signal, merged.

        "project":  y = concat(branches) @ kernel + bias               (FastSNN's hybrid)
        "sum":      y = sum over i of weight_i * RMSNorm(branch_i)     (SpikingBrain-76B)

    Interface as the attention layers'; the cache is the tuple of the branches' caches.

    Attributes:
      branches: attention layers.
      merge: "project" or "sum".
      features: D.
      neuron: codes what enters the merging projection; None without spikes.
      output_gain: what the weights of "sum" add up to at first.
      norm_eps: of the branches' norms.
      dtype: compute dtype.
    """

    branches: tuple[Any, ...]
    merge: str
    features: int
    neuron: Any = None
    output_gain: float = 1.0
    norm_eps: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, signal: Signal, cache: tuple | None = None
    ) -> tuple[tuple | None, Float[Array, "B L D"], Activity]:
        check_choice("HybridMix", "merge", self.merge, ("project", "sum"))
        caches, outputs, activity = [], [], {}
        for i, branch in enumerate(self.branches):
            branch_cache, y, counted = branch(signal, None if cache is None else cache[i])
            caches.append(branch_cache)
            outputs.append(y)
            activity |= counted
        y, counted = self._project(outputs) if self.merge == "project" else (self._sum(outputs), {})
        return (None if cache is None else tuple(caches)), y, activity | counted

    def init_cache(self, batch: int, max_len: int) -> tuple:
        """Caches of an empty sequence, one per branch."""
        return tuple(branch.init_cache(batch, max_len) for branch in self.branches)

    def _project(self, outputs: list[Array]) -> tuple[Array, Activity]:
        layer = Projection(self.features, use_bias=True, gain=self.output_gain, dtype=self.dtype,
                           name="mix")
        coded = Coding(self.neuron, name="mix_coding")(jnp.concatenate(outputs, axis=-1))
        (y,), activity = project(coded, [layer])
        return y, activity

    def _sum(self, outputs: list[Array]) -> Array:
        share = nn.initializers.constant(self.output_gain / len(outputs))
        weights = self.param("weights", share, (len(outputs),)).astype(self.dtype)
        norms = [
            nn.RMSNorm(self.norm_eps, dtype=self.dtype, name=f"norm_{i}")
            for i in range(len(outputs))
        ]
        normed = jnp.stack([norm(y) for norm, y in zip(norms, outputs, strict=True)])
        return jnp.einsum("n,nbld->bld", weights, normed)

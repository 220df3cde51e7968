"""Attention layers: projections around the cores of ``fastsnn_jax.attention``.

All of them map ``(signal [B, L, D], cache) -> (cache, y [B, L, D], activity)``. Without a cache a
whole sequence runs from its start, and the returned cache is None; with one, the L positions that
follow those the cache has seen. ``init_cache(batch, max_len)`` is the cache of an empty sequence.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fastsnn_jax._checks import check_choice
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.attention import (
    KVCache,
    LinearState,
    WindowCache,
    init_kv_cache,
    init_linear_state,
    init_window_cache,
    linear_attention,
    rope,
    sliding_window,
    sliding_window_extend,
    softmax_attention,
    softmax_extend,
)
from fastsnn_jax.config import GATES, NORMALIZERS
from fastsnn_jax.nn.projection import Activity, Coding, Projection, Signal, project

GATE_RANK = 16  # low-rank decay gate and its divisor: SpikingBrain-7B, gla_attention.py
GATE_DIVISOR = 16
HALF_LIVES = (4.0, 256.0)  # tokens; the gate's channels start log-spaced between them


class _Heads(nn.Module):
    """What the attention layers share.

    Attributes:
      features: D, of the output.
      n_heads, n_kv_heads, head_dim: H, G and the width of a head.
      neuron: codes what enters the output projection; None without spikes.
      use_bias: of the projections to queries, keys and values.
      output_bias: of the output projection.
      output_gain: scale of the output projection's initial values.
      norm_eps: of the norms inside the layer.
      dtype: compute dtype.
    """

    features: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    neuron: Any = None
    use_bias: bool = False
    output_bias: bool = False
    output_gain: float = 1.0
    norm_eps: float = 1e-6
    dtype: Any = jnp.float32

    def _projection(self, name: str, heads: int, **options: Any) -> Projection:
        options = {"use_bias": self.use_bias, **options}
        return Projection(heads * self.head_dim, dtype=self.dtype, name=name, **options)

    def _query_key_value(self) -> list[Projection]:
        heads = {"query": self.n_heads, "key": self.n_kv_heads, "value": self.n_kv_heads}
        return [self._projection(name, number) for name, number in heads.items()]

    def _split(self, x: Float[Array, "B L HD"]) -> Float[Array, "B L H D"]:
        return x.reshape(*x.shape[:2], -1, self.head_dim)

    def _output(self, heads: Float[Array, "B L H D"]) -> tuple[Array, Activity]:
        merged = heads.reshape(*heads.shape[:2], -1).astype(self.dtype)
        layer = Projection(
            self.features, use_bias=self.output_bias, gain=self.output_gain, dtype=self.dtype,
            name="output",
        )
        (y,), activity = project(Coding(self.neuron, name="output_coding")(merged), [layer])
        return y, activity

    def _norm(self, name: str) -> nn.RMSNorm:
        return nn.RMSNorm(self.norm_eps, dtype=jnp.float32, name=name)


class LinearAttention(_Heads):
    """Causal linear attention: a state per kv head in place of a growing cache.

    Attributes:
      feature_map: "softplus", "relu", "exp" or "elu1", of queries and keys.
      gate: "query": a sigmoid multiplies the query features; "decay": a low-rank gate gives each
        channel of the state a decay per token (GLA); "none".
      normalizer: "z": divide by the accumulated keys; "rms": RMSNorm of each head.

    References: Katharopoulos et al. 2020, arXiv:2006.16236; Yang et al. 2023, arXiv:2312.06635.
    """

    feature_map: str = "softplus"
    gate: str = "query"
    normalizer: str = "z"

    @nn.compact
    def __call__(
        self, signal: Signal, cache: LinearState | None = None
    ) -> tuple[LinearState | None, Float[Array, "B L D"], Activity]:
        check_choice("LinearAttention", "gate", self.gate, GATES)
        check_choice("LinearAttention", "normalizer", self.normalizer, NORMALIZERS)
        layers = self._query_key_value()
        if self.gate == "query":
            layers.append(self._projection("gate", self.n_heads, use_bias=True))
        elif self.gate == "decay":
            layers.append(Projection(GATE_RANK, dtype=self.dtype, name="gate_down"))
        (query, key, value, *gate), activity = project(signal, layers)
        options: dict[str, Any] = {}
        if self.gate == "query":
            gate_heads = self._split(jax.nn.sigmoid(gate[0].astype(jnp.float32)))
            options["query_gate"] = gate_heads
        elif self.gate == "decay":
            options["log_decay"], counted = self._log_decay(gate[0])
            activity |= counted
        state, heads = linear_attention(
            self._split(query), self._split(key), self._split(value), cache,
            feature_map=self.feature_map,
            normalizer="z" if self.normalizer == "z" else "none", **options,
        )
        if self.normalizer == "rms":
            heads = self._norm("head_norm")(heads * self.head_dim**-0.5)
        y, counted = self._output(heads)
        return (None if cache is None else state), y, activity | counted

    def init_cache(self, batch: int, max_len: int) -> LinearState:
        """State of an empty sequence; its size does not depend on ``max_len``."""
        del max_len
        return init_linear_state(batch, self.n_kv_heads, self.head_dim, self.head_dim)

    def _log_decay(self, low: Float[Array, "B L r"]) -> tuple[Float[Array, "B L G D"], Activity]:
        layer = self._projection("gate_up", self.n_kv_heads, use_bias=False, gain=0.5)
        (gate,), activity = project(Coding(self.neuron, name="gate_coding")(low), [layer])
        # Flat: what has one axis is spared by weight decay, which would shorten every half-life.
        bias = self.param("gate_bias", lambda key: half_life_bias(self.n_kv_heads, self.head_dim))
        log_decay = jax.nn.log_sigmoid(gate.astype(jnp.float32) + bias) / GATE_DIVISOR
        return self._split(log_decay), activity


class _Positional(_Heads):
    """Heads that are told the positions by rotation of queries and keys.

    Attributes:
      rope_theta, rope_scaling: see ``attention.rope``.
      qk_norm: RMSNorm of each query and key head before the rotation.
    """

    rope_theta: float = 10_000.0
    rope_scaling: tuple | None = None
    qk_norm: bool = False

    def _attend(self, signal: Signal, cache: Any, whole: Any, extend: Any):
        (query, key, value), activity = project(signal, self._query_key_value())
        query, key, value = self._split(query), self._split(key), self._split(value)
        if self.qk_norm:
            query = self._norm("query_norm")(query).astype(self.dtype)
            key = self._norm("key_norm")(key).astype(self.dtype)
        start = 0 if cache is None else cache.position
        positions = start + jnp.arange(query.shape[1])
        query, key = (
            rope(x, positions, theta=self.rope_theta, scaling=self.rope_scaling)
            for x in (query, key)
        )
        if cache is None:
            heads = whole(query, key, value)
        else:
            cache, heads = extend(cache, query, key, value)
        y, counted = self._output(heads)
        return cache, y, activity | counted


class SlidingWindowAttention(_Positional):
    """Softmax attention of each position to the last ``window`` positions, itself included.

    Attributes:
      window: W, keys each query sees.
    """

    window: int = 128

    @nn.compact
    def __call__(
        self, signal: Signal, cache: WindowCache | None = None
    ) -> tuple[WindowCache | None, Float[Array, "B L D"], Activity]:
        def whole(query, key, value):
            return sliding_window(query, key, value, self.window)

        return self._attend(signal, cache, whole, sliding_window_extend)

    def init_cache(self, batch: int, max_len: int) -> WindowCache:
        """Ring buffer of an empty sequence; its size does not depend on ``max_len``."""
        del max_len
        return init_window_cache(batch, self.n_kv_heads, self.window, self.head_dim, self.dtype)


class SoftmaxAttention(_Positional):
    """Causal softmax attention over the whole sequence so far."""

    @nn.compact
    def __call__(
        self, signal: Signal, cache: KVCache | None = None
    ) -> tuple[KVCache | None, Float[Array, "B L D"], Activity]:
        return self._attend(signal, cache, softmax_attention, softmax_extend)

    def init_cache(self, batch: int, max_len: int) -> KVCache:
        """Room for ``max_len`` keys and values; positions beyond give NaN."""
        return init_kv_cache(batch, max_len, self.n_kv_heads, self.head_dim, self.dtype)


def half_life_bias(
    n_kv_heads: int, head_dim: int, half_lives: tuple[float, float] = HALF_LIVES
) -> Float[Array, " GD"]:
    """Gate biases whose channels decay with half-lives log-spaced over ``half_lives``, in tokens.

    ``sigmoid(bias)^(1/16)`` is the decay per token, so a half-life of h tokens needs
    ``bias = logit(2^(-16 / h))``.
    """
    share = np.exp2(-GATE_DIVISOR / np.geomspace(*half_lives, head_dim))
    bias = np.log(share) - np.log1p(-share)
    return jnp.tile(jnp.asarray(bias, jnp.float32), n_kv_heads)

"""Attention cores: plain functions of queries, keys and values, in jax alone.

All take q ``[B, L, H, D]`` and k, v ``[B, L, G, D]`` with G a divisor of H; query head h reads kv
head ``h // (H / G)``. Attention mixes token positions L and never spike time T, and every core can
stop anywhere and go on from its state or cache.
"""

from fastsnn_jax.attention.chunkwise import chunkwise
from fastsnn_jax.attention.feature_maps import FEATURE_MAPS, feature_map
from fastsnn_jax.attention.linear import (
    LinearState,
    init_linear_state,
    linear_attention,
    linear_attention_quadratic,
    linear_attention_recurrent,
    linear_attention_step,
)
from fastsnn_jax.attention.rope import rope
from fastsnn_jax.attention.sliding_window import (
    WindowCache,
    init_window_cache,
    sliding_window,
    sliding_window_extend,
)
from fastsnn_jax.attention.softmax import (
    KVCache,
    init_kv_cache,
    softmax_attention,
    softmax_extend,
)

__all__ = [
    "FEATURE_MAPS", "KVCache", "LinearState", "WindowCache", "chunkwise", "feature_map",
    "init_kv_cache", "init_linear_state", "init_window_cache", "linear_attention",
    "linear_attention_quadratic", "linear_attention_recurrent", "linear_attention_step", "rope",
    "sliding_window", "sliding_window_extend", "softmax_attention", "softmax_extend",
]

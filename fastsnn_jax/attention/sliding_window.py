"""Sliding-window attention: exactly W keys a query, whole or resumed, O(L * W)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check, check_count
from fastsnn_jax._typing import Array, Float, Int
from fastsnn_jax.attention._banded import banded, columns, heads, product, rows, scale
from fastsnn_jax.attention._shapes import check_heads


class WindowCache(NamedTuple):
    """Ring of the last W keys and values: token p is in slot ``p % W``."""

    k: Float[Array, "B G W D"]
    v: Float[Array, "B G W D"]
    position: Int[Array, ""]
    """Tokens seen, int32; before W of them, slots from ``position`` on are empty."""


def sliding_window(
    q: Float[Array, "B L H D"], k: Float[Array, "B L G D"], v: Float[Array, "B L G D"],
    window: int,
) -> Float[Array, "B L H D"]:
    """Every query sees its own key and the W - 1 before it.

        out[i] = sum_{i-W < j <= i} softmax_j(q[i] . k[j] / sqrt(D)) v[j]

    Query head h reads kv head ``h // (H / G)``. Logits and softmax are float32. Time is O(L * W),
    memory O(L) beside one block's logits, of the gradient too. Reverse mode only. Plain twin:
    ``sliding_window_quadratic``.

    Args:
      q: ``[B, L, H, D]``, a sequence from its start.
      k, v: ``[B, L, G, D]``, G a divisor of H; keys already carry their positions.
      window: W, keys a query sees, itself included.

    Returns:
      ``[B, L, H, D]`` in the dtype of ``q``.

    Raises:
      ValueError: if the shapes do not fit or ``window`` is below 1.
      TypeError: if an input is not floating or ``window`` no int.

    >>> v = jnp.array([1.0, 3.0, 5.0]).reshape(1, 3, 1, 1)
    >>> sliding_window(jnp.zeros((1, 3, 1, 1)), v, v, 2).ravel()  # equal logits: the mean of two
    Array([1., 2., 4.], dtype=float32)
    """
    check_count("sliding_window", "window", window)
    check_heads("sliding_window", q, k, v)
    batch, length, kv_heads, size = k.shape
    window = min(window, length)
    tail = jnp.zeros((batch, kv_heads, size, window), k.dtype)
    return banded(q, k, v, tail, tail.astype(v.dtype), jnp.int32(window))


def init_window_cache(
    batch: int, kv_heads: int, window: int, head_dim: int, dtype=jnp.float32
) -> WindowCache:
    """An empty ring of W slots.

    Raises:
      ValueError: if a size is below 1.
      TypeError: if a size is no int.
    """
    shape = (batch, kv_heads, window, head_dim)
    for name, size in zip(("batch", "kv_heads", "window", "head_dim"), shape, strict=True):
        check_count("init_window_cache", name, size)
    return WindowCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))


def sliding_window_extend(
    cache: WindowCache, q: Float[Array, "B L H D"], k: Float[Array, "B L G D"],
    v: Float[Array, "B L G D"],
) -> tuple[WindowCache, Float[Array, "B L H D"]]:
    """The next L >= 1 tokens after those in the cache; any cut equals ``sliding_window``.

    Args:
      cache: of the tokens before, from ``init_window_cache`` or an earlier call.
      q, k, v: as in ``sliding_window``, of the new tokens.

    Returns:
      The cache with the new tokens, and ``[B, L, H, D]`` in the dtype of ``q``.

    Raises:
      ValueError: if the shapes do not fit.
      TypeError: if an input is not floating.
    """
    check_heads("sliding_window_extend", q, k, v)
    batch, length, kv_heads, size = k.shape
    window = cache.k.shape[2]
    check(
        cache.k.shape == cache.v.shape == (batch, kv_heads, window, size),
        "sliding_window_extend",
        f"the cache must have shape ({batch}, {kv_heads}, window, {size})", cache.k.shape,
    )
    k, v = k.astype(cache.k.dtype), v.astype(cache.v.dtype)
    if length == 1:
        return _one_token(cache, q, k, v)
    oldest, position = cache.position % window, cache.position + length
    tail_k, tail_v = (
        jnp.roll(ring, -oldest, axis=2).swapaxes(2, 3) for ring in (cache.k, cache.v)
    )
    out = banded(q, k, v, tail_k, tail_v, jnp.maximum(window - cache.position, 0))

    def last(tail, new):
        both = jnp.concatenate([tail, columns(new[:, -window:])], 3)[..., -window:]
        return jnp.roll(both.swapaxes(2, 3), position % window, axis=2)

    return WindowCache(last(tail_k, k), last(tail_v, v), position), out


def sliding_window_quadratic(
    q: Float[Array, "B L H D"], k: Float[Array, "B L G D"], v: Float[Array, "B L G D"],
    window: int,
) -> Float[Array, "B L H D"]:
    """``sliding_window`` by a mask over all ``[L, L]`` logits: its plain twin."""
    check_count("sliding_window_quadratic", "window", window)
    check_heads("sliding_window_quadratic", q, k, v)
    batch, length, kv_heads, size = k.shape
    grouped = q.reshape(batch, length, kv_heads, -1, size)
    logits = product("bigrd,bjgd->bgrij", grouped, k) * scale(q)
    back = jnp.arange(length)[:, None] - jnp.arange(length)
    logits = jnp.where((back >= 0) & (back < window), logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    out = product("bgrij,bjgd->bigrd", weights, v)
    return out.reshape(q.shape).astype(q.dtype)


def _one_token(cache, q, k, v):
    """Reads the ring in whatever order it lies: a softmax does not mind."""
    kv_heads, window = cache.k.shape[1:3]
    slot = cache.position % window
    keys, values = (
        lax.dynamic_update_slice_in_dim(ring, rows(new, kv_heads), slot, 2)
        for ring, new in ((cache.k, k), (cache.v, v))
    )
    logits = product("bgqd,bgkd->bgqk", rows(q, kv_heads), keys) * scale(q)
    logits = jnp.where(jnp.arange(window) <= cache.position, logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
    out = heads(product("bgqk,bgkd->bgqd", weights, values), 1)
    return WindowCache(keys, values, cache.position + 1), out.astype(q.dtype)

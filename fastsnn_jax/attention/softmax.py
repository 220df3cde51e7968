"""Softmax attention, causal, whole or resumed from a cache of every key and value so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check, check_count
from fastsnn_jax._typing import Array, Float, Int
from fastsnn_jax.attention._shapes import check_heads


class KVCache(NamedTuple):
    """Keys and values of all tokens so far; slots from ``position`` on are still empty."""

    k: Float[Array, "B M G D"]
    v: Float[Array, "B M G D"]
    position: Int[Array, ""]
    """Tokens seen, int32."""


def softmax_attention(
    q: Float[Array, "B L H D"], k: Float[Array, "B L G D"], v: Float[Array, "B L G D"]
) -> Float[Array, "B L H D"]:
    """Every query sees its own key and all before it.

        out[i] = sum_{j <= i} softmax_j(q[i] . k[j] / sqrt(D)) v[j]

    Query head h reads kv head ``h // (H / G)``. Logits and softmax are float32. Time and memory
    grow with L**2.

    Args:
      q: ``[B, L, H, D]``.
      k, v: ``[B, L, G, D]``, G a divisor of H.

    Returns:
      ``[B, L, H, D]`` in the dtype of ``q``.

    Raises:
      ValueError: if the shapes do not fit.
      TypeError: if an input is not floating.

    >>> v = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> softmax_attention(jnp.zeros((1, 2, 1, 1)), v, v).ravel()  # equal logits: the mean so far
    Array([1., 2.], dtype=float32)
    """
    check_heads("softmax_attention", q, k, v)
    return jax.nn.dot_product_attention(q, k, v, is_causal=True)


def init_kv_cache(
    batch: int, max_len: int, kv_heads: int, head_dim: int, dtype=jnp.float32
) -> KVCache:
    """An empty cache for up to ``max_len`` tokens.

    Raises:
      ValueError: if a size is below 1.
      TypeError: if a size is no int.
    """
    shape = (batch, max_len, kv_heads, head_dim)
    for name, size in zip(("batch", "max_len", "kv_heads", "head_dim"), shape, strict=True):
        check_count("init_kv_cache", name, size)
    return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))


def softmax_extend(
    cache: KVCache, q: Float[Array, "B L H D"], k: Float[Array, "B L G D"],
    v: Float[Array, "B L G D"],
) -> tuple[KVCache, Float[Array, "B L H D"]]:
    """The next L >= 1 tokens after those in the cache; any cut equals ``softmax_attention``.

    Tokens past ``max_len`` have nowhere to go: their outputs are NaN, and what the cache holds
    stays as it is. Compiled code cannot raise, so compare lengths before the call.

    Args:
      cache: of the tokens before, from ``init_kv_cache`` or an earlier call.
      q, k, v: as in ``softmax_attention``, of the new tokens.

    Returns:
      The cache with the new tokens, and ``[B, L, H, D]`` in the dtype of ``q``.

    Raises:
      ValueError: if the shapes do not fit.
      TypeError: if an input is not floating.
    """
    check_heads("softmax_extend", q, k, v)
    batch, length, heads, size = q.shape
    max_len = cache.k.shape[1]
    check(
        cache.k.shape == cache.v.shape == (batch, max_len, k.shape[2], size), "softmax_extend",
        f"the cache must have shape ({batch}, max_len, {k.shape[2]}, {size})", cache.k.shape,
    )
    keys = _write(cache.k, k, cache.position)
    values = _write(cache.v, v, cache.position)
    at = cache.position + jnp.arange(length)
    out = jax.nn.dot_product_attention(
        q, keys.astype(q.dtype), values.astype(q.dtype),
        mask=(jnp.arange(max_len) <= at[:, None])[None, None],
    )
    out = jnp.where((at < max_len)[:, None, None], out, jnp.nan)
    return KVCache(keys, values, cache.position + length), out


def _write(slots, new, position):
    """Puts ``new`` at ``position``, in place where it can be; what does not fit is dropped."""
    max_len = slots.shape[1]
    new = new[:, :max_len].astype(slots.dtype)
    length = new.shape[1]
    # A slice that would stick out is moved back to fit; its first slots keep what they hold.
    start = jnp.minimum(position, max_len - length)
    moved = position - start
    held = lax.dynamic_slice_in_dim(slots, start, length, 1)
    keep = (jnp.arange(length) < moved)[:, None, None]
    return lax.dynamic_update_slice_in_dim(
        slots, jnp.where(keep, held, jnp.roll(new, moved, axis=1)), start, 1
    )

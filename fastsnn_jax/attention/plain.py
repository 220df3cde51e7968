"""Plain forms of the linear-attention recurrence, for one token and as twins of ``chunkwise``.

All take ``(q, k, v, log_decay, kv)`` and return ``(out, kv_out)`` as ``chunkwise`` does, its total
decay left out.
"""

import jax.numpy as jnp
from jax import lax

from fastsnn_jax._typing import Array


def one_token(q, k, v, log_decay, kv) -> tuple[Array, Array]:
    """The recurrence at L == 1: O(D * E) time, whatever came before."""
    log_decay = None if log_decay is None else log_decay[:, 0]
    kv, out = _step(kv, (_rows(q, k)[:, 0], k[:, 0], v[:, 0], log_decay))
    return _heads(out[:, None], q), kv


def recurrent(q, k, v, log_decay, kv) -> tuple[Array, Array]:
    """The recurrence token by token; its gradient stores the state of every token."""
    inputs = (_rows(q, k), k, v, log_decay)
    over_tokens = tuple(None if x is None else jnp.moveaxis(x, 1, 0) for x in inputs)
    kv, out = lax.scan(_step, kv, over_tokens)
    return _heads(jnp.moveaxis(out, 0, 1), q), kv


def quadratic(q, k, v, log_decay, kv) -> tuple[Array, Array]:
    """All pairs of tokens at once: O(L**2 * D) memory.

        out[i] = (q[i] * exp(a[1] + .. + a[i])) kv
               + sum_{j <= i} (q[i] * exp(a[j+1] + .. + a[i])) . k[j]  v[j]
    """
    rows, k, v = _rows(q, k), _wide(k), _wide(v)
    if log_decay is None:
        log_decay = jnp.zeros((*k.shape[:3], 1))
    token = jnp.arange(q.shape[1])
    later = (token[:, None] > token)[..., None, None]  # [i, j]: i comes after j
    since = jnp.cumsum(jnp.where(later, log_decay[:, :, None], 0), 1)  # a[j+1] + .. + a[i]
    before = jnp.cumsum(log_decay, 1)
    causal = (token[:, None] >= token)[..., None, None]
    pairs = jnp.where(causal, k[:, None] * jnp.exp(since), 0)
    scores = jnp.einsum("bigrd,bijgd->bijgr", rows, pairs)
    out = jnp.einsum("bijgr,bjge->bigre", scores, v)
    out += jnp.einsum("bigrd,bgde->bigre", rows * jnp.exp(before)[..., None, :], kv)
    kv = jnp.exp(before[:, -1])[..., None] * kv + jnp.einsum("bjgd,bjge->bgde", pairs[:, -1], v)
    return _heads(out, q), kv


def _step(kv, token):
    q, k, v, log_decay = token
    if log_decay is not None:
        kv = jnp.exp(log_decay)[..., None] * kv
    kv = kv + _wide(k)[..., :, None] * _wide(v)[..., None, :]
    return kv, jnp.einsum("bgrd,bgde->bgre", q, kv)


def _wide(x):
    return x.astype(jnp.float32)


def _rows(q, k):
    """q [B, L, H, D] -> [B, L, G, R, D]: the R query heads that read one kv head."""
    batch, length, _, size = q.shape
    return _wide(q).reshape(batch, length, k.shape[2], -1, size)


def _heads(out, q):
    """out [B, L, G, R, E] -> [B, L, H, E]."""
    return out.reshape(*q.shape[:3], out.shape[-1])

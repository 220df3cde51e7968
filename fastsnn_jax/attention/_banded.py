"""Attention to the last W keys, block by block: the core of ``sliding_window``.

Queries go by in blocks of C. A block reads the last W keys before it and its own C, so the scan
over blocks carries W keys and values, and a resumed sequence starts from the ones it kept:

    keys[n] = tail[n], k[nC : (n+1)C];    tail[n+1] = the last W of keys[n]
    query i of the block sees column j of them where i < j <= i + W

The R query heads of a kv head are rows of one product with it. The backward pass keeps q, k, v,
the output and the logarithm of each row's sum, and makes the logits of a block again.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._typing import Array, Float, Int


def banded(
    q: Float[Array, "B L H D"], k: Float[Array, "B L G D"], v: Float[Array, "B L G D"],
    tail_k: Float[Array, "B G D W"], tail_v: Float[Array, "B G D W"], missing: Int[Array, ""],
) -> Float[Array, "B L H D"]:
    """Every query sees the W keys up to its own; the first ones see into the tail.

    ``tail_k`` and ``tail_v`` are the W keys and values before the sequence, oldest first, of which
    the first ``missing`` are not there. Differentiable in reverse mode, in all but ``missing``.
    """
    length, window = q.shape[1], tail_k.shape[3]
    block = min(length, _block_length(window))
    pad = ((0, 0), (0, -length % block), (0, 0), (0, 0))
    q, k, v = (jnp.pad(x, pad) for x in (q, k, v))
    return _attend(block, q, k, v, tail_k, tail_v, missing)[:, :length]


def rows(x, kv_heads):
    """``[B, C, H, D] -> [B, G, R * C, D]``: the query heads of a kv head one below the other."""
    batch, block, _, size = x.shape
    x = x.reshape(batch, block, kv_heads, -1, size)
    return x.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, size)


def heads(x, block):
    """``[B, G, R * C, D] -> [B, C, H, D]``: ``rows`` back."""
    batch, kv_heads, _, size = x.shape
    x = x.reshape(batch, kv_heads, -1, block, size)
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, block, -1, size)


def columns(x):
    """``[B, C, G, D] -> [B, G, D, C]``."""
    return x.transpose(0, 2, 3, 1)


def product(axes, a, b):
    """einsum with float32 sums and result."""
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def scale(q):
    """What logits are multiplied by, ``D**-0.5``."""
    return 1 / math.sqrt(q.shape[-1])


def _block_length(window):
    """C: queries a step.

    Measured on CPU, one core's time per token at W = 128, H = G = 4, D = 32, float32: C = 16, 32,
    64, 128 take 2.7, 1.9, 2.3, 2.6 us: a step makes logits of W + C keys where W would do, and
    small products are slow. All blocks as one batched product take 15 us: the logits leave the
    cache. Half of the 1.9 us are the two products; keys as ``[D, W + C]`` save 0.2 of them against
    ``[W + C, D]``. Masking the two edges only, exp2, the row sum as one more value column, and
    logits with the queries last (3.4 us) gain nothing. Nor do 2 to 32 blocks a step: the second
    core comes in, and what it saves is lost again to larger intermediates.
    """
    if jax.default_backend() == "cpu":
        return min(max(window // 4, 32), 128)
    return 256  # an accelerator wants few large steps; not tuned


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(block, q, k, v, tail_k, tail_v, missing):
    return _attend_forward(block, q, k, v, tail_k, tail_v, missing)[0]


def _attend_forward(block, q, k, v, tail_k, tail_v, missing):
    def body(carry, n):
        tails, missing = carry
        (queries,), keys, values = _read(block, n, (q,), k, v, *tails)
        logits = _logits(queries, keys, band, missing)
        peak = logits.max(-1, keepdims=True)
        weights = jnp.exp(logits - peak)
        total = weights.sum(-1, keepdims=True)
        # Divided here: C * D values in place of C * (W + C).
        out = product("bgqk,bgdk->bgqd", weights.astype(v.dtype), values) / total
        tails = keys[..., block:], values[..., block:]
        ends = (heads(out, block).astype(q.dtype), peak + jnp.log(total))
        return (tails, missing - block), ends

    band = _band(block, q.shape[2] // k.shape[2], tail_k.shape[3])
    blocks = jnp.arange(q.shape[1] // block)
    _, (out, log_sum) = lax.scan(body, ((tail_k, tail_v), missing), blocks)
    out = jnp.moveaxis(out, 0, 1).reshape(q.shape)
    return out, (q, k, v, tail_k, tail_v, missing, out, log_sum)


def _attend_backward(block, kept, d_out):
    q, k, v, tail_k, tail_v, missing, out, log_sum = kept
    window = tail_k.shape[3]

    def body(carry, inputs):
        tails, d_tails, missing = carry
        n, log_sum = inputs
        (queries, outs, d_outs), keys, values = _read(block, n, (q, out, d_out), k, v, *tails)
        weights = jnp.exp(_logits(queries, keys, band, missing) - log_sum)
        d_weights = product("bgqd,bgdk->bgqk", d_outs, values)
        # A row's mean of d_weights is out . d_out: what shifting all its logits would do.
        mean = (outs.astype(jnp.float32) * d_outs).sum(-1, keepdims=True)
        d_logits = (weights * (d_weights - mean) * scale(q)).astype(q.dtype)
        d_queries = product("bgqk,bgdk->bgqd", d_logits, keys)
        d_keys = product("bgqk,bgqd->bgdk", d_logits, queries)
        d_values = product("bgqk,bgqd->bgdk", weights.astype(v.dtype), d_outs)
        d_keys, d_values = (
            d.at[..., :window].add(before)
            for d, before in zip((d_keys, d_values), d_tails, strict=True)
        )
        # No later block reads the first C of these W + C keys: their gradients are complete.
        done = _tokens(d_keys[..., :block]), _tokens(d_values[..., :block])
        tails = keys[..., block:], values[..., block:]
        d_tails = d_keys[..., block:], d_values[..., block:]
        return (tails, d_tails, missing - block), (heads(d_queries, block).astype(q.dtype), *done)

    band = _band(block, q.shape[2] // k.shape[2], window)
    zeros = jnp.zeros(tail_k.shape, jnp.float32)
    blocks = jnp.arange(q.shape[1] // block)
    start = ((tail_k, tail_v), (zeros, zeros), missing)
    (_, (last_k, last_v), _), (d_q, done_k, done_v) = lax.scan(body, start, (blocks, log_sum))
    d_tail_k, d_k = _split(done_k, last_k, k.dtype)
    d_tail_v, d_v = _split(done_v, last_v, v.dtype)
    return jnp.moveaxis(d_q, 0, 1).reshape(q.shape), d_k, d_v, d_tail_k, d_tail_v, None


_attend.defvjp(_attend_forward, _attend_backward)


def _read(block, n, queries, k, v, tail_k, tail_v):
    """Block n of ``queries`` by kv head, and the keys and values it reads ``[B, G, D, W + C]``."""

    def cut(x):
        return lax.dynamic_slice_in_dim(x, n * block, block, 1)

    keys = jnp.concatenate([tail_k, columns(cut(k))], 3)
    values = jnp.concatenate([tail_v, columns(cut(v))], 3)
    return [rows(cut(x), k.shape[2]) for x in queries], keys, values


def _split(done, last, dtype):
    """Gradients of the tail ``[B, G, D, W]`` and, after it, of the sequence ``[B, L, G, D]``."""
    last = _tokens(last)
    done = jnp.moveaxis(done, 0, 1).reshape(last.shape[0], -1, *last.shape[2:])
    whole = jnp.concatenate([done, last], 1).astype(dtype)
    window = last.shape[1]
    return columns(whole[:, :window]), whole[:, window:]


def _logits(queries, keys, band, missing):
    logits = product("bgqd,bgdk->bgqk", queries, keys) * scale(queries)
    return jnp.where(band & (jnp.arange(keys.shape[3]) >= missing), logits, -jnp.inf)


def _band(block, repeats, window):
    """What each row ``[R * C, W + C]`` may see of tail and block."""
    row = jnp.tile(jnp.arange(block), repeats)[:, None]
    column = jnp.arange(window + block)
    return (row < column) & (column <= row + window)


def _tokens(x):
    """``[B, G, D, C] -> [B, C, G, D]``: ``columns`` back."""
    return x.transpose(0, 3, 1, 2)

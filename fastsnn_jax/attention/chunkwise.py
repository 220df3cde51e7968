"""Linear attention in chunks: matmuls inside a chunk, a recurrence from chunk to chunk."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.attention._recurrence import check_chunk, check_recurrence

# Tokens whose pairs are decayed one by one, decay per feature and decay per head. Gradient
# of 2048 tokens, 4 heads of 32, decay per feature, CPU seconds: 0.080 at 8 and 0.057 at 4.
LEAF, HEAD_LEAF = 4, 16
# Chunks computed together. On CPU 1 and 4 take the same time and 16 a quarter more, out of cache;
# an accelerator wants many.
SIDE_BY_SIDE = 4
MIN_LOG_DECAY = -1e4  # exp of it is 0; keeps a log decay of -inf from making 0 * inf


def chunkwise(
    q: Float[Array, "B L H D"], k: Float[Array, "B L G D"], v: Float[Array, "B L G E"],
    log_decay: Float[Array, "B L G D"] | None, kv: Float[Array, "B G D E"], *, chunk: int = 64,
) -> tuple[Float[Array, "B L H E"], Float[Array, "B G D E"], Float[Array, "B G D"]]:
    """The linear-attention recurrence over any number of tokens, a chunk at a time.

        S[t] = diag(exp(log_decay[t])) S[t-1] + k[t]^T v[t];   out[t] = q[t] S[t];   S[0] = kv

    A chunk reads the state before it and the pairs of tokens inside it, a = log_decay:

        out[i] = (q[i] * exp(a[1] + .. + a[i])) S
               + sum_{j <= i} (q[i] * exp(a[j+1] + .. + a[i])) . k[j]  v[j]

    Every exponent is a plain sum of log decays, never a difference of two sums: none is above 0
    and none cancels, whatever the decay. The gradient keeps the inputs and the states between runs
    of ``SIDE_BY_SIDE`` chunks, and walks back over the runs, computing each again: memory grows
    with L * (D + E) and, 256 tokens each at the default, with the states D * E of the runs.

    A sequence split over devices needs no more: each part from kv = 0, then part p's state is
    ``exp(total_log_decay) * state_before + kv_out``.

    Args:
      q: query features ``[B, L, H, D]``; query head h reads kv head ``h // (H / G)``.
      k, v: key features ``[B, L, G, D]`` and values ``[B, L, G, E]``, G a divisor of H.
      log_decay: None, ``[B, L, G, D]`` or ``[B, L, G, 1]``, <= 0.
      kv: state before the first token.
      chunk: tokens a chunk, a power of two. 64 was the fastest in forward and gradient of 4096
        tokens, 4 heads of 32, no decay, on CPU: 22 ms of processor time at 32, 20 at 64, 27 at 128.

    Returns:
      ``out`` and ``kv_out``, the state after the last token, both float32 whatever the inputs, and
      the sum of ``log_decay`` over L (0 without one).

    Raises:
      ValueError: if shapes do not fit, ``chunk`` is no power of two or a concrete ``log_decay`` is
        above 0.
      TypeError: if an array is not floating.

    Chunks: Yang et al. 2023 (GLA), arXiv:2312.06635, section 4.

    >>> ones = jnp.ones((1, 3, 1, 1))
    >>> out, kv, total = chunkwise(ones, ones, ones, jnp.log(ones / 2), jnp.zeros((1, 1, 1, 1)))
    >>> out.ravel(), round(total.item(), 4)  # three halvings: log(1 / 8)
    (Array([1.  , 1.5 , 1.75], dtype=float32), -2.0794)
    """
    where = "chunkwise"
    check_chunk(where, chunk)
    check_recurrence(where, q, k, v, log_decay)
    shape = (k.shape[0], *k.shape[2:], v.shape[3])
    check(jnp.shape(kv) == shape, where, f"kv must have shape {shape}", jnp.shape(kv))
    total = jnp.zeros(shape[:-1])
    if log_decay is not None:
        log_decay = jnp.maximum(log_decay.astype(jnp.float32), MIN_LOG_DECAY)
        total += log_decay.sum(1)
    chunk = min(chunk, 1 << (q.shape[1] - 1).bit_length())  # a short sequence is one chunk
    rows = q.reshape(*k.shape[:3], -1, k.shape[3])  # one row per query head of a kv head
    out, kv_out = _runs(chunk, rows, k, v, log_decay, kv.astype(jnp.float32))
    return out.reshape(*q.shape[:3], -1), kv_out, total


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _runs(chunk, q, k, v, log_decay, kv):
    return _runs_forward(chunk, q, k, v, log_decay, kv)[0]


def _runs_forward(chunk, q, k, v, log_decay, kv):
    def body(state, inputs):
        state_after, out = _run(state, *inputs)
        return state_after, (state, out)

    inputs = _split(chunk, q, k, v, log_decay)
    kv_out, (states, out) = lax.scan(body, kv, inputs)
    return (_join(out, q.shape[1]), kv_out), (q, k, v, log_decay, states)


def _runs_backward(chunk, residuals, cotangents):
    q, k, v, log_decay, states = residuals
    d_out, d_kv = cotangents

    def body(d_state, run):
        state, inputs, d_out = run
        _, pull = jax.vjp(_run, state, *inputs)
        d_state, *d_inputs = pull((d_state, d_out))
        return d_state, d_inputs

    *inputs, d_out = _split(chunk, q, k, v, log_decay, d_out)
    d_kv, d_inputs = lax.scan(body, d_kv, (states, inputs, d_out), reverse=True)
    return *(None if d is None else _join(d, q.shape[1]) for d in d_inputs), d_kv


_runs.defvjp(_runs_forward, _runs_backward)

# Below, in the axes of a run: b batch, g kv head, n chunk, i and j tokens of a chunk (i reads, j
# is read), r query heads of a kv head, d key features, e value features. Six at most to a matmul,
# which leaves one for vmap: XLA's CPU matmuls abort at rank eight.


def _run(state, q, k, v, log_decay):
    """A few chunks side by side; only the state goes from one to the next in turn."""
    product = partial(jnp.einsum, precision=_precision(q))
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    reading, writing = q, k
    keep = jnp.ones((k.shape[2], 1, 1, 1))
    if log_decay is not None:
        before = _sum_until(log_decay)
        reading = q * jnp.exp(before)[..., None, :]
        writing = k * jnp.exp(_sum_after(log_decay))
        keep = jnp.moveaxis(jnp.exp(before[..., -1, :]), 2, 0)
    fresh = product("bgnjd,bgnje->nbgde", writing, v)

    def next_chunk(state, chunk):
        keep, fresh = chunk
        return keep[..., None] * state + fresh, state

    state, states = lax.scan(next_chunk, state, (keep, fresh))
    out = _within(product, q, k, v, log_decay)
    return state, out + product("bgnird,nbgde->bgnire", reading, states)


def _within(product, q, k, v, log_decay):
    """What the tokens of a chunk read from each other.

    With decay, by halves: a token i of the second half and j of the first meet at the middle,
    exp(a[mid] + .. + a[i]) in q and exp(a[j+1] + .. + a[mid-1]) in k, so that these pairs are one
    matmul; each half is a chunk again, down to a leaf.
    """
    length = k.shape[3]
    if log_decay is None or length <= (HEAD_LEAF if log_decay.shape[-1] == 1 else LEAF):
        scores = _scores(product, q, k, log_decay)
        return product("bgnirj,bgnje->bgnire", scores, v)
    (_, late_q), (early_k, _), (early_v, _) = _halves(q), _halves(k), _halves(v)
    early_decay, late_decay = _halves(log_decay)
    late_q = late_q * jnp.exp(_sum_until(late_decay))[..., None, :]
    early_k = early_k * jnp.exp(_sum_after(early_decay))
    scores = product("bgnird,bgnjd->bgnirj", late_q, early_k)
    across = product("bgnirj,bgnje->bgnire", scores, early_v)
    inside = _within(product, *map(_as_two_chunks, (q, k, v, log_decay)))
    early, late = _halves(inside.reshape(*q.shape[:-1], v.shape[-1]))
    return jnp.concatenate([early, late + across], 3)


def _scores(product, q, k, log_decay):
    """(q[i] * exp(a[j+1] + .. + a[i])) . k[j] where j <= i, else 0: [b, g, n, i, r, j]."""
    if log_decay is None:
        scores = product("bgnird,bgnjd->bgnirj", q, k)
    elif log_decay.shape[-1] == 1:
        decay = jnp.exp(_sum_between(log_decay))[..., 0]
        scores = product("bgnird,bgnjd->bgnirj", q, k) * decay[..., None, :]
    else:
        decayed = k[:, :, :, None] * jnp.exp(_sum_between(log_decay))
        scores = product("bgnird,bgnijd->bgnirj", q, decayed)
    causal = jnp.tri(k.shape[3], dtype=bool)
    return jnp.where(causal[:, None], scores, 0)


def _sum_until(a):
    """a[1] + .. + a[i], as a matmul: shorter to compile than a cumulative sum."""
    return _sums("it,bgntd->bgnid", jnp.tri(a.shape[3]), a)


def _sum_after(a):
    """a[j+1] + .. + a[last]."""
    return _sums("jt,bgntd->bgnjd", jnp.tri(a.shape[3], k=-1).T, a)


def _sum_between(a):
    """a[j+1] + .. + a[i], 0 where j >= i."""
    i, j, t = jnp.ogrid[: a.shape[3], : a.shape[3], : a.shape[3]]
    return _sums("ijt,bgntd->bgnijd", ((j < t) & (t <= i)).astype(a.dtype), a)


def _sums(axes, chosen, a):
    return jnp.einsum(axes, chosen, a, precision=lax.Precision.HIGHEST)


def _precision(q):
    """Full float32 products for float32 inputs; the accelerator's fast ones for shorter dtypes."""
    return lax.Precision.HIGHEST if q.dtype == jnp.float32 else lax.Precision.DEFAULT


def _halves(x):
    x = x.reshape(*x.shape[:3], 2, x.shape[3] // 2, *x.shape[4:])
    return x[:, :, :, 0], x[:, :, :, 1]


def _as_two_chunks(x):
    return x.reshape(*x.shape[:2], 2 * x.shape[2], x.shape[3] // 2, *x.shape[4:])


def _split(chunk, *arrays):
    """Each [B, L, G, ...] -> [run, b, g, n, i, ...], zeros after L; None stays None."""
    length = arrays[0].shape[1]
    chunks = -(-length // chunk)
    runs = -(-chunks // SIDE_BY_SIDE)
    in_run = -(-chunks // runs)

    def split(x):
        # A key of 0 writes nothing and a log decay of 0 keeps what is there.
        rows = ((0, 0), (0, runs * in_run * chunk - length), *[(0, 0)] * (x.ndim - 2))
        x = jnp.pad(x, rows).reshape(x.shape[0], runs, in_run, chunk, *x.shape[2:])
        return jnp.moveaxis(x, (1, 4), (0, 2))

    return [None if x is None else split(x) for x in arrays]


def _join(x, length):
    """[run, b, g, n, i, ...] -> [B, L, G, ...]."""
    x = jnp.moveaxis(x, (0, 2), (1, 4))
    return x.reshape(x.shape[0], -1, *x.shape[4:])[:, :length]

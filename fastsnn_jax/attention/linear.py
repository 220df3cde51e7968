"""Linear attention: softmax attention's kernel replaced by features, its cache by a fixed state."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.attention import plain
from fastsnn_jax.attention._recurrence import check_chunk, check_recurrence
from fastsnn_jax.attention.chunkwise import chunkwise
from fastsnn_jax.attention.feature_maps import FEATURE_MAPS
from fastsnn_jax.attention.feature_maps import feature_map as elementwise

GATE_FLOOR = 1e-6  # added to the query gate, as FastSNN does: a shut gate still reads
NORMALIZERS = ("z", "none")
TINY, LOWEST = 2.0**-100, -80.0  # least normaliser and log scale whose inverses are far from inf


class LinearState(NamedTuple):
    """All that the tokens so far leave behind, per kv head, float32 whatever the inputs."""

    kv: Float[Array, "B G D E"]
    """Decayed sum of ``phi(k)^T v``."""
    z: Float[Array, "B G D"]
    """Decayed sum of ``phi(k)``; untouched by ``normalizer="none"``."""
    peak: Float[Array, "B G"]
    """Largest key entry so far, in which "exp" counts kv and z; -inf at first, else untouched."""


def init_linear_state(batch: int, kv_heads: int, key_dim: int, value_dim: int) -> LinearState:
    """The state before the first token.

    Raises:
      ValueError: if a size is below 1.
      TypeError: if a size is no int.

    >>> init_linear_state(1, 2, 3, 4).kv.shape
    (1, 2, 3, 4)
    """
    sizes = {"batch": batch, "kv_heads": kv_heads, "key_dim": key_dim, "value_dim": value_dim}
    for name, size in sizes.items():
        check_count("init_linear_state", name, size)
    return LinearState(
        jnp.zeros((batch, kv_heads, key_dim, value_dim), jnp.float32),
        jnp.zeros((batch, kv_heads, key_dim), jnp.float32),
        jnp.full((batch, kv_heads), -jnp.inf, jnp.float32),
    )


def linear_attention(
    q: Float[Array, "B L H D"], k: Float[Array, "B L G D"], v: Float[Array, "B L G E"],
    state: LinearState | None = None, *, feature_map: str = "softplus",
    query_gate: Float[Array, "B L H D"] | None = None,
    log_decay: Float[Array, "B L G D"] | None = None, normalizer: str = "z", eps: float = 1e-6,
    chunk: int = 64,
) -> tuple[LinearState, Float[Array, "B L H E"]]:
    """Causal linear attention over any stretch of a sequence, in O(L) time.

        S[t] = diag(exp(log_decay[t])) S[t-1] + phi(k[t])^T v[t];   z[t] likewise with v = 1
        f[t] = phi(q[t]) * (query_gate[t] + 1e-6)
        out[t] = f[t] S[t] / (f[t] . z[t] + eps)       normalizer "z"
        out[t] = f[t] S[t]                             normalizer "none"

    Query head h reads kv head ``h // (H / G)``. In chunks for L > 1, one step of the recurrence for
    L == 1: a sequence cut anywhere, the state handed on, gives what the whole gives.

    "exp" is ``exp(q - max_D q)`` for queries and ``exp(k - peak)`` for keys, peak the largest key
    entry so far, which scales S, z, f and, with "z", eps: nothing overflows, and the scale is
    divided out again. It is a constant to gradients, so those of "none" are right where a norm
    follows.

    Args:
      q: queries ``[B, L, H, D]``.
      k, v: keys ``[B, L, G, D]`` and values ``[B, L, G, E]``, G a divisor of H.
      state: what came before; None starts a sequence.
      feature_map: phi: "softplus", "relu", "elu1" or "exp".
      query_gate: None or ``[B, L, H, D]`` in [0, 1].
      log_decay: None or ``[B, L, G, D]`` (``[B, L, G, 1]``: one per head), <= 0.
      normalizer: "z" or "none", for a norm of the caller's.
      eps: added to the normaliser; > 0.
      chunk: tokens a chunk, a power of two. Speed only: the result is the same.

    Returns:
      The state after the last token and ``[B, L, H, E]`` in the dtype of ``v``.

    Raises:
      ValueError: if shapes do not fit, a name is unknown, or a concrete ``log_decay`` is above 0.
      TypeError: if an array is not floating or a number no number.

    Katharopoulos et al. 2020, arXiv:2006.16236; decay: Yang et al. 2023 (GLA), arXiv:2312.06635.

    >>> v = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> state, out = linear_attention(jnp.ones((1, 2, 1, 1)), jnp.ones((1, 2, 1, 1)), v)
    >>> out.ravel().round(4)  # equal keys: the mean so far
    Array([1., 2.], dtype=float32)
    """
    where = "linear_attention"
    check_chunk(where, chunk)
    core = partial(_chunks, chunk=chunk) if jnp.shape(q)[1:2] != (1,) else plain.one_token
    return _attend(
        where, core, q, k, v, state, feature_map=feature_map, query_gate=query_gate,
        log_decay=log_decay, normalizer=normalizer, eps=eps,
    )


def linear_attention_step(
    q: Float[Array, "B 1 H D"], k: Float[Array, "B 1 G D"], v: Float[Array, "B 1 G E"],
    state: LinearState | None = None, **options: Any,
) -> tuple[LinearState, Float[Array, "B 1 H E"]]:
    """``linear_attention`` of one token: the recurrence itself, O(1) in what came before.

    Takes the options of ``linear_attention`` but ``chunk``; ValueError also where L is not 1.
    """
    where = "linear_attention_step"
    check(jnp.shape(q)[1:2] == (1,), where, "q must hold one token, [B, 1, H, D]", jnp.shape(q))
    return _attend(where, plain.one_token, q, k, v, state, **options)


def linear_attention_recurrent(q, k, v, state=None, **options: Any) -> tuple[LinearState, Array]:
    """``linear_attention`` token by token: the plain twin that follows the equations.

    Takes the options of ``linear_attention`` but ``chunk``.
    """
    return _attend("linear_attention_recurrent", plain.recurrent, q, k, v, state, **options)


def linear_attention_quadratic(q, k, v, state=None, **options: Any) -> tuple[LinearState, Array]:
    """``linear_attention`` over all pairs of tokens: the twin without a recurrence, O(L**2).

    Takes the options of ``linear_attention`` but ``chunk``.
    """
    return _attend("linear_attention_quadratic", plain.quadratic, q, k, v, state, **options)


def _attend(
    where, core, q, k, v, state, *, feature_map="softplus", query_gate=None, log_decay=None,
    normalizer="z", eps=1e-6,
):
    check_choice(where, "feature_map", feature_map, FEATURE_MAPS)
    check_choice(where, "normalizer", normalizer, NORMALIZERS)
    check_number(where, "eps", eps, above=0)
    check_recurrence(where, q, k, v, log_decay)
    if state is None:
        batch, _, kv_heads, size = k.shape
        state = init_linear_state(batch, kv_heads, size, v.shape[3])
    _check_state(where, state, k, v)
    log_decay = None if log_decay is None else log_decay.astype(jnp.float32)
    if feature_map == "exp":
        queries, keys, fade, peak, scale = _exp_features(q, k, state.peak)
        eps = jnp.maximum(eps * jnp.exp(-scale), TINY)
        log_decay = fade if log_decay is None else fade + log_decay
    else:
        phi = elementwise(feature_map)
        queries, keys, peak = phi(q.astype(jnp.float32)), phi(k.astype(jnp.float32)), state.peak
    if query_gate is not None:
        check(
            jnp.shape(query_gate) == q.shape, where, f"query_gate must have shape {q.shape}",
            jnp.shape(query_gate),
        )
        queries = queries * (query_gate.astype(jnp.float32) + GATE_FLOOR)
    queries, keys = queries.astype(q.dtype), keys.astype(k.dtype)
    if normalizer == "none":
        out, kv = core(queries, keys, v, log_decay, state.kv)
        return LinearState(kv, state.z, peak), out.astype(v.dtype)
    # z is the state of one more value that is always 1: the last output column is f . z.
    values = jnp.concatenate([v, jnp.ones((*v.shape[:3], 1), v.dtype)], -1)
    table = jnp.concatenate([state.kv, state.z[..., None]], -1)
    out, table = core(queries, keys, values, log_decay, table)
    # In units of the normaliser itself: the gradient of a quotient squares what it divides by.
    total = out[..., -1:] + eps
    unit = lax.stop_gradient(total)
    out = (out[..., :-1] / unit) / (total / unit)
    return LinearState(table[..., :-1], table[..., -1], peak), out.astype(v.dtype)


def _chunks(*arguments, chunk):
    return chunkwise(*arguments, chunk=chunk)[:2]


def _exp_features(q, k, peak):
    """exp of queries and of keys, the log decay [B, L, G, 1] that rescales the state, the last
    peak, and the logarithm [B, L, H, 1] of what products of query and key are divided by."""
    q, k, peak = q.astype(jnp.float32), k.astype(jnp.float32), lax.stop_gradient(peak)
    highest = jnp.maximum(lax.stop_gradient(k).max(-1), peak[:, None])
    peaks = lax.cummax(highest, axis=1)
    before = jnp.concatenate([peak[:, None], peaks[:, :-1]], 1)
    # Before the first token there is nothing to rescale: 0, where -inf would make NaN gradients.
    fade = jnp.where(jnp.isneginf(before), 0.0, before - peaks)[..., None]
    top = lax.stop_gradient(q).max(-1, keepdims=True)
    scale = top + jnp.repeat(peaks, q.shape[2] // k.shape[2], axis=2)[..., None]
    keys = jnp.exp(k - peaks[..., None])
    return jnp.exp(q - top), keys, fade, peaks[:, -1], jnp.maximum(scale, LOWEST)


def _check_state(where, state, k, v):
    batch, _, kv_heads, size = k.shape
    expected = ((batch, kv_heads, size, v.shape[3]), (batch, kv_heads, size), (batch, kv_heads))
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(state))
    check(
        shapes == expected, where, f"state must have leaves of shapes {expected}", shapes,
        "init_linear_state makes one",
    )

"""Softmax attention and its cache against NumPy and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.attention.softmax import init_kv_cache, softmax_attention, softmax_extend

B, L, G, R, D = 2, 13, 3, 2, 4


def heads(dtype=jnp.float32):
    """Random q [B, L, G * R, D], k and v [B, L, G, D]."""
    normal = np.random.default_rng(0).normal
    return tuple(normal(size=(B, L, n, D)).astype(dtype) for n in (G * R, G, G))


def oracle(q, k, v):
    """Full mask, heads repeated, float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, R, axis=2) for x in (k, v))
    weights = np.exp(np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(D)) * np.tri(L)
    return np.einsum("bhij,bjhd->bihd", weights / weights.sum(-1, keepdims=True), v)


attention = jax.jit(softmax_attention)
extend = jax.jit(softmax_extend)


def by_cuts(q, k, v, max_len, lengths):
    cache, outs, start = init_kv_cache(B, max_len, G, D), [], 0
    for length in lengths:
        now = slice(start, start + length)
        cache, out = extend(cache, q[:, now], k[:, now], v[:, now])
        outs.append(out)
        start += length
    assert start == L
    return jax.tree.map(np.asarray, cache), np.concatenate(outs, 1)


def test_each_query_sees_itself_and_all_before_it():
    arrays = heads()
    np.testing.assert_allclose(attention(*arrays), oracle(*arrays), rtol=2e-6, atol=2e-6)


def test_nothing_after_a_query_moves_it():
    at = 5
    q, k, v = heads()
    d_out = np.zeros_like(q)
    d_out[:, at] = 1.0 + q[:, at]
    gradients = jax.jit(lambda *arrays: jax.vjp(softmax_attention, *arrays)[1](d_out))(q, k, v)
    d_q, d_k, d_v = map(np.asarray, gradients)
    for gradient, seen in ((d_q, [at]), (d_k, range(at + 1)), (d_v, range(at + 1))):
        np.testing.assert_array_equal(np.flatnonzero(np.abs(gradient).max((0, 2, 3))), seen)


@pytest.mark.parametrize("max_len", [L, L + 4])
@pytest.mark.parametrize("lengths", [[L], [1] * L, [4, 1, 7, 1]], ids=["one", "tokens", "odd"])
def test_any_cut_of_the_sequence_equals_the_whole(lengths, max_len):
    q, k, v = heads()
    cache, out = by_cuts(q, k, v, max_len, lengths)
    np.testing.assert_allclose(out, oracle(q, k, v), rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(cache.k[:, :L], k)
    np.testing.assert_array_equal(cache.v[:, :L], v)
    assert cache.position == L and not cache.k[:, L:].any()


# Ends within a call, at its border, a call after it, and before the first call is over.
@pytest.mark.parametrize("max_len", [9, 11, 2])
@pytest.mark.parametrize("lengths", [[4, 7, 1, 1], [1] * L], ids=["long", "tokens"])
def test_tokens_past_the_end_give_nan_and_leave_the_cache_as_it_is(lengths, max_len):
    q, k, v = heads()
    cache, out = by_cuts(q, k, v, max_len, lengths)
    np.testing.assert_allclose(
        out[:, :max_len], oracle(q, k, v)[:, :max_len], rtol=2e-6, atol=2e-6
    )
    assert np.isnan(out[:, max_len:]).all()
    np.testing.assert_array_equal(cache.k, k[:, :max_len])
    np.testing.assert_array_equal(cache.v, v[:, :max_len])
    assert cache.position == L


def test_half_precision_inputs_keep_float32_logits():
    arrays = heads(dtype=jnp.bfloat16)
    out = softmax_attention(*map(jnp.asarray, arrays))
    cache, cut = extend(init_kv_cache(B, L, G, D, jnp.bfloat16), *arrays)
    assert out.dtype == cut.dtype == cache.k.dtype == jnp.bfloat16
    for got in (out, cut):
        got = np.asarray(got, np.float32)
        np.testing.assert_allclose(got, oracle(*arrays), rtol=0.02, atol=0.02)


def test_bad_arguments_are_refused():
    q, k, v = heads()
    with pytest.raises(ValueError, match="softmax_attention: the kv heads must divide"):
        softmax_attention(q[:, :, :4], k, v)
    with pytest.raises(TypeError, match="k must be floating"):
        softmax_attention(q, k.astype(int), v)
    with pytest.raises(ValueError, match="softmax_extend: the cache must have shape"):
        softmax_extend(init_kv_cache(B, L, G, D + 1), q, k, v)
    with pytest.raises(ValueError, match="max_len must be >= 1"):
        init_kv_cache(B, 0, G, D)
    with pytest.raises(TypeError, match="kv_heads must be an int"):
        init_kv_cache(B, L, 1.5, D)

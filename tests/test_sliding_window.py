"""Banded blocks and ring buffer against the plain mask, NumPy and each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.attention.sliding_window import (
    init_window_cache,
    sliding_window,
    sliding_window_extend,
    sliding_window_quadratic,
)

B, G, R, D = 2, 3, 2, 4
L = 67  # two blocks of 32 and an odd rest
WINDOWS = [1, 2, 5, 33, 66, 100]


def heads(length=L, dtype=jnp.float32):
    """Random q [B, L, G * R, D], k and v [B, L, G, D]."""
    normal = np.random.default_rng(0).normal
    return tuple(normal(size=(B, length, n, D)).astype(dtype) for n in (G * R, G, G))


def like(q, seed=1):
    return np.random.default_rng(seed).normal(size=q.shape).astype(q.dtype)


@partial(jax.jit, static_argnums=(0, 1))
def values_and_gradients(form, window, q, k, v, d_out):
    out, pull = jax.vjp(lambda *arrays: form(*arrays, window), q, k, v)
    return out, *pull(d_out)


def oracle(window, q, k, v, d_out):
    """All logits, heads repeated, float64: the output and the gradients by hand."""
    q, k, v, d_out = (np.asarray(x, np.float64) for x in (q, k, v, d_out))
    batch, length, heads, size = q.shape
    many_k, many_v = (np.repeat(x, heads // k.shape[2], axis=2) for x in (k, v))
    logits = np.einsum("bihd,bjhd->bhij", q, many_k) / np.sqrt(size)
    band = np.tri(length, dtype=bool) & ~np.tri(length, k=-window, dtype=bool)
    logits = np.where(band, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    d_weights = np.einsum("bihd,bjhd->bhij", d_out, many_v)
    mean = (weights * d_weights).sum(-1, keepdims=True)
    d_logits = weights * (d_weights - mean) / np.sqrt(size)

    def to_kv_heads(x):
        return x.reshape(batch, length, k.shape[2], -1, size).sum(3)

    return (
        np.einsum("bhij,bjhd->bihd", weights, many_v),
        np.einsum("bhij,bjhd->bihd", d_logits, many_k),
        to_kv_heads(np.einsum("bhij,bihd->bjhd", d_logits, q)),
        to_kv_heads(np.einsum("bhij,bihd->bjhd", weights, d_out)),
    )


def assert_all_close(actual, expected, tolerance=3e-6):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max())
        )


@pytest.mark.parametrize(
    "form, window", [(sliding_window, w) for w in WINDOWS]
    + [(sliding_window_quadratic, w) for w in (2, 5, 100)],
)
def test_values_and_gradients_of_exactly_w_keys(form, window):
    arrays = heads()
    arrays += (like(arrays[0]),)
    assert_all_close(values_and_gradients(form, window, *arrays), oracle(window, *arrays))


@pytest.mark.parametrize("length", [1, 31])
def test_short_sequences_need_no_whole_block(length):
    arrays = heads(length)
    arrays += (like(arrays[0]),)
    assert_all_close(values_and_gradients(sliding_window, 5, *arrays), oracle(5, *arrays))


def test_large_logits_do_not_overflow():
    q, k, v = heads()
    arrays = (1e4 * q, k, v, like(q))
    out, *gradients = values_and_gradients(sliding_window, 5, *arrays)
    assert all(np.isfinite(d).all() for d in gradients)
    # A logit near 1e4 is rounded by 1e-3, and so, relatively, is its weight.
    assert_all_close([out], oracle(5, *arrays)[:1], 1e-2)


def test_equal_logits_of_whole_numbers_average_exactly():
    q, _, v = heads()
    v = np.round(4 * v)
    out = values_and_gradients(sliding_window, 2, 0 * q, v, v, q)[0]
    means = np.repeat((v[:, 1:] + v[:, :-1]) / 2, R, axis=2)
    np.testing.assert_array_equal(np.asarray(out)[:, 1:], means)


@pytest.mark.parametrize("form", [sliding_window, sliding_window_quadratic])
@pytest.mark.parametrize("at", [2, 31, 32, 40, 66])
def test_nothing_after_a_query_nor_before_its_window_moves_it(form, at):
    q, k, v = heads()
    d_out = np.zeros_like(q)
    d_out[:, at] = like(q)[:, at]
    _, d_q, d_k, d_v = values_and_gradients(form, 5, q, k, v, d_out)
    window = range(max(0, at - 4), at + 1)
    for gradient, seen in ((d_q, [at]), (d_k, window), (d_v, window)):
        moved = np.flatnonzero(np.abs(np.asarray(gradient)).max((0, 2, 3)))
        np.testing.assert_array_equal(moved, seen)


extend = jax.jit(sliding_window_extend)
CUTS = {"odd": [13, 1, 40, 13], "tokens": [1] * L, "mixed": [1] * 9 + [40, 13] + [1] * 5}


@pytest.mark.parametrize("window", [1, 6, 80])
@pytest.mark.parametrize("lengths", CUTS.values(), ids=CUTS)
def test_any_cut_of_the_sequence_equals_the_whole(lengths, window):
    q, k, v = heads()
    cache, outs, start = init_window_cache(B, G, window, D), [], 0
    for length in lengths:
        now = np.s_[:, start : start + length]
        cache, out = extend(cache, q[now], k[now], v[now])
        outs.append(out)
        start += length
    assert start == cache.position == L
    assert_all_close([np.concatenate(outs, 1)], oracle(window, q, k, v, q)[:1])
    kept_k, kept_v = np.asarray(cache.k), np.asarray(cache.v)
    for p in range(max(0, L - window), L):
        np.testing.assert_array_equal(kept_k[:, :, p % window], k[:, p])
        np.testing.assert_array_equal(kept_v[:, :, p % window], v[:, p])


def test_gradients_flow_through_the_cache():
    q, k, v = heads(23)

    def cut(q, k, v, window):
        cache, outs = init_window_cache(B, G, window, D), []
        for now in (np.s_[:, :10], np.s_[:, 10:22], np.s_[:, 22:]):
            cache, out = sliding_window_extend(cache, q[now], k[now], v[now])
            outs.append(out)
        return jnp.concatenate(outs, 1)

    arrays = (q, k, v, like(q))
    assert_all_close(values_and_gradients(cut, 6, *arrays), oracle(6, *arrays))


def test_the_longer_block_of_accelerators_gives_the_same(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    arrays = heads(300)
    assert "256" in str(jax.make_jaxpr(lambda *a: sliding_window(*a, 8))(*arrays))
    out = jax.jit(sliding_window, static_argnums=3)(*arrays, 8)
    assert_all_close([out], oracle(8, *arrays, arrays[0])[:1])


def test_half_precision_inputs_keep_float32_logits():
    arrays = heads(dtype=jnp.bfloat16)
    arrays += (like(arrays[0]),)
    results = values_and_gradients(sliding_window, 5, *arrays)
    assert {x.dtype for x in results} == {jnp.dtype(jnp.bfloat16)}
    assert_all_close(results, oracle(5, *arrays), 0.02)
    cache = init_window_cache(B, G, 5, D, jnp.bfloat16)
    for now in (np.s_[:, :66], np.s_[:, 66:]):
        cache, out = extend(cache, *(x[now] for x in arrays[:3]))
        assert cache.k.dtype == cache.v.dtype == out.dtype == jnp.bfloat16
        assert_all_close([out], [oracle(5, *arrays)[0][now]], 0.02)


def test_the_gradient_keeps_no_logits():
    length, window = 8192, 512
    shapes = [jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)] * 4
    program = values_and_gradients.lower(sliding_window, window, *shapes).compile()
    temporary = program.memory_analysis().temp_size_in_bytes
    assert temporary < 0.5 * (4 * 2 * length * window)


BAD = [
    ("window must be >= 1", {"window": 0}), ("q must have shape", {"q": (2, 3, 4)}),
    ("must have shape", {"k": (2, 4, 2, 4)}), ("kv heads must divide", {"q": (2, 3, 3, 4)}),
    ("must have shape", {"v": (2, 3, 2, 5)}), ("none of them 0", {"q": (2, 0, 4, 4)}),
]


@pytest.mark.parametrize("message, change", BAD)
def test_bad_arguments_are_refused(message, change):
    shapes = {"q": (2, 3, 4, 4), "k": (2, 3, 2, 4), "v": (2, 3, 2, 4), "window": 2} | change
    window = shapes.pop("window")
    with pytest.raises(ValueError, match=message):
        sliding_window(*(np.zeros(shape, np.float32) for shape in shapes.values()), window)


def test_integers_and_a_foreign_cache_are_refused():
    q, k, v = heads(3)
    with pytest.raises(TypeError, match="q must be floating"):
        sliding_window(q.astype(int), k, v, 2)
    with pytest.raises(TypeError, match="window must be an int"):
        sliding_window(q, k, v, 2.0)
    with pytest.raises(ValueError, match="the cache must have shape"):
        sliding_window_extend(init_window_cache(B, G + 1, 6, D), q, k, v)
    with pytest.raises(ValueError, match="init_window_cache: window must be >= 1"):
        init_window_cache(B, G, 0, D)

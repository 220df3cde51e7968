"""Bit words, time sums and the bias against their plain twins."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.kernels.bit_words import pack_words, words_to_events
from fastsnn_jax.kernels.time_sum import add_bias, sum_over_time


@partial(jax.jit, static_argnums=1)
def events_of_words(train, channels):
    words = pack_words(lambda _, column: column, jnp.moveaxis(train, -1, 0), (4, 3))
    return words_to_events(words, channels, channels)


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_words_give_back_the_channels_that_fired(channels, density):
    train = np.random.default_rng(channels).random((4, 3, channels)) < density
    index, lost = map(np.asarray, events_of_words(train, channels))
    assert int(lost.sum()) == 0
    for t in range(4):
        for b in range(3):
            fired = np.flatnonzero(train[t, b])
            np.testing.assert_array_equal(index[t, b, : len(fired)], fired)
            assert (index[t, b, len(fired):] == channels).all()


def test_events_beyond_the_capacity_are_counted():
    train = jnp.ones((1, 40), bool)
    words = pack_words(lambda _, column: column, train.T, (1,))
    index, lost = words_to_events(words, 40, 7)
    assert index.tolist() == [[0, 1, 2, 3, 4, 5, 6]] and lost.tolist() == [33]


def test_time_sum_equals_the_plain_sum():
    train = np.random.default_rng(0).integers(0, 2, (50, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(sum_over_time(jnp.asarray(train)), train.sum(0))


def test_time_sum_of_bfloat16_counts_beyond_256():
    assert float(sum_over_time(jnp.ones((1000, 1), jnp.bfloat16))[0]) == 1000.0


@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 2, 4, 6, 3)])
def test_bias_gradient_equals_that_of_plain_addition(shape):
    current = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    bias = np.arange(3, dtype=np.float32)

    def loss(add):
        return lambda current, bias: jnp.sum(jnp.cos(add(current, bias)))

    fast = jax.jit(jax.value_and_grad(loss(add_bias), (0, 1)))(current, bias)
    plain = jax.jit(jax.value_and_grad(loss(lambda c, b: c + b), (0, 1)))(current, bias)
    for got, expected in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)

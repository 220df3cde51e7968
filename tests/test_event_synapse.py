"""Event-driven synapse against its plain twin, ``dense @ kernel``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.kernels.event_synapse import event_matmul, preferred_synapse

STEPS, BATCH, CHANNELS, WIDTH, CAPACITY = 5, 2, 37, 3, 21


def draw(density, seed=0):
    """A random binary train [T, B, N] and its event list [T, B, K]."""
    rng = np.random.default_rng(seed)
    train = (rng.random((STEPS, BATCH, CHANNELS)) < density).astype(np.float32)
    index = np.full((STEPS, BATCH, CAPACITY), CHANNELS, np.int32)
    for t in range(STEPS):
        for b in range(BATCH):
            fired = np.flatnonzero(train[t, b])
            assert len(fired) <= CAPACITY
            index[t, b, : len(fired)] = fired
    return train, index


def random_kernel(seed=1):
    return np.random.default_rng(seed).normal(size=(CHANNELS, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3])
def test_event_product_equals_dense_product(density):
    train, index = draw(density)
    kernel = random_kernel()
    np.testing.assert_allclose(
        jax.jit(event_matmul)(index, kernel), train @ kernel, rtol=1e-5, atol=1e-6
    )


def test_event_product_is_exact_on_dyadic_kernels():
    train, index = draw(0.3)
    kernel = np.round(random_kernel() * 64) / 64
    np.testing.assert_array_equal(event_matmul(index, kernel), train @ kernel)


def test_integer_kernel_sums_in_int32():
    train, index = draw(0.3)
    kernel = np.random.default_rng(2).integers(-128, 128, (CHANNELS, WIDTH)).astype(np.int8)
    product = event_matmul(index, kernel)
    assert product.dtype == jnp.int32
    np.testing.assert_array_equal(product, train.astype(np.int64) @ kernel.astype(np.int64))


def test_bfloat16_kernel_sums_in_float32():
    index = np.arange(CAPACITY, dtype=np.int32)[None]
    kernel = jnp.full((CHANNELS, 1), 1.0, jnp.bfloat16).at[0].set(256.0)
    # 256 + 1 is not a bfloat16; 256 + 20 is.
    assert event_matmul(index, kernel).dtype == jnp.bfloat16
    assert float(event_matmul(index, kernel)[0, 0]) == 256.0 + CAPACITY - 1


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3])
def test_kernel_gradient_equals_that_of_the_dense_product(density):
    train, index = draw(density)
    weights = np.random.default_rng(3).normal(size=(STEPS, BATCH, WIDTH)).astype(np.float32)

    def event(kernel):
        return jnp.sum(jnp.sin(event_matmul(index, kernel)) * weights)

    def dense(kernel):
        return jnp.sum(jnp.sin(train @ kernel) * weights)

    np.testing.assert_allclose(
        jax.grad(event)(random_kernel()), jax.grad(dense)(random_kernel()), rtol=1e-5, atol=1e-5
    )


def test_gradient_of_many_rows_equals_that_of_the_dense_product():
    """More rows than one cache block, and not a whole number of blocks."""
    rng = np.random.default_rng(4)
    train = (rng.random((150, CHANNELS)) < 0.2).astype(np.float32)
    index = np.full((150, CAPACITY), CHANNELS, np.int32)
    for row in range(150):
        fired = np.flatnonzero(train[row])
        index[row, : len(fired)] = fired
    weights = np.round(rng.normal(size=(150, WIDTH)) * 16).astype(np.float32) / 16

    def loss(kernel):
        return jnp.sum(event_matmul(index, kernel) * weights)

    np.testing.assert_array_equal(jax.grad(loss)(random_kernel()), train.T @ weights)


def test_vmap_over_rows_equals_one_call():
    _, index = draw(0.3)
    kernel = random_kernel()
    np.testing.assert_allclose(
        jax.vmap(event_matmul, (0, None))(index, kernel), event_matmul(index, kernel), rtol=1e-6
    )


def test_indices_beyond_the_channels_add_nothing_wherever_they_stand():
    kernel = jnp.array([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    index = jnp.array([[-1, 2, 3, 0], [9, -7, 1, 1], [3, 3, -1, 3]])
    expected = [[17.0, 34.0], [8.0, 16.0], [0.0, 0.0]]
    np.testing.assert_array_equal(event_matmul(index, kernel), expected)
    np.testing.assert_array_equal(event_matmul(index, kernel.astype(jnp.int8)), expected)
    weights = jnp.array([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    gradient = jax.grad(lambda kernel: jnp.sum(event_matmul(index, kernel) * weights))(kernel)
    np.testing.assert_array_equal(gradient, [[1.0, 2.0], [8.0, 16.0], [1.0, 2.0]])


@pytest.mark.parametrize("shape", [(0, 4), (5, 0, 4), (5, 2, 0)])
def test_no_rows_or_no_slots_give_zeros_and_a_gradient_of_zeros(shape):
    index, kernel = jnp.zeros(shape, jnp.int32), jnp.asarray(random_kernel())
    np.testing.assert_array_equal(event_matmul(index, kernel), np.zeros((*shape[:-1], WIDTH)))
    assert event_matmul(index, kernel.astype(jnp.int8)).dtype == jnp.int32
    gradient = jax.grad(lambda kernel: event_matmul(index, kernel).sum())(kernel)
    np.testing.assert_array_equal(gradient, np.zeros_like(kernel))


def test_dense_is_preferred_off_cpu_and_for_busy_inputs():
    assert preferred_synapse("cpu", 0.01) == "event"
    assert preferred_synapse("cpu", 0.5) == "dense"
    assert preferred_synapse("gpu", 0.01) == "dense"


def test_bad_arguments_are_named():
    _, index = draw(0.05)
    with pytest.raises(TypeError, match="index must be integer"):
        event_matmul(index.astype(np.float32), random_kernel())
    with pytest.raises(ValueError, match=r"kernel must be \[N, M\]"):
        event_matmul(index, random_kernel()[0])
    with pytest.raises(ValueError, match="density"):
        preferred_synapse("cpu", 1.5)


@pytest.mark.parametrize("channels", [2**16 - 1, 2**16])
def test_gradient_reaches_the_last_of_many_channels(channels):
    index = jnp.array([[0, channels - 1], [channels - 1, channels]])
    gradient = jax.grad(lambda kernel: event_matmul(index, kernel).sum())(jnp.zeros((channels, 1)))
    assert float(gradient[0, 0]) == 1 and float(gradient[-1, 0]) == 2 and float(gradient.sum()) == 3

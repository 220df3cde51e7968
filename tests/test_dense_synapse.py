"""Dense synapse against its plain twin, ``spikes @ kernel``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.kernels.dense_synapse import dense_matmul

SHAPES = {  # rows, N, M: narrow, square, wide
    "narrow": ((4, 3), 7, 2), "a row": ((), 7, 2), "many axes": ((2, 3, 4), 7, 2),
    "square": ((4, 3), 5, 5), "wide": ((4, 3), 2, 7),
}
every_shape = pytest.mark.parametrize("name", SHAPES)


def drawn(name, dtypes=(np.float32, np.float32)):
    rows, channels, width = SHAPES[name]
    rng = np.random.default_rng(0)
    spikes = (rng.random((*rows, channels)) < 0.5).astype(np.float32)
    kernel = rng.normal(size=(channels, width)).astype(np.float32)
    return jnp.asarray(spikes, dtypes[0]), jnp.asarray(kernel, dtypes[1])


def plain(spikes, kernel):
    return spikes @ kernel


def weighted(product):
    """A scalar whose cotangent differs in every entry."""
    def of(spikes, kernel):
        out = product(spikes, kernel)
        return jnp.sum(jnp.sin(out.astype(jnp.float32) + jnp.arange(out.size).reshape(out.shape)))
    return of


@every_shape
def test_values_and_gradients_are_those_of_the_product(name):
    given = drawn(name)
    np.testing.assert_array_equal(jax.jit(dense_matmul)(*given), jax.jit(plain)(*given))
    for ours, theirs in zip(*(
        jax.jit(jax.grad(weighted(f), (0, 1)))(*given) for f in (dense_matmul, plain)
    ), strict=True):
        assert (np.asarray(theirs) != 0).any()
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtypes", [
    (jnp.bfloat16, jnp.bfloat16), (jnp.float32, jnp.bfloat16), (jnp.int32, jnp.float32),
])
def test_dtypes_are_those_of_the_product(dtypes):
    given = drawn("narrow", dtypes)
    ours, theirs = dense_matmul(*given), plain(*given)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    gradients = [jax.grad(weighted(f), 1)(*given) for f in (dense_matmul, plain)]
    assert gradients[0].dtype == gradients[1].dtype
    np.testing.assert_allclose(
        *(np.asarray(g, np.float32) for g in gradients), rtol=0.02, atol=0.02)


def test_under_vmap_and_in_second_derivatives():
    spikes, kernel = drawn("narrow")
    kernels = jnp.stack([kernel, 2 * kernel])

    def second(f):
        gradient = jax.grad(weighted(f), 1)
        return jax.vmap(jax.grad(lambda kernel: jnp.sum(gradient(spikes, kernel) ** 2)))(kernels)

    assert (np.asarray(second(plain)) != 0).any()
    np.testing.assert_allclose(second(dense_matmul), second(plain), rtol=1e-4, atol=1e-5)

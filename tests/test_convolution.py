"""The convolution with gradients of its own against XLA's, and against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fastsnn_jax.kernels.convolution import same_convolution

B, H, W, C, M = 2, 4, 5, 3, 6


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def dyadic(*shape, seed=0):
    """Multiples of 1/8 up to 1: products and sums of a few are exact."""
    return jnp.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 8, jnp.float32)


@pytest.mark.parametrize("size", [(3, 3), (1, 3), (5, 1)])
def test_values_and_gradients_are_those_of_the_plain_convolution(size):
    x, kernel, weights = dyadic(B, H, W, C), dyadic(*size, C, M, seed=1), dyadic(B, H, W, M, seed=2)

    def with_gradients(function):
        def loss(x, kernel):
            return (weights * function(x, kernel)).sum()

        return lambda x, kernel: (function(x, kernel), jax.grad(loss, (0, 1))(x, kernel))

    @jax.jit
    def both(x, kernel):
        return with_gradients(same_convolution)(x, kernel), with_gradients(plain)(x, kernel)

    ours, theirs = both(x, kernel)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_value_is_the_sum_over_the_window_around_its_place():
    x, kernel = np.asarray(dyadic(B, H, W, C)), np.asarray(dyadic(3, 3, C, M, seed=1))
    corner = sum(x[1, i, j] @ kernel[i + 1, j + 1] for i in range(2) for j in range(2))
    middle = sum(x[0, 1 + i, 2 + j] @ kernel[i + 1, j + 1] for i in (-1, 0, 1) for j in (-1, 0, 1))
    y = same_convolution(x, kernel)
    np.testing.assert_array_equal(y[1, 0, 0], corner)
    np.testing.assert_array_equal(y[0, 1, 2], middle)


def test_a_kernel_of_even_size_is_refused():
    with pytest.raises(ValueError, match=r"h and w odd, got \(2, 3, 3, 6\)"):
        same_convolution(dyadic(B, H, W, C), dyadic(2, 3, C, M))

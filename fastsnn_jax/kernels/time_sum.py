"""Sums over leading axes as matrix products.

XLA's CPU reduction over a leading axis walks memory with a stride: summing [50, 64, 400] over its
first axis took 3.4 ms, the same sum as a product with ones 0.13 ms. Counts are exact below 2^24.
"""

import jax
import jax.numpy as jnp

from fastsnn_jax._typing import Array, Float


def sum_over_time(train: Float[Array, "T *N"]) -> Float[Array, "*N"]:
    """Sum over axis 0 in float32; for spikes, the count. Plain twin: ``train.sum(0)``."""
    ones = jnp.ones(train.shape[0], train.dtype)
    return jnp.tensordot(
        ones, train, 1, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )


@jax.custom_vjp
def add_bias(current: Float[Array, "T B *S M"], bias: Float[Array, " M"]) -> Array:
    """``current + bias``, with the bias gradient as a matrix product. Plain twin: ``+``."""
    return current + bias


def _forward(current, bias):
    return current + bias, bias[:0]


def _backward(bias, cotangent):
    # Contract the leading axes directly: a reshape would mix a sharded batch axis into time.
    leading = cotangent.shape[:-1]
    axes = tuple(range(len(leading)))
    total = jax.lax.dot_general(
        jnp.ones(leading, cotangent.dtype), cotangent, ((axes, axes), ((), ())),
        precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32,
    )
    return cotangent, total.astype(bias.dtype)


add_bias.defvjp(_forward, _backward)

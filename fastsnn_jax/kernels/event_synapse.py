"""Event-driven synapse: add up the kernel rows of the channels that spiked.

A sparse binary input ``s`` is given as the ascending indices of its non-zero channels, padded with
``N``. Then ``s @ W = sum_k W[index[k]]``, which touches only the rows that matter: at 1 % density
about 8 of 784. Pure JAX, no callbacks; the plain twin is ``dense @ W``.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, fail
from fastsnn_jax._typing import Array, Float, Int, Shaped
from fastsnn_jax.windows import keep

# On one device the gradients cross at 0.10, the forward passes beyond 0.2, see
# benchmarks/event_synapse.py; on a Xeon (results at 9fd7743) the gradients did at 0.065.
DENSITY_LIMIT_CPU = 0.07
# Measured at the default recipe's [3200, 784] x [784, 400], 8 events a row, one device of two
# shared cores, slots of 32 bits, jax 0.10.2, minima of 1,173 interleaved calls. Forward by slots
# 1, 2, 4, 8, 16: 3.0, 1.6, 1.2, 0.95, 1.1 ms. Gradient by block 16, 32, 64, 128, 256, 3200: 1.7,
# 1.7, 1.6, 1.6, 1.7, 2.4 ms.
_SLOTS = 8  # kernel rows gathered per pass over the accumulator
_BLOCK = 64  # rows whose cotangents stay in cache while their events are added


def event_matmul(
    index: Int[Array, "*rows K"], kernel: Shaped[Array, "N M"]
) -> Shaped[Array, "*rows M"]:
    """Product of a binary event list with a synaptic kernel.

    Args:
      index: channels that spiked, padded with N; any integer dtype. What lies outside [0, N) adds
        nothing, wherever it stands.
      kernel: floating or integer. Sums run in float32 (float64 for float64 kernels, int32 for
        integer kernels).

    Returns:
      ``sum_k kernel[index[..., k]]``, in the kernel's dtype (int32 for integer kernels).

    Raises:
      ValueError: if ``kernel`` is not a matrix or ``index`` has no axis.
      TypeError: if ``index`` is not integer.

    >>> import jax.numpy as jnp
    >>> event_matmul(jnp.array([[0, 2], [1, 3]]), jnp.array([[1.], [2.], [4.]]))
    Array([[5.],
           [2.]], dtype=float32)
    """
    index, kernel = jnp.asarray(index), jnp.asarray(kernel)
    check(kernel.ndim == 2, "event_matmul", "kernel must be [N, M]", kernel.shape)
    check(index.ndim >= 1, "event_matmul", "index must be [*rows, K]", index.shape)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(f"event_matmul: index must be integer, got {index.dtype}")
    integer = jnp.issubdtype(kernel.dtype, jnp.integer)
    shape = (*index.shape[:-1], kernel.shape[1])
    if index.size == 0:  # no rows, or no slots
        return jnp.zeros(shape, jnp.int32 if integer else kernel.dtype)
    # Slot first: each pass of the loop reads one contiguous row of `slots`.
    slots = jnp.moveaxis(index, -1, 0).reshape(index.shape[-1], -1).astype(jnp.int32)
    # Unsigned, what is negative is large: jax would count it from the end.
    slots = jnp.minimum(slots.astype(jnp.uint32), len(kernel)).astype(jnp.int32)
    return (_gather_sum if integer else _event_matmul)(slots, kernel).reshape(shape)


def preferred_synapse(platform: str, density: float) -> str:
    """Returns "event" or "dense": which input synapse to use, decided on the host before tracing.

    Args:
      platform: ``jax.default_backend()``. Gathers of single rows pay on CPU only.
      density: mean events per row of the busiest sample, as a fraction of the channels.
    """
    if not 0 <= density <= 1:
        raise fail("preferred_synapse", "density must be in [0, 1]", density)
    return "event" if platform == "cpu" and density <= DENSITY_LIMIT_CPU else "dense"


@jax.custom_vjp
def _event_matmul(slots: Int[Array, "K R"], kernel: Float[Array, "N M"]) -> Float[Array, "R M"]:
    return _gather_sum(slots, kernel).astype(kernel.dtype)


def _forward(slots, kernel):
    narrow = jnp.uint16 if len(kernel) < 2**16 else jnp.int32  # the padding is N itself
    stored = keep(slots.astype(narrow))  # and read back, so that nothing draws the events again
    # Of the kernel only shape and dtype are needed, so an empty slice of it is stored.
    return _event_matmul(stored.astype(jnp.int32), kernel), (stored, kernel[:, :0])


def _backward(residual, cotangent):
    slots, kernel = residual
    num_channels, dtype = kernel.shape[0], _sum_dtype(cotangent.dtype)
    num_rows = cotangent.shape[0]
    slots = slots.astype(jnp.int32)
    slots = jnp.pad(slots, ((0, len(slots) % 2), (0, 0)), constant_values=num_channels)
    size = min(_BLOCK, num_rows)

    def add_block(b, total):
        # The last block starts early enough to be whole; rows it shares are masked.
        start = jnp.minimum(b * size, num_rows - size)
        own = start + jnp.arange(size) >= b * size
        rows = jnp.where(own, jax.lax.dynamic_slice_in_dim(slots, start, size, 1), num_channels)
        block = jax.lax.dynamic_slice_in_dim(cotangent, start, size).astype(dtype)

        def add_pair(k, total):  # two a turn: each turn of the loop has its price
            total = total.at[rows[2 * k]].add(block, mode="drop")
            return total.at[rows[2 * k + 1]].add(block, mode="drop")

        used = _used_slots(rows, num_channels)
        return jax.lax.fori_loop(0, (used + 1) // 2, add_pair, total)

    total = jnp.zeros((num_channels, cotangent.shape[1]), dtype)
    total = jax.lax.fori_loop(0, -(-num_rows // size), add_block, total)
    return None, total.astype(kernel.dtype)


_event_matmul.defvjp(_forward, _backward)


def _gather_sum(slots: Int[Array, "K R"], kernel: Shaped[Array, "N M"]) -> Shaped[Array, "R M"]:
    chex.assert_rank([slots, kernel], 2)
    num_channels, width = kernel.shape
    dtype = _sum_dtype(kernel.dtype)
    padded = jnp.concatenate([kernel, jnp.zeros((1, width), kernel.dtype)])
    spare = -slots.shape[0] % _SLOTS
    slots = jnp.pad(slots, ((0, spare), (0, 0)), constant_values=num_channels)
    used = _used_slots(slots, num_channels)
    take = partial(jnp.take, padded, axis=0, mode="clip")

    def add_slots(i, total):
        group = jax.lax.dynamic_slice_in_dim(slots, i * _SLOTS, _SLOTS)
        for k in range(_SLOTS):
            total = total + take(group[k]).astype(dtype)
        return total

    start = jnp.zeros((slots.shape[1], width), dtype)
    return jax.lax.fori_loop(0, (used + _SLOTS - 1) // _SLOTS, add_slots, start)


def _used_slots(slots: Int[Array, "K R"], num_channels: int) -> Int[Array, ""]:
    """Slots up to the last that holds a channel in any row: the rest need no pass."""
    filled = jnp.any(slots < num_channels, axis=1)
    return jnp.max(jnp.where(filled, 1 + jnp.arange(len(slots)), 0), initial=0)


def _sum_dtype(dtype):
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.int32
    return jnp.promote_types(dtype, jnp.float32)

"""Spikes of every row of counts, summed over its channels: four sums in one pass.

The plain twin is four sums one by one, as ``count_tokens`` takes them of a `SpikeTensor`. XLA on
CPU makes two passes of a single integer sum, and one of a reduction with several operands.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._typing import Array, Bool, Int

_UNARY_AT, _SATURATED_AT = 12, 16  # lowest bits of the upper fields of the two words


class Tally(NamedTuple):
    """Sums over the channels of each row, int32 ``[*lead]``.

    Attributes:
      active: channels whose count is not zero.
      unary: ``|s|``, spikes of a binary or ternary train.
      bit_plane: ones in ``|s|``, spikes of bit planes.
      saturated: channels whose count was clipped.
    """

    active: Int[Array, "*lead"]
    unary: Int[Array, "*lead"]
    bit_plane: Int[Array, "*lead"]
    saturated: Int[Array, "*lead"]


def tally(size: Int[Array, "*lead D"], clipped: Bool[Array, "*lead D"], limit: int) -> Tally:
    """Sums of counts ``|s| = size``, 0 .. limit, of which some were ``clipped``.

    Small sums share a word: active and unary one, bit planes and clipped counts the other.

    >>> tally(jnp.array([0, 3, 127]), jnp.array([False, False, True]), 127)._asdict()["bit_plane"]
    Array(9, dtype=int32)
    """
    channels = size.shape[-1]
    active, clipped = (size != 0).astype(jnp.int32), clipped.astype(jnp.int32)
    planes = lax.population_count(size)
    if not _fits(channels, limit):
        return Tally(*_sums(active, size, planes, clipped))
    low, high = _sums(active + (size << _UNARY_AT), planes + (clipped << _SATURATED_AT))
    return Tally(
        low & (2**_UNARY_AT - 1), low >> _UNARY_AT,
        high & (2**_SATURATED_AT - 1), high >> _SATURATED_AT,
    )


def _fits(channels: int, limit: int) -> bool:
    return (
        channels < 2**_UNARY_AT and limit * channels < 2 ** (31 - _UNARY_AT)
        and limit.bit_length() * channels < 2**_SATURATED_AT
    )


def _sums(*operands: Array) -> tuple[Array, ...]:
    zeros = (jnp.int32(0),) * len(operands)
    axis = operands[0].ndim - 1
    return jax.lax.reduce(operands, zeros, lambda a, b: tuple(map(jnp.add, a, b)), (axis,))

"""Spike trains as bit words, 32 channels a word, and the event list read off them.

A word holds channel ``32 * w + j`` in bit ``j``. Finding the k-th set bit is a rank search: words
by their running popcount, then five halvings inside the word. All of it is elementwise, so it
vectorises; sorting or `jnp.nonzero` on the same [50, 64, 784] train is over ten times slower.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fastsnn_jax._typing import Array, Bool, Int

BITS = 32
_GROUP = 4  # slots searched at once


def pack_words(
    fires: Callable[[Array, Array], Bool[Array, "*rows"]],
    per_channel: Array,
    rows: tuple[int, ...],
) -> Int[Array, "W *rows"]:
    """Packs ``fires(channel, value)`` for every channel into bit words.

    Args:
      fires: says for one channel which rows spike, from its index (uint32 scalar) and its slice of
        ``per_channel``; evaluated 32 channels at a time, so the dense train never exists.
      per_channel: ``[N, ...]``, what ``fires`` needs to know of each channel.
      rows: shape of what ``fires`` returns.
    """
    num_channels = per_channel.shape[0]
    num_words = -(-num_channels // BITS)
    spare = num_words * BITS - num_channels
    padded = jnp.pad(per_channel, ((0, spare),) + ((0, 0),) * (per_channel.ndim - 1))
    padded = padded.reshape(num_words, BITS, *per_channel.shape[1:])

    def pack(_, word):
        number, values = word
        bits = jnp.zeros(rows, jnp.uint32)
        for j in range(BITS):
            channel = number * BITS + jnp.uint32(j)
            fired = fires(channel, values[j]) & (channel < num_channels)
            bits |= fired.astype(jnp.uint32) << j
        return None, bits

    # A scan, not one expression: XLA would recompute the words for every slot that reads them.
    return jax.lax.scan(pack, None, (jnp.arange(num_words, dtype=jnp.uint32), padded))[1]


def words_to_events(
    words: Int[Array, "W *rows"], num_channels: int, capacity: int
) -> tuple[Int[Array, "*rows K"], Int[Array, "*rows"]]:
    """Ascending indices of the set bits, padded with ``num_channels``; and how many did not fit."""
    popcount = jax.lax.population_count(words).astype(jnp.int32)
    before = [jnp.zeros_like(popcount[0])]  # set bits in the words before this one
    for w in range(words.shape[0]):
        before.append(before[-1] + popcount[w])

    def channel_of(slot: Int[Array, "G *rows"]) -> Int[Array, "G *rows"]:
        shape = (len(slot), *words.shape[1:])
        word, rank = jnp.broadcast_to(words[0], shape), jnp.broadcast_to(slot, shape)
        # Counted, not selected among constants: a scan's gradient would store each one in full.
        number = jnp.zeros_like(rank)
        for w in range(1, words.shape[0]):
            reached = before[w] <= slot
            word = jnp.where(reached, words[w], word)
            rank = jnp.where(reached, slot - before[w], rank)
            number += reached
        channel = number * BITS
        for half in (16, 8, 4, 2, 1):
            low = jax.lax.population_count(word & jnp.uint32((1 << half) - 1)).astype(jnp.int32)
            above = rank >= low
            rank = jnp.where(above, rank - low, rank)
            word = jnp.where(above, word >> half, word)
            channel += half * above
        return num_channels + (slot < before[-1]) * (channel - num_channels)

    # A loop, not one expression: XLA would search again for everything that reads the index.
    groups = -(-capacity // _GROUP)
    slot = jnp.arange(groups * _GROUP, dtype=jnp.int32)
    slot = slot.reshape(groups, _GROUP, *[1] * (words.ndim - 1))
    index = jax.lax.map(channel_of, slot).reshape(groups * _GROUP, *words.shape[1:])[:capacity]
    return jnp.moveaxis(index, 0, -1), jnp.maximum(before[-1] - capacity, 0)

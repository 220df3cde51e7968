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
    slot = jnp.arange(capacity, dtype=jnp.int32).reshape(-1, *[1] * (words.ndim - 1))
    word = jnp.zeros((capacity, *words.shape[1:]), jnp.uint32)
    rank = jnp.zeros(word.shape, jnp.int32)
    channel = jnp.zeros(word.shape, jnp.int32)
    for w in range(words.shape[0]):
        reached = before[w] <= slot
        word = jnp.where(reached, words[w], word)
        rank = jnp.where(reached, slot - before[w], rank)
        channel = jnp.where(reached, w * BITS, channel)
    for half in (16, 8, 4, 2, 1):
        low = jax.lax.population_count(word & jnp.uint32((1 << half) - 1)).astype(jnp.int32)
        above = rank >= low
        rank = jnp.where(above, rank - low, rank)
        word = jnp.where(above, word >> half, word)
        channel = jnp.where(above, channel + half, channel)
    index = jnp.where(slot < before[-1], channel, num_channels)
    return jnp.moveaxis(index, 0, -1), jnp.maximum(before[-1] - capacity, 0)

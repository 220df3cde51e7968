"""Encoders: analog values to spike trains ``[T, B, *N]``, time first.

Values lie in [0, 1] unless said. Random encoders are counter based: whether channel ``n`` of
sample ``b`` fires at step ``t`` depends on ``(key, t, b, n)`` alone. So any window of steps can be
drawn by itself (``start``), the event form holds exactly the spikes of the dense form, and a batch
sharded over devices draws what one device would.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import (
    check,
    check_count,
    check_finite,
    check_floating,
    check_number,
)
from fastsnn_jax._typing import Array, ArrayLike, Float, Int, Key
from fastsnn_jax.kernels.bit_words import pack_words, words_to_events
from fastsnn_jax.spikes import SpikeTensor

_NEVER = jnp.iinfo(jnp.int32).max


def direct(x: Float[ArrayLike, "B *N"], num_steps: int) -> Float[Array, "T B *N"]:
    """Direct current: the same analog input at every step.

    >>> import jax.numpy as jnp
    >>> direct(jnp.array([[0.5]]), num_steps=3).shape
    (3, 1, 1)
    """
    x = _values("direct", x, num_steps)
    return jnp.broadcast_to(x, (num_steps, *x.shape))


def poisson(
    key: Key, probability: Float[ArrayLike, "B *N"], num_steps: int, *, start: int | Array = 0,
    first_sample: int | Array = 0,
) -> Float[Array, "T B *N"]:
    """Independent Bernoulli spikes, the discrete-time Poisson process.

    ``P(spike) = probability`` at every step, for a rate in Hz ``rate_hz * dt_ms / 1000``; rounded
    to a multiple of 2^-24 and otherwise exact, 0 and 1 included.

    Args:
      key: PRNG key.
      probability: chance of a spike per step, in [0, 1].
      num_steps: T, steps to draw.
      start: first step drawn; windows join without a seam.
      first_sample: number of the first sample, where these are a part of a batch.

    Returns:
      Spikes in {0, 1}, in the dtype of ``probability``.

    Raises:
      ValueError: ``num_steps`` < 1, or values outside [0, 1] or NaN (seen outside jit only).
      TypeError: ``probability`` is not floating.

    >>> poisson(jax.random.key(0), jnp.array([[0.0, 1.0]]), num_steps=2).tolist()
    [[[0.0, 1.0]], [[0.0, 1.0]]]
    """
    probability = _values("poisson", probability, num_steps)
    batch = probability.shape[0]
    limit = _threshold_24_bit(probability.reshape(batch, -1))
    first, second = _row_hashes(key, num_steps, batch, start, first_sample)
    channel = jnp.arange(limit.shape[1], dtype=jnp.uint32)
    spikes = _hash_24_bit(first[..., None], second[..., None], channel) < limit
    return spikes.reshape(num_steps, *probability.shape).astype(probability.dtype)


def poisson_events(
    key: Key, probability: Float[ArrayLike, "B N"], num_steps: int, capacity: int, *,
    start: int | Array = 0, first_sample: int | Array = 0,
) -> SpikeTensor:
    """`poisson` as events: the same spikes for the same key, without the dense train.

    Args:
      capacity: K, slots per row; see `event_capacity`. What does not fit counts as saturated.

    Returns:
      SpikeTensor in event form, ``data`` int32 ``[T, B, K]``.
    """
    probability = _rows("poisson_events", probability, num_steps, capacity)
    batch, num_channels = probability.shape
    first, second = _row_hashes(key, num_steps, batch, start, first_sample)

    def fires(channel, limit):
        return _hash_24_bit(first, second, channel) < limit

    limits = _threshold_24_bit(probability).T
    return _event_tensor(fires, limits, (num_steps, batch), num_channels, capacity)


def latency(
    x: Float[ArrayLike, "B *N"], num_steps: int, *, threshold: float = 0.2,
    window: int | None = None, start: int | Array = 0,
) -> Float[Array, "T B *N"]:
    """Time to first spike: one spike per channel, the earlier the brighter.

    ``t = round((1 - x) / (1 - threshold) * (window - 1))`` where ``x >= threshold``, else none.

    Args:
      x: values in [0, 1].
      num_steps: T, steps to draw.
      threshold: values below it stay silent, in [0, 1).
      window: steps over which the spikes spread; ``num_steps`` when None.
      start: first step drawn.
    """
    x = _values("latency", x, num_steps)
    times = _spike_times(x, num_steps, threshold, window, start)
    return (_steps(num_steps, start, x.ndim) == times).astype(x.dtype)


def local_winners(
    x: Float[ArrayLike, "B H W *C"], winners: int, block: tuple[int, int] = (2, 2)
) -> Float[Array, "B H W *C"]:
    """k winners take all within blocks of pixels: the largest of each are kept, the others zeroed.

    Lateral inhibition before an encoder: neighbours that say nearly the same spend fewer spikes,
    and each spike still tells its place. Of equal values the first wins, row by row.

    Args:
      x: images, floating; their sides are multiples of the block's.
      winners: how many of each block are kept, >= 1; as many as a block has keep everything.
      block: height and width of a block in pixels.

    Raises:
      ValueError: the blocks do not tile the images, or ``winners`` or a side is below 1.
      TypeError: ``x`` is not floating, ``block`` no pair or ``winners`` no int.

    >>> x = jnp.array([[[0.25, 0.5, 1.0, 1.0], [0.75, 0.0, 0.5, 0.0]]])
    >>> local_winners(x, winners=1).tolist()
    [[[0.0, 0.0, 1.0, 0.0], [0.75, 0.0, 0.0, 0.0]]]
    """
    x = jnp.asarray(x)
    check_floating("local_winners", "input", x)
    check_count("local_winners", "winners", winners)
    if not isinstance(block, tuple):
        raise TypeError(f"local_winners: block must be (height, width), got {block!r}")
    check(len(block) == 2, "local_winners", "block must be (height, width)", block)
    for side in block:
        check_count("local_winners", "block", side)
    check(x.ndim >= 3, "local_winners", "input must be [B, H, W, *C]", x.shape)
    batch, height, width, *channels = x.shape
    check(height % block[0] == 0 and width % block[1] == 0, "local_winners",
          f"height and width must be multiples of {block}", (height, width), "pad the images")
    blocks = x.reshape(batch, height // block[0], block[0], width // block[1], block[1], -1)
    blocks = blocks.transpose(0, 1, 3, 5, 2, 4)
    values = blocks.reshape(*blocks.shape[:4], -1)
    own, other = values[..., :, None], values[..., None, :]
    earlier = np.tri(values.shape[-1], k=-1, dtype=bool)
    ahead = ((other > own) | ((other == own) & earlier)).sum(-1)
    kept = jnp.where(ahead < winners, values, 0).reshape(blocks.shape)
    return kept.transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)


def delta(x: Float[ArrayLike, "T B *N"], *, threshold: float, signed: bool = True) -> Array:
    """Change detector on an input that already has time: +1 / -1 where it moved by ``threshold``.

    ``spikes[t] = sign(x[t] - x[t-1])`` where ``|x[t] - x[t-1]| >= threshold``; none at t = 0.

    Args:
      threshold: smallest change that fires, > 0, in units of x.
      signed: False drops the -1 of falling inputs.
    Raises:
      ValueError, TypeError: input that is not floating or, unless traced, not finite.
    """
    check_number("delta", "threshold", threshold, above=0)
    x = jnp.asarray(x)
    check_floating("delta", "input", x)
    check(x.ndim >= 2, "delta", "input must be [T, B, *N]", x.shape)
    check_finite("delta", "input", x)
    change = jnp.diff(x, axis=0, prepend=x[:1])
    rising = (change >= threshold).astype(x.dtype)
    return rising - (change <= -threshold).astype(x.dtype) if signed else rising


def event_capacity(largest_mean: float, num_channels: int) -> int:
    """Slots per row for Poisson events whose fullest row has ``largest_mean`` events on average.

    Seven standard deviations above the mean and one, rounded up to eights, at most all channels: a
    row of that mean overflows less than once in 5 million, and then it is counted as saturated.
    """
    check_number("event_capacity", "largest_mean", largest_mean, at_least=0)
    slots = largest_mean + 7 * math.sqrt(largest_mean) + 1
    return min(-(-math.ceil(slots) // 8) * 8, num_channels)


def _values(where: str, x: ArrayLike, num_steps: int) -> Array:
    x = jnp.asarray(x)
    check_count(where, "num_steps", num_steps)
    check_floating(where, "input", x)
    check(x.ndim >= 1, where, "input must have a batch axis", x.shape)
    if not isinstance(x, jax.core.Tracer) and x.size:
        values = np.asarray(x)  # not x.min(), which is traced when a jitted function closes over x
        low, high = float(values.min()), float(values.max())
        check(low >= 0 and high <= 1, where, "values must lie in [0, 1]", f"{low:g} to {high:g}")
    return x


def _rows(where: str, x: ArrayLike, num_steps: int, capacity: int) -> Array:
    x = _values(where, x, num_steps)
    check(x.ndim == 2, where, "input must be [B, N]", x.shape, "flatten the channels")
    check_count(where, "capacity", capacity)
    return x


def _event_tensor(fires, per_channel, rows, num_channels: int, capacity: int) -> SpikeTensor:
    words = pack_words(fires, per_channel, rows)
    index, lost = words_to_events(words, num_channels, capacity)
    return SpikeTensor.from_event(index, num_channels, saturated=jnp.sum(lost, axis=0))


def _steps(num_steps: int, start: int | Array, trailing: int) -> Int[Array, "T ..."]:
    steps = jnp.arange(num_steps, dtype=jnp.int32) + start
    return steps.reshape(num_steps, *[1] * trailing)


def _spike_times(
    x: Array, num_steps: int, threshold: float, window: int | None, start: int | Array
) -> Array:
    check_number("latency", "threshold", threshold, at_least=0)
    check(threshold < 1, "latency", "threshold must be < 1", threshold)
    whole = isinstance(start, int) and start == 0
    check(window is not None or whole, "latency", "a part of the train needs a window",
          f"start {start} and window None", "give the window of the whole train")
    window = num_steps if window is None else window
    check_count("latency", "window", window)
    times = jnp.round((1 - x) / (1 - threshold) * (window - 1)).astype(jnp.int32)
    return jnp.where(x >= threshold, times, _NEVER)


def _threshold_24_bit(probability: Float[Array, "B N"]) -> Int[Array, "B N"]:
    return jnp.round(probability.astype(jnp.float32) * 2**24).astype(jnp.uint32)


def _row_hashes(key: Key, num_steps: int, batch: int, start, first_sample) -> tuple[Array, Array]:
    """Two 32-bit words that identify (key, step, sample), [T, B] each."""
    seed = jax.random.bits(key, (2,), jnp.uint32)
    step = (jnp.arange(num_steps, dtype=jnp.uint32) + jnp.asarray(start, jnp.uint32))[:, None]
    sample = jnp.arange(batch, dtype=jnp.uint32) + jnp.asarray(first_sample, jnp.uint32)
    first = _mix(_mix(step ^ seed[0]) + sample * jnp.uint32(0x9E3779B9))
    second = _mix(_mix(step + seed[1]) ^ (sample * jnp.uint32(0x85EBCA6B)))
    return first, second


def _hash_24_bit(first: Array, second: Array, channel: Array) -> Array:
    """`_mix` of the channel with the row words folded in at two places; top 24 bits.

    Threefry bits for the same train cost ten times as much as the layer they feed.
    """
    z = (channel * jnp.uint32(0x9E3779B9)) ^ first
    z ^= z >> 16
    z *= jnp.uint32(0x7FEB352D)
    z ^= second ^ (z >> 15)
    z *= jnp.uint32(0x846CA68B)
    z ^= z >> 16
    return z >> 8


def _mix(z: Array) -> Array:
    """A 32-bit integer hash, xorshift-multiply: C. Wellons, "Hash function prospector" (2018)."""
    z ^= z >> 16
    z *= jnp.uint32(0x7FEB352D)
    z ^= z >> 15
    z *= jnp.uint32(0x846CA68B)
    return z ^ (z >> 16)

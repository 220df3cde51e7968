"""Codings: integer counts written as planes of spikes, and planes as lists of events.

    s = sum_t plane_weights[t] * plane[t]

    coding            spikes      plane_weights[t]           counts over n steps
    binary            0, 1        1                          0 .. n
    ternary           -1, 0, 1    1                          -n .. n
    bitwise           -1, 0, 1    2^(n-1-t)                  -(2^n - 1) .. 2^n - 1
    twos_complement   0, 1        2^(n-1-t), t=0 negative    -2^(n-1) .. 2^(n-1) - 1

Binary and ternary trains are front-loaded: the first |s| steps fire, as an integrate-and-fire
neuron does when its whole input arrives at the first step. Bit planes come most significant
first, so the planes seen so far are always the best guess at the count. ``bitwise`` gives every
bit of |s| the sign of s (SpikingBrain technical report, equation 23).

A list of events names the channels that spike: ascending, padded with the number of channels N.
In signed codings n - N says that channel n spikes with the value -1.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check_choice, check_count, check_number
from fastsnn_jax._typing import Array, Bool, Float, Int
from fastsnn_jax.kernels.bit_words import BITS, words_to_events

CODINGS = ("binary", "ternary", "bitwise", "twos_complement")
SIGNED = ("ternary", "bitwise")
POSITIONAL = ("bitwise", "twos_complement")
MAX_PLANES = 24  # float32 holds every integer up to 2^24


def bounds(coding: str, num_steps: int) -> tuple[int, int]:
    """Smallest and largest count that ``num_steps`` planes can hold.

    >>> bounds("twos_complement", 8)
    (-128, 127)
    """
    check_steps("bounds", coding, num_steps)
    return {
        "binary": (0, num_steps),
        "ternary": (-num_steps, num_steps),
        "bitwise": (1 - 2**num_steps, 2**num_steps - 1),
        "twos_complement": (-(2 ** (num_steps - 1)), 2 ** (num_steps - 1) - 1),
    }[coding]


def plane_weights(coding: str, num_steps: int) -> np.ndarray:
    """What one spike of each plane adds to the count, int32[T].

    >>> plane_weights("twos_complement", 4).tolist()
    [-8, 4, 2, 1]
    """
    check_steps("plane_weights", coding, num_steps)
    if coding not in POSITIONAL:
        return np.ones(num_steps, np.int32)
    weights = 2 ** np.arange(num_steps - 1, -1, -1, dtype=np.int32)
    if coding == "twos_complement":
        weights[0] *= -1
    return weights


def encode(counts: Int[Array, "*N"], coding: str, num_steps: int) -> Int[Array, "T *N"]:
    """Writes int32 counts as planes; exact for every count inside ``bounds``.

    >>> encode(jnp.array([5, -5]), "bitwise", 4).T.tolist()
    [[0, 1, 0, 1], [0, -1, 0, -1]]
    """
    check_steps("encode", coding, num_steps)
    step = jnp.arange(num_steps, dtype=jnp.int32).reshape(num_steps, *[1] * counts.ndim)
    magnitude = jnp.abs(counts) if coding in SIGNED else counts
    if coding in POSITIONAL:
        planes = (magnitude >> (num_steps - 1 - step)) & 1
    else:
        planes = (step < magnitude).astype(jnp.int32)
    return planes * jnp.sign(counts) if coding in SIGNED else planes


def decode(planes: Array, coding: str) -> Array:
    """Counts of ``planes`` [T, *N], as float32 or wider for float planes and int32 for integers.

    >>> decode(encode(jnp.array([-3, 7]), "twos_complement", 4), "twos_complement").tolist()
    [-3, 7]
    """
    floating = jnp.issubdtype(planes.dtype, jnp.floating)
    dtype = jnp.promote_types(planes.dtype, jnp.float32) if floating else jnp.int32
    return jnp.sum(weigh(planes.astype(dtype), plane_weights(coding, len(planes))), axis=0)


def weigh(planes: Array, weights: np.ndarray) -> Array:
    """Multiplies plane t of [T, ...] by ``weights[t]``."""
    return planes * jnp.asarray(weights, planes.dtype).reshape(-1, *[1] * (planes.ndim - 1))


def check_steps(where: str, coding: str, num_steps: int) -> None:
    """Raises ValueError unless ``coding`` exists and can have ``num_steps`` planes."""
    check_choice(where, "coding", coding, CODINGS)
    check_count(where, "num_steps", num_steps)
    if coding in POSITIONAL:
        check_number(where, f"num_steps of {coding} planes", num_steps, at_most=MAX_PLANES)


def digit_weights(num_steps: int) -> np.ndarray:
    """What one spike of each plane of ``signed_digits`` adds to the count, int32[T]."""
    return np.append(np.int32(1), plane_weights("bitwise", num_steps)[1:])


def signed_digits(planes: Array) -> Array:
    """Two's-complement planes as planes of the same counts that never cancel.

        digits[0] = -planes[0];  digits[t] = planes[t] - planes[0];  s = digit_weights . digits

    In eight bits -1 is -128 + 64 + ... + 1: summed in floats, products of such planes keep the
    rounding error of the large terms. Of the digits the sum of |terms| is |s|.

    >>> signed_digits(encode(jnp.array([-1, -3, 5]), "twos_complement", 4)).T.tolist()
    [[-1, 0, 0, 0], [-1, 0, -1, 0], [0, 1, 0, 1]]
    """
    if jnp.issubdtype(planes.dtype, jnp.integer):
        planes = planes.astype(jnp.int8)  # an unsigned type would wrap at -1
    return jnp.concatenate([jnp.zeros_like(planes[:1]), planes[1:]]) - planes[:1]


def signed_digit_events(
    index: Int[Array, "T *lead K"], num_channels: int,
) -> Int[Array, "T *lead 2*K"]:
    """``signed_digits`` of two's-complement events, without going through a train."""
    sign = jnp.broadcast_to(index[:1], index.shape)
    index = jnp.concatenate([jnp.full_like(index[:1], num_channels), index[1:]])
    rises = _without(index, sign, num_channels)
    falls = _without(sign, index, num_channels)
    falls = jnp.where(falls < num_channels, falls - num_channels, num_channels)
    return jnp.sort(jnp.concatenate([falls, rises], axis=-1), axis=-1)


@partial(jax.jit, static_argnames=("capacity", "signed"))  # hundreds of operations if run singly
def train_to_events(
    train: Array, capacity: int, signed: bool,
) -> tuple[Int[Array, "*lead K"], Int[Array, "*lead"]]:
    """Lists the first ``capacity`` events of each row of [*lead, N]; also counts those dropped.

    >>> index, dropped = train_to_events(jnp.array([0, 1, -1, 1]), 2, signed=True)
    >>> index.tolist(), dropped.item()
    ([-2, 1], 1)
    """
    fires = jnp.concatenate([train < 0, train > 0], axis=-1) if signed else train > 0
    index, dropped = words_to_events(_pack(fires), fires.shape[-1], capacity)
    return index - train.shape[-1] if signed else index, dropped


def events_to_train(
    index: Int[Array, "*lead K"], num_channels: int,
) -> Float[Array, "*lead N"]:
    """Float32 spikes of the listed events.

    >>> events_to_train(jnp.array([-2, 1, 4]), 4).tolist()
    [0.0, 1.0, -1.0, 0.0]
    """
    rows = index.reshape(-1, index.shape[-1])
    channel = jnp.where(rows < 0, rows + num_channels, rows)
    spike = jnp.where(rows < 0, -1.0, 1.0).astype(jnp.float32)
    train = jnp.zeros((len(rows), num_channels), jnp.float32)
    train = train.at[jnp.arange(len(rows))[:, None], channel].add(spike, mode="drop")
    return train.reshape(*index.shape[:-1], num_channels)


def _pack(fires: Bool[Array, "*lead N"]) -> Int[Array, "W *lead"]:
    """Bit words, channel 32 * w + j in bit j of word w."""
    spare = [(0, 0)] * (fires.ndim - 1) + [(0, -fires.shape[-1] % BITS)]
    bits = jnp.pad(fires, spare).reshape(*fires.shape[:-1], -1, BITS).astype(jnp.uint32)
    words = jnp.sum(bits << jnp.arange(BITS, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)
    return jnp.moveaxis(words, -1, 0)


def _without(index: Array, others: Array, padding: int) -> Int[Array, "*lead K"]:
    """``index`` with padding for the entries found in ``others``; both ascending."""
    rows, other_rows = (array.reshape(-1, array.shape[-1]) for array in (index, others))
    place = jax.vmap(jnp.searchsorted)(other_rows, rows)
    found = jnp.take_along_axis(other_rows, place, axis=-1, mode="clip") == rows
    return jnp.where(found, padding, rows).reshape(index.shape)

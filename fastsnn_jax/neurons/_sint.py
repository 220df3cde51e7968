"""What the sINT neurons share: settings, and rounding potentials to spike counts."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_choice, check_count, check_floating, check_number
from fastsnn_jax._typing import Array
from fastsnn_jax.kernels.tally import Tally, tally
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.surrogate import round_ste

MAX_LIMIT = 2**24  # float32 holds every integer up to here


def check_settings(neuron: Any, where: str) -> None:
    """Raises unless the fields that the sINT neurons share are allowed."""
    for name in ("signed", "legacy_time_collapse"):
        if not isinstance(getattr(neuron, name), bool):
            raise TypeError(f"{where}: {name} must be a bool, got {getattr(neuron, name)!r}")
    check_count(where, "limit", neuron.limit)
    check(neuron.limit <= MAX_LIMIT, where, f"limit must be <= {MAX_LIMIT}", neuron.limit)
    check_choice(where, "rounding", neuron.rounding, ("nearest", "down"))
    check_choice(where, "window", neuron.window, ("identity", "sigmoid"))
    check_number(where, "tau", neuron.tau, above=0.0)


def check_potential(neuron: Any, where: str, name: str, x: Array, axes: int) -> None:
    """Raises unless ``x`` is floating, has its axes and a dtype that holds every count."""
    check_floating(where, name, x)
    axes += neuron.legacy_time_collapse  # tokens
    check(x.ndim >= axes, where, f"{name} must have {axes} axes or more", x.shape)
    exact = 2 ** (jnp.finfo(x.dtype).nmant + 1)
    check(neuron.limit <= exact, where, f"limit must be <= {exact} for {x.dtype} counts",
          neuron.limit)


def widen(x: Array) -> Array:
    """``x`` in float32 or wider: a threshold in bfloat16 would move every tie."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def spikes_of(
    neuron: Any, ratio: Array, threshold: Array | float, dtype: Any
) -> tuple[SpikeTensor, Tally]:
    """Counts of ``ratio`` = x / threshold, in ``dtype``, and their sums over the channels."""
    # Not from_count, whose check of concrete values refuses the NaN that jit lets through.
    lead, low = ratio.shape[:-1], -neuron.limit if neuron.signed else 0
    settings = {"rounding": neuron.rounding, "window": neuron.window, "tau": neuron.tau}
    counts = round_ste(ratio, low=low, high=neuron.limit, **settings)
    whole = round_ste(jax.lax.stop_gradient(ratio), **settings)
    whole = jnp.abs(whole) if neuron.signed else jnp.maximum(whole, 0)
    size = jnp.minimum(whole, neuron.limit).astype(jnp.int32)
    sums = tally(size, whole > neuron.limit, neuron.limit)
    threshold = jnp.broadcast_to(jnp.asarray(threshold, ratio.dtype), (*lead, 1))
    spikes = SpikeTensor(counts.astype(dtype), threshold, sums.saturated, "count", "bitwise")
    return spikes, sums


def collapsed_spikes(
    neuron: Any, ratio: Array, shape: tuple[int, ...], dtype: Any
) -> tuple[SpikeTensor, None]:
    """FastSNN's counts: never negative, without limit or scale, the same at every position."""
    counts = round_ste(ratio, low=0, high=math.inf, window=neuron.window, tau=neuron.tau)
    counts = jnp.broadcast_to(counts.astype(dtype), shape)
    ones = jnp.ones((*shape[:-1], 1), ratio.dtype)
    zeros = jnp.zeros(shape[:-1], jnp.int32)
    return SpikeTensor(counts, ones, zeros, "count", "bitwise"), None

"""Spike counts of a network, read off the device into Python's integers and checked."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check
from fastsnn_jax.activity import SpikeCount, TokenSpikes


class Arrivals(NamedTuple):
    """What arrived at one synapse, or left the network, in all samples together.

    Attributes:
      shape: ``*N`` of the inputs; None where they were summed.
      samples: inferences, or tokens.
      active: signals that were not 0.
      events: spikes of each input, or one sum over them; none where the inputs are values.
      saturated: spikes that were dropped.
    """

    shape: tuple[int, ...] | None
    samples: int
    active: int
    events: list[int]
    saturated: int


def read_spikes(
    where: str, count: Any, *, num_steps: int, coding: str, samples: int | None, analog: bool
) -> Arrivals:
    """Reads the count of a train; arguments as in ``count_layers``.

    Raises:
      ValueError: not a `SpikeCount` of rows, numbers that are no counts, more events than steps, or
        events that do not add up to the signals that were not 0, other than in coding "unary".
    """
    _check_type(where, count, SpikeCount)
    events = _numbers(where, "events", count.events)
    check(events.ndim >= 2 and len(events) > 0, where, "events must be [B, *N] with B > 0",
          events.shape)
    active, saturated = (
        _total(where, name, getattr(count, name)) for name in ("nonzero", "saturated")
    )
    shape, samples = events.shape[1:], samples or len(events)
    if analog:
        return Arrivals(shape, samples, active, [], saturated)
    remedy = "name the synapse in analog if its inputs are values"
    spikes = _column_sums(_whole(where, "events", events, remedy))
    if coding != "unary":
        check(sum(spikes) == active, where,
              f"{coding} events must add up to nonzero, {active}", sum(spikes),
              "graded spikes are 'unary'; bit planes are counted as a train, not as counts")
        limit = num_steps * samples
        check(max(spikes, default=0) <= limit, where,
              f"no input can have more than num_steps * samples = {limit} events", max(spikes),
              "pass the num_steps of the run")
    return Arrivals(shape, samples, active, spikes, saturated)


def read_tokens(where: str, count: Any, *, coding: str, samples: int | None) -> Arrivals:
    """Reads the count of tokens; arguments as in ``count_layers``.

    Raises:
      ValueError: not `TokenSpikes`, numbers that are no counts, or a coding that is neither "unary"
        nor "bitwise".
    """
    _check_type(where, count, TokenSpikes)
    check(coding in ("unary", "bitwise"), where, "coding of tokens must be unary or bitwise",
          repr(coding))
    active, unary, planes, saturated = (
        _total(where, name, getattr(count, name))
        for name in ("active", "unary", "bit_plane", "saturated")
    )
    check(active <= planes <= unary, where, "active <= bit_plane <= unary must hold",
          (active, planes, unary))
    events = unary if coding == "unary" else planes
    return Arrivals(None, samples or np.size(count.active), active, [events], saturated)


def _check_type(where: str, count: Any, kind: type) -> None:
    check(isinstance(count, kind), where, f"a {kind.__name__} is needed", type(count).__name__)


def _total(where: str, name: str, values: Any) -> int:
    return sum(_whole(where, name, values).ravel().tolist())


def _column_sums(rows: np.ndarray) -> list[int]:
    """Sums over the leading axis, in Python's integers where int64 might wrap."""
    wraps = int(rows.max(initial=0)) > (2**63 - 1) // len(rows)
    return (rows.astype(object) if wraps else rows).sum(axis=0).ravel().tolist()


def _whole(where: str, name: str, values: Any, remedy: str = "") -> np.ndarray:
    """``values`` as int64, which holds each of them exactly."""
    array = _numbers(where, name, values)
    if jnp.issubdtype(array.dtype, jnp.floating):
        _check_each(where, f"{name} must be whole numbers", array, array == np.floor(array), remedy)
        exact = 2 ** (jnp.finfo(array.dtype).nmant + 1)  # from here on a sum may have been rounded
        _check_each(where, f"{name} must be < {exact}, up to where {array.dtype} counts exactly",
                    array, array < exact, "count smaller batches and add up")
    return array.astype(np.int64)


def _numbers(where: str, name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    check(bool(jnp.issubdtype(array.dtype, jnp.number)), where, f"{name} must be numbers",
          array.dtype)
    _check_each(where, f"{name} must be finite and >= 0", array, np.isfinite(array) & (array >= 0))
    return array


def _check_each(where: str, expected: str, array: np.ndarray, good: Any, remedy: str = "") -> None:
    if not np.all(good):
        check(False, where, expected, array[~good].flat[0], remedy)

"""Checks of public arguments, all with one form of message: where, expected, got, what to do."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fail(where: str, expected: str, got: Any, remedy: str = "") -> ValueError:
    """Returns the ValueError to raise: ``where: expected, got ...; remedy``."""
    return ValueError(f"{where}: {expected}, got {got}" + (f"; {remedy}" if remedy else ""))


def check(condition: bool, where: str, expected: str, got: Any, remedy: str = "") -> None:
    """Raises ValueError unless ``condition`` holds."""
    if not condition:
        raise fail(where, expected, got, remedy)


def check_choice(where: str, name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ValueError unless ``value`` is one of ``choices``."""
    check(value in choices, where, f"{name} must be one of {', '.join(choices)}", repr(value))


def check_number(
    where: str, name: str, value: Any, *, above: float = -math.inf, at_least: float = -math.inf,
    at_most: float = math.inf,
) -> None:
    """Raises TypeError unless ``value`` is a number, ValueError unless in range and not NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{where}: {name} must be a number, got {value!r}")
    bounds = [f"> {above:g}"] * (above > -math.inf) + [f">= {at_least:g}"] * (at_least > -math.inf)
    bounds += [f"<= {at_most:g}"] * (at_most < math.inf)
    inside = value > above and value >= at_least and value <= at_most
    check(bool(inside), where, f"{name} must be {' and '.join(bounds) or 'a number'}", value)


def check_count(where: str, name: str, value: Any, *, at_least: int = 1) -> None:
    """Raises TypeError unless ``value`` is an int, ValueError when it is below ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where}: {name} must be an int, got {value!r}")
    check(bool(value >= at_least), where, f"{name} must be >= {at_least}", value)


def check_floating(where: str, name: str, array: Any) -> None:
    """Raises TypeError unless ``array`` has a floating dtype."""
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        raise TypeError(f"{where}: {name} must be floating, got dtype {jnp.result_type(array)}")


def check_finite(where: str, name: str, array: Any, remedy: str = "") -> None:
    """Raises ValueError if a floating ``array`` holds NaN or infinity.

    One that is being traced passes, and one of which other processes hold a part.
    """
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        return
    finite = bool(np.isfinite(np.asarray(array)).all())
    check(finite, where, f"{name} must be finite", "NaN or infinity", remedy)

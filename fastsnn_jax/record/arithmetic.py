"""Arithmetic in which an undefined operand, None, makes an undefined result."""

from typing import Any


def add(a: Any, b: Any) -> Any:
    """``a + b``, or None where one of them is."""
    return None if a is None or b is None else a + b


def multiply(a: Any, b: Any) -> Any:
    """``a * b``, or None where one of them is."""
    return None if a is None or b is None else a * b


def divide(a: Any, b: Any) -> float | None:
    """``a / b``, or None where one of them is, or where ``b`` is 0."""
    return None if a is None or not b else a / b

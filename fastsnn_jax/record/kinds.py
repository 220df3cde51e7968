"""What a value in a record may be: small named predicates, and checking a tree of them."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias


class RecordError(ValueError):
    """A record that is missing, unreadable, incomplete or contradicts itself: one line."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A predicate with the words to say what it expects."""

    expected: str
    holds: Callable[[Any], bool]


Schema: TypeAlias = Mapping[str, "Kind | Schema"]


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value) or _is_integer(value)


def _is_integer(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63  # a bool is an int to Python, not to us


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def nullable(kind: Kind) -> Kind:
    """``kind`` or null, where the figure is not defined for every model."""
    return Kind(f"{kind.expected} or null", lambda value: value is None or kind.holds(value))


def list_of(kind: Kind) -> Kind:
    """A list whose every item is of ``kind``."""
    return Kind(
        f"a list, each item {kind.expected}",
        lambda value: isinstance(value, list) and all(map(kind.holds, value)),
    )


def dict_of(kind: Kind) -> Kind:
    """An object of free keys whose every value is of ``kind``."""
    return Kind(
        f"an object, each value {kind.expected}",
        lambda value: isinstance(value, dict) and all(map(kind.holds, value.values())),
    )


TEXT = Kind("text", lambda value: isinstance(value, str))
COUNT = Kind("an integer >= 0", _is_count)
NUMBER = Kind("a finite number", _is_number)
PERCENT = Kind("a number in 0..100", lambda value: _is_number(value) and 0 <= value <= 100)
POSITIVE = Kind("a number > 0", lambda value: _is_number(value) and value > 0)
NON_NEGATIVE = Kind("a number >= 0", lambda value: _is_number(value) and value >= 0)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def check_tree(where: str, value: Any, schema: Schema, exact: bool = True) -> None:
    """Raises RecordError, naming the path, where ``value`` does not follow ``schema``.

    Inner objects have exactly the keys of the schema; the outermost may have more if not ``exact``.
    """
    if not isinstance(value, dict):
        raise RecordError(f"{where}: expected an object, got {_shown(value)}")
    missing = [key for key in schema if key not in value]
    unknown = [key for key in value if key not in schema] if exact else []
    if missing or unknown:
        problem = f"key {missing[0]!r}" if missing else f"no key {unknown[0]!r}"
        raise RecordError(f"{where}: expected {problem}, got {_shown(list(value))}")
    for key, kind in schema.items():
        if not isinstance(kind, Kind):
            check_tree(f"{where}.{key}", value[key], kind)
        elif not kind.holds(value[key]):
            raise RecordError(f"{where}.{key}: expected {kind.expected}, got {_shown(value[key])}")


def check_finite(where: str, value: Any) -> None:
    """Raises RecordError unless ``value`` is plain JSON data without NaN or infinity."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecordError(f"{where}: expected keys of text, got {_shown(key)}")
            check_finite(f"{where}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_finite(f"{where}[{index}]", item)
    elif not (value is None or isinstance(value, (str, bool)) or _is_number(value)):
        raise RecordError(
            f"{where}: expected text, a finite number or null, got {_shown(value)}; "
            "write null where a figure is undefined"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

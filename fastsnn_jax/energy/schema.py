"""Checks JSON data against a JSON Schema: the part of draft 2020-12 that our schemas use."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastsnn_jax._checks import fail

Schema = Mapping[str, Any]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float) and math.isfinite(value)


_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "object": ("an object", lambda value: isinstance(value, dict)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "string": ("text", lambda value: isinstance(value, str)),
    "number": ("a finite number", _is_number),
    "integer": ("an integer", _is_integer),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "null": ("null", lambda value: value is None),
}


def read_schema(path: Path) -> dict[str, Any]:
    """The schema that lies in ``path``."""
    return json.loads(path.read_text(encoding="utf-8"))


def check_schema(where: str, value: Any, schema: Schema) -> None:
    """Raises ValueError, naming the field below ``where``, unless ``value`` follows ``schema``.

    Knows type, const, enum, required, properties, additionalProperties, propertyNames, items,
    minItems, maxItems, minimum, maximum, minLength, pattern, anyOf (choices of different types) and
    references to ``#/$defs``. A number is finite, and true is not one.

    >>> check_schema("file", {"a": -1}, {"properties": {"a": {"type": "number", "minimum": 0}}})
    Traceback (most recent call last):
    ...
    ValueError: file.a: expected a number >= 0, got -1
    """
    _check(where, value, schema, schema.get("$defs", {}))


def _check(where: str, value: Any, schema: Schema, definitions: Schema) -> None:
    schema = _resolved(schema, definitions)
    if "anyOf" in schema:
        return _check_any(where, value, schema["anyOf"], definitions)
    if "type" in schema:
        expected, holds = _TYPES[schema["type"]]
        _expect(holds(value), where, expected, value)
    if "const" in schema:
        _expect(value == schema["const"], where, repr(schema["const"]), value)
    if "enum" in schema:
        _expect(value in schema["enum"], where, f"one of {', '.join(schema['enum'])}", value)
    if isinstance(value, dict):
        _check_object(where, value, schema, definitions)
    elif isinstance(value, list):
        _check_list(where, value, schema, definitions)
    elif isinstance(value, str):
        _expect(len(value) >= schema.get("minLength", 0), where, "text that is not empty", value)
        pattern = schema.get("pattern", "")
        _expect(bool(re.search(pattern, value)), where, f"text of the form {pattern}", value)
    elif _is_number(value):
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        _expect(value >= least, where, f"a number >= {least}", value)
        _expect(value <= most, where, f"a number <= {most:g}", value)


def _check_any(where: str, value: Any, choices: list[Schema], definitions: Schema) -> None:
    """Against the choice of the value's own type, else the first: one complaint is heard."""
    resolved = [_resolved(choice, definitions) for choice in choices]
    fitting = (choice for choice in resolved if _TYPES[choice["type"]][1](value))
    _check(where, value, next(fitting, resolved[0]), definitions)


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """The schema itself, or the one that it refers to."""
    return definitions[schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema


def _check_object(where: str, value: dict, schema: Schema, definitions: Schema) -> None:
    for name in schema.get("required", ()):
        _expect(name in value, where, f"a field {name!r}", sorted(value))
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        inner = f"{where}.{name}"
        if name in known:
            _check(inner, item, known[name], definitions)
        elif others is False:
            raise fail(where, f"expected fields among {', '.join(known)}", repr(name))
        elif others is not True:
            _check(inner, item, others, definitions)
        if "propertyNames" in schema:
            _check(f"{where}, name of a field", name, schema["propertyNames"], definitions)


def _check_list(where: str, value: list, schema: Schema, definitions: Schema) -> None:
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    _expect(least <= len(value) <= most, where, f"{least} to {most} items", len(value))
    for index, item in enumerate(value):
        _check(f"{where}[{index}]", item, schema.get("items", {}), definitions)


def _expect(condition: bool, where: str, expected: str, value: Any) -> None:
    if not condition:
        text = repr(value)
        raise fail(where, f"expected {expected}", text if len(text) <= 80 else f"{text[:77]}...")

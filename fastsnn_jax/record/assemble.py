"""The parts of a record put together: plain JSON data, and figures merged section by section."""

import dataclasses
import datetime
import os
from collections.abc import Mapping
from typing import Any


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """``value`` as JSON data: dataclasses and mappings to dicts, sequences and arrays to lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def merge(record: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """``record`` with ``figures`` added, section by section; a figure wins over what was there.

    >>> merge({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": 4})
    {'a': {'b': 1, 'd': 3}, 'c': 4}
    """
    merged = dict(record)
    for key, value in figures.items():
        inner = isinstance(value, dict)
        merged[key] = merge(record.get(key, {}), value) if inner else value
    return merged

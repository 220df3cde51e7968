"""What every record has, whatever the kind of run: its envelope, and figures that agree."""

import math
from collections.abc import Mapping
from typing import Any

from fastsnn_jax.record.kinds import (
    COUNT,
    OBJECT,
    TEXT,
    RecordError,
    Schema,
    check_finite,
    check_tree,
    dict_of,
    nullable,
)

SCHEMA = "fastsnn-run/1"
RELATIVE_ERROR = 1e-9  # another writer may divide and round in another order

ENVELOPE = {
    "schema": TEXT,
    "kind": TEXT,
    "config": OBJECT,
    "dataset": {"name": TEXT, "source": TEXT, "sha256": TEXT, "sizes": dict_of(COUNT)},
    "versions": dict_of(nullable(TEXT)),
    "device": OBJECT,
    "git_hash": nullable(TEXT),
    "seed": COUNT,
    "metrics": OBJECT,
    "activity": dict_of(OBJECT),
}


def check_head(where: str, record: Any) -> None:
    """Raises RecordError unless ``record`` is an object of our schema that names its kind."""
    check_tree(where, record, {"schema": TEXT, "kind": TEXT}, exact=False)
    check_agreement(where, record, {"schema": SCHEMA})


def check_entries(where: str, record: Any, kind: str, schema: Schema) -> None:
    """Raises RecordError unless ``record`` is finite and has the envelope, ``kind`` and schema."""
    check_head(where, record)
    check_agreement(where, record, {"kind": kind})
    check_finite(where, record)
    check_tree(where, record, {**ENVELOPE, **schema}, exact=False)


def check_length(where: str, entries: list, expected: int) -> None:
    """Raises RecordError unless a list has the expected length."""
    if len(entries) != expected:
        raise RecordError(f"{where}: expected {expected} entries, got {len(entries)}")


def check_agreement(where: str, recorded: Any, expected: Any) -> None:
    """Raises RecordError where ``recorded`` lacks or contradicts a figure in ``expected``.

    Integers agree when equal, other numbers when they are within 1e-9 of each other.
    """
    if isinstance(expected, Mapping) and isinstance(recorded, Mapping):
        for key, value in expected.items():
            check_agreement(f"{where}.{key}", recorded.get(key, "nothing"), value)
    elif isinstance(expected, list) and isinstance(recorded, list):
        check_length(where, recorded, len(expected))
        for index, value in enumerate(expected):
            check_agreement(f"{where}[{index}]", recorded[index], value)
    elif not _same(recorded, expected):
        raise RecordError(f"{where}: expected {expected!r}, got {recorded!r}")


def _same(recorded: Any, expected: Any) -> bool:
    if type(expected) is float or type(recorded) is float:
        numbers = isinstance(recorded, (int, float)) and isinstance(expected, (int, float))
        return numbers and math.isclose(recorded, expected, rel_tol=RELATIVE_ERROR)
    return recorded == expected

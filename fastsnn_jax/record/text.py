"""How the entries of a record are laid out as text to read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Sections: TypeAlias = dict[str, list[str]]  # title -> lines


def envelope_sections(record: Mapping[str, Any]) -> Sections:
    """What every record ends with: metrics, configuration, versions and device."""
    return {key: pairs(record[key]) for key in ("metrics", "config", "versions", "device")}


def data_lines(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset's name, sizes and source, and its hash."""
    sizes = ", ".join(f"{cell(size)} {part}" for part, size in dataset["sizes"].items())
    return {
        "dataset": f"{dataset['name']} ({sizes}), {dataset['source']}",
        "sha256": dataset["sha256"],
    }


def listed(values: Mapping[str, Any]) -> str:
    """Names and values on one line."""
    return ", ".join(f"{key} {cell(value)}" for key, value in values.items())


def pairs(values: Mapping[str, Any]) -> list[str]:
    """A line per name and value, the values below each other."""
    width = max(map(len, values), default=0)
    return [f"{key:<{width}}  {cell(value)}" for key, value in values.items()]


def table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Aligned columns: the first to the left, numbers to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]


def cell(value: Any) -> str:
    """One value: "-" where undefined, numbers with separators and at most six digits.

    >>> cell(None), cell(1234567), cell(0.123456789)
    ('-', '1,234,567', '0.123457')
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"

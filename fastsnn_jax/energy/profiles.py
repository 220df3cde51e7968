"""Device profiles: what operations, memory and routing cost, each figure with its source."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastsnn_jax._checks import check, fail
from fastsnn_jax.energy.interval import Interval
from fastsnn_jax.energy.schema import check_schema, read_schema

DEVICES = Path(__file__).parent / "devices"
_SCHEMA_FILE = DEVICES / "schema.json"
_HOLDS = ("weights", "state")
# A comparison is a subtraction (PMC8934428, note a of table 3), and so is a sum of two.
_PRICED_AS = {"compare": "add", "reduce": "add"}


@dataclasses.dataclass(frozen=True)
class Memory:
    """A level of memory; an access moves ``word_bits`` and costs, in pJ,

        access + access_per_bit * capacity

    with the capacity in bits; where ``capacity_bits`` is None the memory is as large as what it
    is to hold, and anything fits.
    """

    name: str
    capacity_bits: int | None
    word_bits: int
    access: Interval
    access_per_bit: Interval
    holds: tuple[str, ...]

    def fits(self, bits: int) -> bool:
        """Whether so many bits can be stored here."""
        return self.capacity_bits is None or bits <= self.capacity_bits

    def bit(self, stored_bits: int) -> Interval:
        """pJ to move one bit, when so many are stored."""
        capacity = stored_bits if self.capacity_bits is None else self.capacity_bits
        return (self.access + self.access_per_bit * capacity) * (1 / self.word_bits)


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a device charges, in pJ; None or absent where its source has no figure.

    Attributes:
      name, title: of the device.
      scope: what the figures cover: "operation" (a circuit), "core", "chip", "board", "system".
      obsolete: figures of silicon that nobody would build with now.
      skips_zeros: False where a spiking layer costs a dense one at every time step.
      operations: name -> number format -> pJ. Names: add, mul, mac, compare, reset, div, ...
      memories: levels by name. Without any, memory is part of the other figures.
      synaptic_operation, neuron_update: figures of a chip that include its memory.
      event, event_bit: pJ to route a spike, and per bit of its address and hop.
      fields: the whole profile as it was read, with sources.
      sha256: of the canonical bytes of ``fields``.
    """

    name: str
    title: str
    scope: str
    obsolete: bool
    skips_zeros: bool
    operations: Mapping[str, Mapping[str, Interval]]
    memories: Mapping[str, Memory]
    synaptic_operation: Interval | None
    neuron_update: Interval | None
    event: Interval | None
    event_bit: Interval | None
    fields: Mapping[str, Any]
    sha256: str

    @classmethod
    def from_json(cls, fields: Any, where: str = "profile") -> "Profile":
        """The profile of plain JSON data; ValueError names the field that is wrong.

        Every constant needs a source, ``0 <= low <= nominal <= high``, and no field is unknown.
        """
        check_schema(where, fields, read_schema(_SCHEMA_FILE))
        _check_order(where, fields)
        return cls(
            name=fields["name"],
            title=fields["title"],
            scope=fields["scope"],
            obsolete=fields["obsolete"],
            skips_zeros=fields["skips_zeros"],
            operations={
                name: {number: _interval(constant) for number, constant in formats.items()}
                for name, formats in fields.get("operations", {}).items()
            },
            memories={
                name: Memory(
                    name, level["capacity_bits"], level["word_bits"], _interval(level["access"]),
                    _optional(level, "access_per_bit") or Interval.exactly(0.0),
                    tuple(level.get("holds", _HOLDS)),
                )
                for name, level in fields.get("memories", {}).items()
            },
            synaptic_operation=_optional(fields, "synaptic_operation"),
            neuron_update=_optional(fields, "neuron_update"),
            event=_optional(fields, "event"),
            event_bit=_optional(fields, "event_bit"),
            fields=fields,
            sha256=hashlib.sha256(_canonical(fields)).hexdigest(),
        )

    def to_json(self) -> dict[str, Any]:
        """The profile as it was read, with its sha256."""
        return {**self.fields, "sha256": self.sha256}

    def operation(self, name: str, bits: int, arithmetic: str) -> Interval | None:
        """pJ of an operation on numbers of ``bits``, in the narrowest format that holds them.

        Args:
          arithmetic: "integer" or "float".

        A comparison and a reduction without a figure cost an addition; a reset, which is a choice
        between two values or a subtraction, costs nothing up to an addition. None: no figure.

        >>> load_profile("horowitz45").operation("mul", 6, "integer").nominal
        0.2
        """
        if name not in self.operations and name == "reset":
            add = self.operation("add", bits, arithmetic)
            return None if add is None else Interval(0.0, 0.0, add.high)
        if name not in self.operations:
            name = _PRICED_AS.get(name, name)
        formats = self.operations.get(name, {})
        kind = "int" if arithmetic == "integer" else "float"
        widths = sorted(int(number.removeprefix(kind)) for number in formats
                        if re.fullmatch(kind + r"\d+", number))
        width = next((width for width in widths if width >= bits), None)
        return formats.get("any") if width is None else formats[f"{kind}{width}"]

    def multiply_accumulate(self, bits: int, sum_bits: int, arithmetic: str) -> Interval | None:
        """pJ of a product of numbers of ``bits`` added to a sum of ``sum_bits``."""
        fused = self.operation("mac", bits, arithmetic)
        if fused is not None:
            return fused
        product = self.operation("mul", bits, arithmetic)
        addition = self.operation("add", sum_bits, arithmetic)
        return None if product is None or addition is None else product + addition


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with the package, sorted."""
    return tuple(sorted(path.stem for path in DEVICES.glob("*.json") if path != _SCHEMA_FILE))


def load_profile(device: "str | Path | Profile") -> Profile:
    """The profile of a name, of a JSON file, or itself.

    Raises ValueError, naming file and field, for an unknown name or a bad file.

    >>> load_profile("horowitz45").scope
    'operation'
    """
    if isinstance(device, Profile):
        return device
    if str(device) in profile_names():
        path = DEVICES / f"{device}.json"
    else:
        path = Path(device)
        known = path.suffix == ".json" or path.is_file()
        check(known, "load_profile", f"expected one of {', '.join(profile_names())} or a JSON file",
              repr(str(device)))
    return Profile.from_json(_read(path), where=f"profile {path.name}")


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise fail(f"profile {path}", "expected a readable JSON file", reason) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: the last of two would win unseen."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the field {twice[0]!r} twice")
    return dict(pairs)


def _check_order(where: str, value: Any) -> None:
    """Raises ValueError where a constant's bounds are out of order."""
    if not isinstance(value, dict):
        return
    if "nominal" in value:
        low, nominal, high = (value[key] for key in ("low", "nominal", "high"))
        check(low <= nominal <= high, where, "expected low <= nominal <= high",
              f"{low}, {nominal}, {high}")
    for name, item in value.items():
        _check_order(f"{where}.{name}", item)


def _interval(constant: Mapping[str, Any]) -> Interval:
    return Interval(*(float(constant[key]) for key in ("low", "nominal", "high")))


def _optional(fields: Mapping[str, Any], name: str) -> Interval | None:
    return _interval(fields[name]) if name in fields else None


def _canonical(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

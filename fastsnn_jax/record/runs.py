"""The kinds of run that there are, and what is done with a record of any of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastsnn_jax.record.convert.schema import validate_convert
from fastsnn_jax.record.convert.text import convert_sections
from fastsnn_jax.record.envelope import check_head
from fastsnn_jax.record.kinds import RecordError
from fastsnn_jax.record.lm.schema import validate_lm
from fastsnn_jax.record.lm.text import lm_sections
from fastsnn_jax.record.mnist.schema import validate_mnist
from fastsnn_jax.record.mnist.text import mnist_sections
from fastsnn_jax.record.text import Sections, envelope_sections


class RunKind(NamedTuple):
    """What is particular to one kind of run."""

    validate: Callable[[str, Any], None]
    sections: Callable[[Mapping[str, Any]], Sections]


RUN_KINDS = {
    "convert": RunKind(validate_convert, convert_sections),
    "lm": RunKind(validate_lm, lm_sections),
    "mnist": RunKind(validate_mnist, mnist_sections),
}


def validate_record(record: Any, where: str = "record") -> None:
    """Raises RecordError unless ``record`` is complete, well typed, finite and consistent.

    Consistent: every figure that follows from others equals its recomputation. What a record must
    hold depends on its ``kind``, "mnist", "lm" or "convert".
    """
    check_head(where, record)
    kind = record["kind"]
    if kind not in RUN_KINDS:
        raise RecordError(f"{where}.kind: expected one of {', '.join(RUN_KINDS)}, got {kind!r}")
    RUN_KINDS[kind].validate(where, record)


def format_record(record: Mapping[str, Any]) -> str:
    """The whole of a valid record as plain text; undefined figures are shown as "-"."""
    sections = RUN_KINDS[record["kind"]].sections(record) | envelope_sections(record)
    blocks = (
        "\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections.items()
    )
    return "\n\n".join(blocks)

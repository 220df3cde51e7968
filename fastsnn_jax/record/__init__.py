"""The record of a run, ``record.json``: built, validated, written whole, read back, printed."""

from fastsnn_jax.record.convert import (
    Anytime,
    Conventional,
    Conversion,
    build_convert_record,
    chosen,
    conversion_table,
)
from fastsnn_jax.record.energy import energy_report
from fastsnn_jax.record.environment import environment
from fastsnn_jax.record.files import FILE_NAME, load_record, write_record
from fastsnn_jax.record.kinds import RecordError
from fastsnn_jax.record.lm import (
    Evaluation,
    LossHistory,
    SynapseCounts,
    build_lm_record,
    printable,
)
from fastsnn_jax.record.mnist import Architecture, History, SpikeTotals, build_mnist_record
from fastsnn_jax.record.runs import format_record, validate_record

__all__ = [
    "FILE_NAME", "Anytime", "Architecture", "Conventional", "Conversion", "Evaluation", "History",
    "LossHistory", "RecordError", "SpikeTotals", "SynapseCounts", "build_convert_record",
    "build_lm_record", "build_mnist_record", "chosen", "conversion_table", "energy_report",
    "environment", "format_record", "load_record", "printable", "validate_record", "write_record",
]

"""The record of a run, ``record.json``: built, validated, written whole, read back, printed."""

from fastsnn_jax.record.environment import environment
from fastsnn_jax.record.files import load_record, write_record
from fastsnn_jax.record.mnist import Architecture, History, SpikeTotals, build_mnist_record
from fastsnn_jax.record.schema import RecordError, validate_record
from fastsnn_jax.record.text import format_record

__all__ = [
    "Architecture", "History", "RecordError", "SpikeTotals", "build_mnist_record", "environment",
    "format_record", "load_record", "validate_record", "write_record",
]

"""The record of a conversion run: one conventional network, and what became of it in spikes."""

from fastsnn_jax.record.convert.build import (
    Anytime,
    Conventional,
    Conversion,
    build_convert_record,
)
from fastsnn_jax.record.convert.schema import chosen
from fastsnn_jax.record.convert.text import conversion_table

__all__ = ["Anytime", "Conventional", "Conversion", "build_convert_record", "chosen",
           "conversion_table"]

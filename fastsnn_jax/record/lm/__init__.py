"""The record of a language model's run."""

from fastsnn_jax.record.lm.build import Evaluation, LossHistory, SynapseCounts, build_lm_record
from fastsnn_jax.record.lm.text import printable

__all__ = ["Evaluation", "LossHistory", "SynapseCounts", "build_lm_record", "printable"]

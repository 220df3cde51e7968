"""The distillation recipe: a hybrid, spiking student learns from a conventional language model.

Its record is of kind "lm": ``recipes.lm`` has the headline, the model and the variables of it.
"""

from fastsnn_jax.recipes.distill.config import DistillConfig, preset
from fastsnn_jax.recipes.distill.pipeline import STUDENT, TEACHER, TEACHING, run, saved_config

__all__ = ["DistillConfig", "STUDENT", "TEACHER", "TEACHING", "preset", "run", "saved_config"]

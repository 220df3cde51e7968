"""Models: ``apply(variables, x) -> (logits, activity)``."""

from fastsnn_jax.models.builder import build_model_from_config
from fastsnn_jax.models.cnn import CNN
from fastsnn_jax.models.language_model import LanguageModel
from fastsnn_jax.models.mlp import MLP

__all__ = ["CNN", "LanguageModel", "MLP", "build_model_from_config"]

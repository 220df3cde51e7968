"""Models: ``apply(variables, x) -> (logits, activity)``; the conventional ones return y alone."""

from fastsnn_jax.models.ann import AnnCNN, AnnMLP
from fastsnn_jax.models.builder import build_model_from_config
from fastsnn_jax.models.cnn import CNN
from fastsnn_jax.models.language_model import LanguageModel
from fastsnn_jax.models.mlp import MLP
from fastsnn_jax.models.tiny_ann import TinyANN

__all__ = [
    "AnnCNN", "AnnMLP", "CNN", "LanguageModel", "MLP", "TinyANN", "build_model_from_config",
]

"""Models: ``apply(variables, x) -> (logits, activity)``."""

from fastsnn_jax.models.cnn import CNN
from fastsnn_jax.models.mlp import MLP

__all__ = ["CNN", "MLP"]

"""The MNIST recipe: images to spikes to classes, with every spike on record."""

from fastsnn_jax.recipes.mnist.config import MnistConfig, preset
from fastsnn_jax.recipes.mnist.pipeline import (
    headline,
    recorded_model,
    recorded_variables,
    run,
    saved_config,
)

__all__ = [
    "MnistConfig", "headline", "preset", "recorded_model", "recorded_variables", "run",
    "saved_config",
]

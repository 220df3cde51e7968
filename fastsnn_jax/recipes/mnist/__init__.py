"""The MNIST recipe: images to spikes to classes, with every spike on record."""

from fastsnn_jax.recipes.mnist.config import MnistConfig, preset, read_config
from fastsnn_jax.recipes.mnist.pipeline import headline, run, saved_config

__all__ = ["MnistConfig", "headline", "preset", "read_config", "run", "saved_config"]

"""The conversion recipe: a network of values trained, turned into spikes, and compared."""

from fastsnn_jax.recipes.convert.config import ConvertConfig, preset
from fastsnn_jax.recipes.convert.pipeline import (
    headline,
    recorded_model,
    recorded_variables,
    run,
    saved_config,
)

__all__ = [
    "ConvertConfig", "headline", "preset", "recorded_model", "recorded_variables", "run",
    "saved_config",
]

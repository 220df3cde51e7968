"""The language-model recipe: text to tokens to spikes to text, with every spike on record."""

from fastsnn_jax.recipes.lm.config import LMConfig, preset
from fastsnn_jax.recipes.lm.pipeline import (
    TOKENIZER_FILE,
    headline,
    recorded_model,
    recorded_variables,
    run,
    sample_text,
    saved_config,
)

__all__ = [
    "LMConfig", "TOKENIZER_FILE", "headline", "preset", "recorded_model", "recorded_variables",
    "run", "sample_text", "saved_config",
]

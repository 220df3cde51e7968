"""Recipes: a configuration and a ``run`` that turns it into a record, checkpoints and pictures."""

from fastsnn_jax.recipes.load import Run, load_run, recipe_of

__all__ = ["Run", "load_run", "recipe_of"]

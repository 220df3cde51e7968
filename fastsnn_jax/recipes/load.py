"""Finished runs, read back."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.recipes import convert, lm, mnist
from fastsnn_jax.recipes.run_directory import CHECKPOINTS
from fastsnn_jax.record import load_record

RECIPES = {"mnist": mnist, "lm": lm, "convert": convert}


class Run(NamedTuple):
    """A finished run: ``model.apply(variables, x) -> (logits, activity)``, and its record.

    Of a conversion run it is the network before conversion, which gives logits alone.
    """

    model: Any
    variables: dict[str, Any]
    record: dict[str, Any]


def load_run(directory: str | Path) -> Run:
    """Loads the parameters that the record of the run in ``directory`` speaks of, and its model.

    Raises:
      RecordError, CheckpointError: something is missing or damaged; both are ValueErrors.
    """
    record = load_record(directory)
    recipe = recipe_of(record)
    items = Checkpoints(Path(directory) / CHECKPOINTS).restore().items
    return Run(recipe.recorded_model(record), recipe.recorded_variables(items), record)


def recipe_of(record: Mapping[str, Any]) -> ModuleType:
    """The recipe that made a record: its ``headline``, ``recorded_model`` and what else it has."""
    return RECIPES[record["kind"]]

"""Finished runs, read back."""

from pathlib import Path
from typing import Any, NamedTuple

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.recipes import lm, mnist
from fastsnn_jax.recipes.run_directory import CHECKPOINTS
from fastsnn_jax.record import load_record


class Run(NamedTuple):
    """A finished run: ``model.apply(variables, x) -> (logits, activity)``, and its record."""

    model: Any
    variables: dict[str, Any]
    record: dict[str, Any]


def load_run(directory: str | Path) -> Run:
    """Loads the parameters that the record of the run in ``directory`` speaks of, and its model.

    Raises:
      RecordError, CheckpointError: something is missing or damaged; both are ValueErrors.
    """
    record = load_record(directory)
    recipe = {"mnist": mnist, "lm": lm}[record["kind"]]
    items = Checkpoints(Path(directory) / CHECKPOINTS).restore().items
    return Run(recipe.recorded_model(record), recipe.recorded_variables(items), record)

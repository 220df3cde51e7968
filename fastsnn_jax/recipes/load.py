"""Finished runs, read back."""

from pathlib import Path
from typing import Any, NamedTuple

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.network import build_model
from fastsnn_jax.recipes.mnist.pipeline import CHECKPOINTS
from fastsnn_jax.record import load_record


class Run(NamedTuple):
    """A finished run: ``model.apply(variables, x) -> (logits, activity)``, and its record."""

    model: Any
    variables: dict[str, Any]
    record: dict[str, Any]


def load_run(directory: str | Path) -> Run:
    """Loads the selected parameters of the run in ``directory``, its model and its record.

    Raises:
      RecordError, CheckpointError: something is missing or damaged; both are ValueErrors.
    """
    record = load_record(directory)
    items = Checkpoints(Path(directory) / CHECKPOINTS).restore().items
    params = items["best"] if "best" in items else items["state"]["params"]
    return Run(build_model(preset(**record["config"])), {"params": params}, record)

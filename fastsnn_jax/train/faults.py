"""Numbers that are not finite end a run, with the step and the way back."""

import numpy as np

from fastsnn_jax._typing import Params
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.train.state import finite


class TrainingError(ValueError):
    """Training went wrong at a step that the message names: a loss or parameter is not finite."""


def check_losses(losses: np.ndarray, done: int, checkpoints: Checkpoints | None) -> None:
    """Raises TrainingError unless the losses [n] of the steps after step ``done`` are finite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = done + int(bad[0]) + 1
        raise TrainingError(f"train: loss is {losses[bad[0]]} at step {step}{_kept(checkpoints)}")


def check_params(params: Params, done: int, checkpoints: Checkpoints | None) -> None:
    """Raises TrainingError unless the parameters after step ``done`` are finite."""
    if not finite(params):
        raise TrainingError(
            f"train: parameters are not finite after step {done}{_kept(checkpoints)}"
        )


def _kept(checkpoints: Checkpoints | None) -> str:
    remedy = "lower the learning rate or clip the gradient"
    if checkpoints is None or not (labels := checkpoints.labels()):
        return f"; {remedy}"
    return f"; the last good checkpoint is {checkpoints.path(labels[-1])}; {remedy}"

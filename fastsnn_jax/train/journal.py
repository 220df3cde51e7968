"""What a training run remembers on the host: position, history, exact totals, stopping rules."""

from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from fastsnn_jax.train.plateau import PlateauState


@dataclass
class Journal:
    """Everything besides arrays that a resumed run needs; JSON holds it without loss.

    Attributes:
      identity: what must not change on resume: seed, batch size, number of samples.
      epoch: epochs finished, evaluation included.
      position: steps done in the current epoch.
      loss_sum: sum of the batch losses of the current epoch.
      sums: metric sums of the current epoch; integers are exact.
      totals: metric sums of the whole run.
      history: per epoch: losses, train_acc and val_acc (percent), val_losses, epoch_times (s).
      best_score, best_epoch: highest validation accuracy and the epoch (from 1) that reached it.
      bad_epochs: epochs since then.
      plateau: fields of PlateauState.
      epoch_seconds: wall time of the current epoch so far.
      steady_seconds, steady_samples: time and samples of all dispatches but each process's first,
        which compiles.
      stopped: why the run ended: "target", "patience", "epochs"; None while it goes on.
    """

    identity: dict[str, int]
    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    sums: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=lambda: {
        "losses": [], "train_acc": [], "val_acc": [], "val_losses": [], "epoch_times": [],
    })
    best_score: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    plateau: dict[str, Any] = field(default_factory=PlateauState()._asdict)
    epoch_seconds: float = 0.0
    steady_seconds: float = 0.0
    steady_samples: int = 0
    stopped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)

    @property
    def samples_per_s(self) -> float | None:
        """Steady training speed: compilation, evaluation and checkpoints excluded."""
        return self.steady_samples / self.steady_seconds if self.steady_seconds else None

    def add(self, losses: np.ndarray, metrics: dict[str, Any]) -> None:
        """Takes in the losses [n] and metrics [n, ...] of the next ``n`` steps."""
        self.position += len(losses)
        self.loss_sum = add_rows(losses, self.loss_sum)
        self.sums = add_sums(metrics, self.sums)
        self.totals = add_sums(metrics, self.totals)

    def close_epoch(self, evaluation: dict[str, Any] | None) -> bool:
        """Ends the epoch; returns whether its validation accuracy is the best so far."""
        history = self.history
        history["losses"].append(self.loss_sum / self.position)
        history["train_acc"].append(100.0 * self.sums["correct"] / self.sums["samples"])
        history["epoch_times"].append(self.epoch_seconds)
        self.epoch += 1
        self.position, self.loss_sum, self.sums, self.epoch_seconds = 0, 0.0, {}, 0.0
        if evaluation is None:
            return False
        history["val_acc"].append(evaluation["accuracy"])
        history["val_losses"].append(evaluation["loss"])
        if self.best_score is None or evaluation["accuracy"] > self.best_score:
            self.best_score, self.best_epoch, self.bad_epochs = (
                evaluation["accuracy"], self.epoch, 0
            )
            return True
        self.bad_epochs += 1
        return False


def add_sums(rows: dict[str, Any], sums: dict[str, Any]) -> dict[str, Any]:
    """Adds the metrics of n steps, leaves [n, ...], to sums held as Python numbers or lists."""
    if not sums:
        sums = jax.tree.map(lambda leaf: 0, rows)
    return jax.tree.map(add_rows, rows, sums)


def add_rows(rows: np.ndarray, total: Any) -> Any:
    """Adds ``rows`` [n, ...] to ``total``: integers exactly, floats one by one in float64, so that
    the result does not depend on how the steps were cut into dispatches.

    >>> add_rows(np.array([2**31 - 1, 2**31 - 1], np.int32), 1)
    4294967295
    """
    if np.issubdtype(rows.dtype, np.integer):
        return (rows.sum(axis=0, dtype=np.int64) + total).tolist()
    total = np.asarray(total, np.float64)
    for row in rows:
        total = total + row
    return total.tolist()

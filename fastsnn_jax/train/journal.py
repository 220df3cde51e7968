"""What a training run remembers on the host: position, history, exact totals, stopping rules."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import jax
import numpy as np

from fastsnn_jax.train.plateau import PlateauState


@dataclass
class Journal:
    """Everything besides arrays that a resumed run needs; JSON holds it without loss.

    Attributes:
      identity: what must not change on resume: seed, batch size, number of samples and what
        else the caller of ``train`` names.
      epoch: epochs finished, evaluation included.
      position: steps done in the current epoch.
      loss_sum: sum of the batch losses of the current epoch.
      sums: metric sums of the current epoch; integers are exact.
      totals: metric sums of the whole run.
      history: per epoch: losses, train_acc and val_acc (percent), val_losses, epoch_times (s);
        and ``figures``, where the evaluation gives some: anything that JSON holds.
      best_score, best_epoch: highest validation accuracy, or lowest loss, whichever the run
        monitors, and the epoch (from 1) that reached it.
      bad_epochs: epochs since then.
      plateau: fields of PlateauState.
      epoch_seconds: wall time of the current epoch so far.
      steady_seconds, steady_steps, steady_samples: time, steps and samples (what the metrics call
        so: images, tokens) of all dispatches but each process's first, which warms up.
      stopped: why the run ended: "target", "patience", "epochs"; None while it goes on.
    """

    identity: dict[str, Any]
    epoch: int = 0
    position: int = 0
    loss_sum: float = 0.0
    sums: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Any]] = field(default_factory=lambda: {
        "losses": [], "train_acc": [], "val_acc": [], "val_losses": [], "epoch_times": [],
    })
    best_score: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    plateau: dict[str, Any] = field(default_factory=PlateauState()._asdict)
    epoch_seconds: float = 0.0
    steady_seconds: float = 0.0
    steady_steps: int = 0
    steady_samples: int = 0
    stopped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Journal":
        """Inverse of `to_json`; ValueError unless the fields are those of this version."""
        known = {entry.name for entry in fields(cls)}
        if missing := sorted(known - values.keys()):
            raise ValueError(f"it lacks {', '.join(missing)}")
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"it has the unknown {', '.join(unknown)}")
        return cls(**values)

    @property
    def samples_per_s(self) -> float | None:
        """Steady training speed: compilation, evaluation and checkpoints excluded."""
        return self.steady_samples / self.steady_seconds if self.steady_seconds else None

    def seconds_for(self, steps: int) -> float | None:
        """How long so many more steps will last; None before it is known."""
        return steps * self.steady_seconds / self.steady_steps if self.steady_steps else None

    def add(self, losses: np.ndarray, metrics: dict[str, Any]) -> None:
        """Takes in the losses [n] and metrics [n, ...] of the next ``n`` steps."""
        self.position += len(losses)
        self.loss_sum = add_rows(losses, self.loss_sum)
        self.sums = add_sums(metrics, self.sums)
        self.totals = add_sums(metrics, self.totals)

    def close_epoch(self, evaluation: dict[str, Any] | None, monitor: str = "accuracy") -> bool:
        """Ends the epoch; returns whether the monitored figure is the best so far.

        That is the highest "accuracy" or the lowest "loss"; one that is not finite never is.
        """
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
        if "figures" in evaluation:
            history.setdefault("figures", []).append(evaluation["figures"])
        score, best = evaluation[monitor], self.best_score
        better = best is None or (score < best if monitor == "loss" else score > best)
        if better and math.isfinite(score):
            self.best_score, self.best_epoch, self.bad_epochs = score, self.epoch, 0
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

"""The training loop: epochs of chunks, evaluation, checkpoints, early stopping, resume.

It knows nothing of images or text: a ``Source`` gives batches, ``step`` learns from them, and
``evaluate`` scores parameters.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax._typing import Params
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.sharding import fitting_mesh, replicate, shard_batch
from fastsnn_jax.train.chunk import Chunk, Pace, Source, run_chunks
from fastsnn_jax.train.faults import check_losses, check_params
from fastsnn_jax.train.interrupt import Interrupted, Interrupts
from fastsnn_jax.train.journal import Journal
from fastsnn_jax.train.order import epoch_order
from fastsnn_jax.train.plateau import Plateau, PlateauState
from fastsnn_jax.train.progress import Event, Progress
from fastsnn_jax.train.state import TrainState, eval_params
from fastsnn_jax.train.step import TrainStep

Evaluate = Callable[[Params], dict[str, Any]]
"""``params -> {"accuracy": percent, "loss": mean, ...}``; see ``make_evaluate``. What it returns as
"figures" goes into the history."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how to train.

    Attributes:
      epochs: passes over the data, at most.
      batch_size: samples per step, over all devices.
      seed: of the data order.
      monitor: figure of the evaluation that selects the best parameters and drives ``patience``
        and ``plateau``: the highest "accuracy" or the lowest "loss".
      patience: stop after so many epochs without a better one; None never.
      target: stop at this validation accuracy in percent; None never.
      plateau: rule that lowers the learning rate.
      log_every: steps between "batch" events.
      chunk_s: aimed duration of a dispatch; Ctrl-C waits for at most about twice that.
      save_every_s: wall time between checkpoints inside an epoch; each epoch end has one too.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    monitor: str = "accuracy"
    patience: int | None = None
    target: float | None = None
    plateau: Plateau | None = None
    log_every: int = 100
    chunk_s: float = 0.5
    save_every_s: float = 60.0

    def __post_init__(self):
        where = "LoopConfig"
        for name in ("epochs", "batch_size", "log_every"):
            check_count(where, name, getattr(self, name))
        check_count(where, "seed", self.seed, at_least=0)
        check_choice(where, "monitor", self.monitor, ("accuracy", "loss"))
        if self.patience is not None:
            check_count(where, "patience", self.patience)
        if self.target is not None:
            check_number(where, "target", self.target, above=0.0, at_most=100.0)
        check_number(where, "chunk_s", self.chunk_s, above=0.0)
        check_number(where, "save_every_s", self.save_every_s, at_least=0.0)


class TrainResult(NamedTuple):
    """Outcome of ``train``.

    Attributes:
      state: after the last step.
      params: to deploy: those of the best evaluation, without ``evaluate`` the last ones.
      journal: history, exact totals, speed and why the run stopped.
    """

    state: TrainState
    params: Params
    journal: Journal


def train(
    step: TrainStep,
    source: Source,
    state: TrainState,
    config: LoopConfig,
    *,
    evaluate: Evaluate | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains to the end, or continues from the newest checkpoint with ``resume``.

    What is computed depends on the arguments alone, not on where the run was cut into dispatches
    or interrupted: a resumed run, on as many devices, ends with the same bits as an uninterrupted
    one, times aside.

    A checkpoint holds the items ``state`` and, after an evaluation, ``best`` (its parameters),
    and the journal.

    Args:
      step: from ``make_train_step``.
      source: training samples; each epoch sees ``size // batch_size`` full batches of them in a
        new order.
      state: from ``init_state``; not consumed. With ``resume`` it only gives the structure.
      evaluate: scores parameters (the average where one is kept) after each epoch.
      checkpoints: where to save; None keeps nothing.
      identity: what else, besides seed, batch size and number of samples, must be the same for a
        run to be resumed, such as a digest of the data; JSON holds it.
      mesh: devices that share each batch; default `fitting_mesh`.
      progress: told about every dispatch; silent by default.
    Raises:
      TrainingError: when a loss or parameter is not finite; earlier checkpoints stay.
      ValueError: the source changes its shapes.
      CheckpointError: nothing to resume, or it belongs to another run; or, without ``resume``,
        the directory already holds a run.
      Interrupted: after Ctrl-C, once the state is saved.
    """
    run = _Run(
        step, source, state, config, evaluate, checkpoints, resume, identity, mesh, progress
    )
    with Interrupts() as interrupts:
        try:
            while run.journal.stopped is None:
                run.train_epoch(interrupts)
                run.end_epoch(interrupts)
        except Interrupted:
            where = "nothing was kept"
            if checkpoints is not None:
                where = f"resume from {run.save()}"
            raise Interrupted(f"interrupted after step {int(run.state.step)}; {where}") from None
    params = eval_params(run.state) if run.best is None else run.best
    return TrainResult(run.state, params, run.journal)


class _Run:
    """State and journal of one call of ``train``, always in step with each other."""

    def __init__(self, step, source, state, config, evaluate, checkpoints, resume, identity, mesh,
                 progress):
        self.config, self.evaluate, self.progress = config, evaluate, progress
        self.checkpoints, self.source = checkpoints, source
        self.steps = len(epoch_order(config.seed, 0, source.size, config.batch_size))
        self.journal = Journal({
            "seed": config.seed, "batch_size": config.batch_size, "samples": source.size,
            **(identity or {}),
        })
        self.best = None
        if resume:
            state = self._restore(state)
        elif checkpoints is not None and checkpoints.labels():
            raise CheckpointError(
                f"train: {checkpoints.directory} already holds a run; resume it or choose another"
            )
        if checkpoints is not None:
            checkpoints.prepare()
        self.mesh = fitting_mesh(config.batch_size) if mesh is None else mesh
        # A copy, because the chunk donates what it is given.
        copy = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
        self.state = replicate(self.mesh, copy)
        self.host_data = self.data = None
        self.chunk = Chunk(step, source.fetch, self.mesh)
        self.pace = Pace(config.chunk_s)
        self.saved_at = time.monotonic()

    def train_epoch(self, interrupts: Interrupts) -> None:
        """Runs what is left of the current epoch."""
        journal, config = self.journal, self.config
        order = epoch_order(config.seed, journal.epoch, self.source.size, config.batch_size)
        order = shard_batch(self.mesh, order, axis=1)
        began, warm = time.perf_counter(), self.pace.warm
        with interrupts.at_once():
            self._place_data()
            self.chunk.prepare(self.state, self.data, order)
        chunks = run_chunks(
            self.chunk, self.state, self.data, order, journal.position, self.steps, self.pace
        )
        for self.state, (losses, metrics) in chunks:
            done = journal.epoch * self.steps + journal.position
            check_losses(losses, done, self.checkpoints)
            journal.add(losses, metrics)
            self._report(losses, metrics)
            elapsed = time.perf_counter() - began
            journal.epoch_seconds += elapsed
            if warm:
                journal.steady_seconds += elapsed
                journal.steady_steps += len(losses)
                journal.steady_samples += int(metrics["samples"].sum(dtype=np.int64))
            interrupts.check()
            if journal.position < self.steps and self._save_is_due():
                self.save()
            began, warm = time.perf_counter(), self.pace.warm

    def end_epoch(self, interrupts: Interrupts) -> None:
        """Evaluates, applies the stopping rules and saves."""
        journal, config = self.journal, self.config
        self._check_params()
        evaluation = {}
        if self.evaluate is not None:
            with interrupts.at_once():
                evaluation = self.evaluate(eval_params(self.state))
        improved = journal.close_epoch(evaluation or None, config.monitor)
        if improved:
            self.best = jax.device_get(eval_params(self.state))
        if config.plateau is not None and evaluation:
            self._lower_rate(evaluation[config.monitor])
        journal.stopped = self._reason_to_stop()
        if self.checkpoints is not None:
            self.save()
        history = journal.history
        self._tell(
            "epoch", self.steps, history["losses"][-1], history["train_acc"][-1],
            val_accuracy=evaluation.get("accuracy"), best=improved, val_loss=evaluation.get("loss"),
        )
        interrupts.check()

    def save(self) -> Any:
        """Writes a checkpoint of this very moment and returns its path."""
        self._check_params()
        items = {"state": self.state} | ({} if self.best is None else {"best": self.best})
        path = self.checkpoints.save(items, self.journal.to_json())
        self.saved_at = time.monotonic()
        return path

    def _restore(self, template: TrainState) -> TrainState:
        if self.checkpoints is None:
            raise CheckpointError("train: resume needs checkpoints")
        checkpoint = self.checkpoints.restore({"state": template, "best": template.params})
        try:
            journal = Journal.from_json(checkpoint.journal)
        except ValueError as error:
            raise CheckpointError(
                f"train: the journal of {checkpoint.path} is of another version: {error}"
            ) from error
        if journal.identity != self.journal.identity:
            raise CheckpointError(
                f"train: {checkpoint.path} was made with {journal.identity}, "
                f"got {self.journal.identity}"
            )
        if journal.stopped == "epochs" and journal.epoch < self.config.epochs:
            journal.stopped = None
        self.journal, self.best = journal, checkpoint.items.get("best")
        return checkpoint.items["state"]

    def _place_data(self) -> None:
        """Puts the data of the current epoch on the devices, unless they are there."""
        data = self.source.data(self.journal.epoch)
        if data is self.host_data:
            return
        before = _shapes(self.data)
        self.host_data = self.data = None  # two epochs need not fit side by side
        placed = replicate(self.mesh, data)
        check(before in (None, _shapes(placed)), "train", f"source.data must stay {before}",
              _shapes(placed))
        self.host_data, self.data = data, placed

    def _reason_to_stop(self) -> str | None:
        journal, config = self.journal, self.config
        highest = max(journal.history["val_acc"], default=0.0)
        if config.target is not None and highest >= config.target:
            return "target"
        if config.patience is not None and journal.bad_epochs >= config.patience:
            return "patience"
        return "epochs" if journal.epoch >= config.epochs else None

    def _lower_rate(self, score: float) -> None:
        plateau = self.config.plateau.update(
            PlateauState(**self.journal.plateau), score, lowest=self.config.monitor == "loss"
        )
        self.journal.plateau = plateau._asdict()
        scale = replicate(self.mesh, jnp.float32(plateau.scale))
        self.state = self.state._replace(rate_scale=scale)

    def _save_is_due(self) -> bool:
        waited = time.monotonic() - self.saved_at
        return self.checkpoints is not None and waited >= self.config.save_every_s

    def _check_params(self) -> None:
        check_params(self.state.params, int(self.state.step), self.checkpoints)

    def _report(self, losses: np.ndarray, metrics: dict[str, Any]) -> None:
        correct, samples = metrics["correct"], metrics["samples"]
        sums, count = self.journal.sums, len(losses)
        first = self.journal.position - count + 1
        for i in range(count):
            kinds = ["batch"] * ((first + i) % self.config.log_every == 0)
            for kind in kinds + ["chunk"] * (i == count - 1):
                accuracy = 100.0 * (sums["correct"] - correct[i + 1:].sum()) / (
                    sums["samples"] - samples[i + 1:].sum())
                self._tell(kind, first + i, float(losses[i]), float(accuracy))

    def _tell(self, kind: str, step: int, loss: float, accuracy: float, **of_epoch: Any) -> None:
        if self.progress is None:
            return
        journal, epochs = self.journal, self.config.epochs
        done = journal.epoch * self.steps + (0 if kind == "epoch" else step)
        epoch = journal.epoch if kind == "epoch" else journal.epoch + 1
        self.progress(Event(
            kind, epoch, epochs, step, self.steps, loss, accuracy, journal.samples_per_s,
            journal.seconds_for(epochs * self.steps - done), **of_epoch,
        ))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)

"""One run of `Trainer.fit`: steps, checkpoints, evaluations, interrupts."""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fastsnn_jax._checks import check, fail
from fastsnn_jax._typing import Array, Int, Params
from fastsnn_jax.checkpoint import CheckpointError
from fastsnn_jax.sharding import fitting_mesh, replicate, shard_batch
from fastsnn_jax.train.chunk import compile_apart, jit_update
from fastsnn_jax.train.faults import check_losses, check_params
from fastsnn_jax.train.interrupt import Interrupts
from fastsnn_jax.train.lm_loss import foretell, next_token_loss
from fastsnn_jax.train.progress import Event
from fastsnn_jax.train.state import TrainState, check_learnable, init_state
from fastsnn_jax.train.step import make_train_step

SAVE_EVERY_S = 60.0
_AHEAD = 2  # steps in flight: the device is never idle and Ctrl-C never waits for long


class _Report(NamedTuple):
    """What a step leaves on the device until it is fetched."""

    loss: Array
    correct: Array
    samples: Array
    lowest: Array
    highest: Array


class TokenRun:
    """One call of ``fit``: ``done`` steps, of which the last ``len(reports)`` are not fetched."""

    def __init__(self, trainer, batches, variables, checkpoints, resume, validation):
        self.trainer, self.config, self.checkpoints = trainer, trainer.config, checkpoints
        tokens = checked_tokens(batches)
        first = next(tokens, None)
        if first is None:
            raise fail("Trainer", "batches must hold at least one batch", "none")
        self.shape = first.shape
        self.validation = None if validation is None else list(checked_tokens(validation))
        check(self.validation != [], "Trainer", "validation must hold at least one batch", "none")
        self.batches = itertools.chain([first], tokens)
        self.mesh = fitting_mesh(len(first))
        state = self._initial_state(variables, first)
        for tokens in self.validation or ():
            check_range(tokens.min(), tokens.max(), self.vocabulary, "a batch to evaluate")
        if resume:
            state = self._restore(state)
        elif checkpoints is not None and checkpoints.labels():
            raise CheckpointError(
                f"Trainer: {checkpoints.directory} already holds a run; resume it or choose another"
            )
        if checkpoints is not None:
            checkpoints.prepare()
        # A copy, because the step donates what it is given.
        copy = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
        self.state: TrainState = replicate(self.mesh, copy)
        self.done = int(state.step)
        self.saved = self._progress()
        self.saved_at = time.monotonic()
        self.reports: list[_Report] = []
        self.correct = self.samples = 0  # since the last event
        self.warm, self.seconds, self.steps = False, 0.0, 0  # of the steps but the first

    def train(self, interrupts: Interrupts) -> None:
        """Runs to the end and saves."""
        config = self.config
        self._evaluate_if_due(interrupts)  # the one that an interrupt cut off
        if self.done >= config.max_steps:
            self._finish()
            return
        with interrupts.at_once():
            self._pass_over(self.done)
            step = compile_apart(self._jitted().lower(self.state, self._place(np.zeros(
                self.shape, np.int32))))
        self.began = time.perf_counter()
        while self.done < config.max_steps:
            with interrupts.at_once():
                batch = next(self.batches, None)
            if batch is None:
                break
            self.state, report = step(self.state, self._place(batch))
            self.done += 1
            self.reports.append(report)
            if len(self.reports) > _AHEAD:
                self.reports[-1 - _AHEAD].loss.block_until_ready()
            due, save_due = self.done % config.log_every == 0, self._save_is_due()
            if due or save_due or not self.warm:  # after the first too: bad input shows at once
                self.fetch()
            self._evaluate_if_due(interrupts)
            if save_due:
                self.save()
            if due:
                self._tell()
            interrupts.check()
        self.fetch()
        self._evaluate_if_due(interrupts, last=True)
        self._tell()
        self._finish()

    def _finish(self) -> None:
        check_params(self.state.params, self.done, self.checkpoints)
        if self.checkpoints is not None and self._progress() != self.saved:
            self.save()

    def fetch(self) -> None:
        """Takes in what the steps since the last time reported."""
        reports: list[_Report] = jax.device_get(self.reports)
        if not reports:
            return
        before = self.done - len(reports)
        for i, report in enumerate(reports):
            self._check_ids(report.lowest, report.highest, before + i + 1)
        losses = np.array([report.loss for report in reports])
        check_losses(losses, before, self.checkpoints)
        self.reports = []
        self.trainer.history += losses.tolist()
        self.correct += sum(int(report.correct) for report in reports)
        self.samples += sum(int(report.samples) for report in reports)
        now = time.perf_counter()
        if self.warm:
            self.seconds += now - self.began
            self.steps += len(reports)
        self.warm, self.began = True, now

    def save(self) -> Path:
        """Writes a checkpoint of this very moment and returns its path."""
        check_params(self.state.params, self.done, self.checkpoints)
        trainer = self.trainer
        items = {"state": self.state} | ({} if trainer.best is None else {"best": trainer.best})
        path = self.checkpoints.save(items, {
            "identity": self._identity(), "history": trainer.history,
            "evaluations": trainer.evaluations,
        })
        self.saved, self.saved_at = self._progress(), time.monotonic()
        self.began = time.perf_counter()
        return path

    def _initial_state(self, variables: Params, first: Any) -> TrainState:
        model, config = self.trainer.model, self.config
        init_key, run_key = jax.random.split(jax.random.key(config.seed))
        if variables is None:
            variables = jax.jit(model.init)(init_key, jnp.asarray(first[:, :-1], jnp.int32))
        check_learnable("Trainer", variables)
        ids = jax.ShapeDtypeStruct(self.shape, jnp.int32)
        logits, _ = jax.eval_shape(partial(foretell, model), variables, ids, run_key)
        self.vocabulary = logits.shape[-1]
        return init_state(variables, config.optimizer(), run_key)

    def _restore(self, template: TrainState) -> TrainState:
        if self.checkpoints is None:
            raise CheckpointError("Trainer: resume needs out, the directory of the run")
        checkpoint = self.checkpoints.restore({"state": template, "best": template.params})
        found = checkpoint.journal.get("identity")
        if found != self._identity() or "state" not in checkpoint.items:
            theirs, ours = _differences(found or {}, self._identity())
            raise CheckpointError(f"Trainer: {checkpoint.path} was made with {theirs}, got {ours}")
        trainer, journal = self.trainer, checkpoint.journal
        trainer.history = journal["history"]
        trainer.evaluations = [tuple(pair) for pair in journal.get("evaluations", ())]
        trainer.best = checkpoint.items.get("best")
        return checkpoint.items["state"]

    def _identity(self) -> dict[str, Any]:
        config = dataclasses.asdict(self.config)
        for name in ("log_every", "eval_every"):
            del config[name]
        if self.config.schedule == "constant":  # a run may be made longer
            del config["max_steps"]
        described = getattr(getattr(self.trainer.model, "config", None), "to_json", None)
        model = type(self.trainer.model).__name__ if described is None else described()
        return {**config, "batch_shape": list(self.shape), "model": model}

    def _pass_over(self, count: int) -> None:
        passed = sum(1 for _ in itertools.islice(self.batches, count))
        check(passed == count, "Trainer", f"batches must hold the {count} already seen", passed)

    def _jitted(self):
        config = self.config
        update = make_train_step(
            next_token_loss(self.trainer.model, penalty=self.trainer.penalty), config.optimizer(),
            accumulate=config.accumulate,
        )

        def step(state, tokens):
            state, (loss, metrics) = update(state, tokens)
            return state, _Report(
                loss, metrics["correct"], metrics["samples"], tokens.min(), tokens.max()
            )

        return jit_update(step, self.mesh)

    def _place(self, batch: Any) -> Int[Array, "B L+1"]:
        check(batch.shape == self.shape, "Trainer",
              f"all batches must have the shape {self.shape} of the first", batch.shape,
              "drop or fill up the last one")
        if not isinstance(batch, jax.Array):  # one on the device is not waited for
            self._check_ids(batch.min(), batch.max(), self.done + 1)
        return shard_batch(self.mesh, batch.astype(np.int32))

    def _check_ids(self, lowest: Any, highest: Any, step: int) -> None:
        check_range(lowest, highest, self.vocabulary, f"the batch of step {step}")

    @property
    def evaluated(self) -> int:
        """Step of the last evaluation; without validation every step counts as evaluated."""
        evaluations = self.trainer.evaluations
        if self.validation is None:
            return self.done
        return evaluations[-1][0] if evaluations else 0

    def _progress(self) -> tuple[int, int]:
        return self.done, len(self.trainer.evaluations)

    def _evaluate_if_due(self, interrupts: Interrupts, last: bool = False) -> None:
        last = last or self.done >= self.config.max_steps
        due = last or self.done % self.config.eval_every == 0
        if self.validation is None or self.evaluated >= self.done or not due:
            return
        trainer = self.trainer
        with interrupts.at_once():
            loss = trainer.evaluate(self.state.params, self.validation).loss
        if math.isfinite(loss) and all(loss < earlier for _, earlier in trainer.evaluations):
            trainer.best = jax.device_get(self.state.params)
        trainer.evaluations.append((self.done, loss))
        self.began = time.perf_counter()

    def _save_is_due(self) -> bool:
        waited = time.monotonic() - self.saved_at
        return self.checkpoints is not None and waited >= SAVE_EVERY_S

    def _tell(self) -> None:
        if self.trainer.progress is None or not self.samples:
            return
        steps, rate, left_s = self.config.max_steps, None, None
        if self.steps:
            left_s = (steps - self.done) * self.seconds / self.steps
            rate = self.shape[0] * (self.shape[1] - 1) * self.steps / self.seconds
        accuracy = 100.0 * self.correct / self.samples
        self.correct = self.samples = 0
        evaluations = self.trainer.evaluations
        val_loss = evaluations[-1][1] if evaluations and self.evaluated == self.done else None
        self.trainer.progress(Event(
            "batch", 1, 1, self.done, steps, self.trainer.history[-1], accuracy, rate, left_s,
            val_loss=val_loss,
        ))


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> tuple[dict, dict]:
    """The entries in which two dicts differ."""
    names = [name for name in found | expected if found.get(name) != expected.get(name)]
    theirs, ours = ({name: each.get(name) for name in names} for each in (found, expected))
    return theirs, ours


def check_range(lowest: Any, highest: Any, vocabulary: int, where: str) -> None:
    check(bool(lowest >= 0 and highest < vocabulary), "Trainer",
          f"tokens must lie in 0..{vocabulary - 1}, the model's vocabulary",
          f"{lowest}..{highest} in {where}")


def checked_tokens(batches: Iterable[ArrayLike]) -> Iterator[Any]:
    """The batches as arrays of integers [B, L + 1]; those on a device stay there."""
    for number, batch in enumerate(batches, 1):
        batch = batch if isinstance(batch, jax.Array) else np.asarray(batch)
        where = f"Trainer: batch {number}"
        if not jnp.issubdtype(batch.dtype, jnp.integer):
            raise TypeError(f"{where}: tokens must be integers, got dtype {batch.dtype}")
        check(batch.ndim == 2 and len(batch) > 0 and batch.shape[1] > 1, where,
              "tokens must be [B, L + 1], L at least 1", batch.shape)
        yield batch

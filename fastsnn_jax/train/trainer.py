"""The user's door to training a language model: a model, a config, batches of tokens."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fastsnn_jax._checks import check, fail
from fastsnn_jax._typing import Array, Int, Params
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.sharding import fitting_mesh, replicate, shard_batch
from fastsnn_jax.train.chunk import compile_apart, jit_update
from fastsnn_jax.train.config import TrainConfig
from fastsnn_jax.train.faults import check_losses, check_params
from fastsnn_jax.train.interrupt import Interrupted, Interrupts
from fastsnn_jax.train.journal import add_sums
from fastsnn_jax.train.lm_evaluation import Evaluation, next_token_sums
from fastsnn_jax.train.lm_loss import foretell, next_token_loss
from fastsnn_jax.train.progress import Event, Progress
from fastsnn_jax.train.state import TrainState, check_learnable, init_state
from fastsnn_jax.train.step import make_train_step

SAVE_EVERY_S = 60.0
_AHEAD = 2  # steps in flight: the device is never idle and Ctrl-C never waits for long


class Trainer:
    """Trains a language model on batches of tokens, one update each.

    Args:
      model: ``init(key, tokens [B, L]) -> variables`` and ``apply(variables, tokens, train=True,
        rngs={"dropout": key}) -> (logits [B, L, V], activity)``, as of
        ``build_model_from_config``.
      progress: for instance ``stream_progress()``; silent by default. Samples are tokens.
      penalty: ``activity -> scalar`` that is added to the loss of a step, for instance a price on
        spikes: ``lambda activity: 0.01 * sum(c.log_counts.mean() for c in activity.values())``.
    Attributes:
      history: loss of every step, the penalty included.
      evaluations: (step, validation loss) of every evaluation.
      best: the variables at the lowest validation loss, None before an evaluation.
      stopped: why `fit` returned: "max_steps", or "batches" when there were no more.

    >>> class Bigram:
    ...     def init(self, key, tokens):
    ...         return {"params": jnp.zeros((5, 5))}
    ...     def apply(self, variables, tokens, train=False, rngs=None):
    ...         return variables["params"][tokens], {}
    >>> trainer = Trainer(Bigram(), TrainConfig(max_steps=3, lr=0.1))
    >>> state = trainer.fit(np.arange(8).reshape(2, 4) % 5 for _ in range(9))
    >>> [round(loss, 2) for loss in trainer.history], trainer.stopped
    ([1.61, 1.45, 1.3], 'max_steps')
    >>> logits, _ = Bigram().apply(state.params, jnp.array([[2]]))
    >>> int(logits.argmax())
    3

    And a spiking language model:

    >>> import fastsnn_jax as fs
    >>> cfg = fs.SNNConfig(vocab_size=2000, d_model=128, n_heads=4, n_layers=2, d_ff=256,
    ...                    attn_kind="hybrid_alt")
    >>> model = fs.build_model_from_config(cfg)
    >>> trainer = fs.Trainer(model, fs.TrainConfig(max_steps=10, log_every=2, lr=1e-3))
    >>> state = trainer.fit(jax.random.randint(jax.random.key(i), (2, 64), 0, 2000)
    ...                     for i in range(20))
    >>> int(state.step), len(trainer.history)
    (10, 10)
    """

    def __init__(
        self, model: Any, config: TrainConfig, progress: Progress | None = None,
        penalty: Callable[[Mapping[str, Any]], Array] | None = None,
    ):
        self.model, self.config, self.progress, self.penalty = model, config, progress, penalty
        self._sums = jax.jit(next_token_sums(model))
        self._forget()

    def _forget(self) -> None:
        self.history: list[float] = []
        self.evaluations: list[tuple[int, float]] = []
        self.best: Params = None
        self.stopped: str | None = None

    def fit(
        self, batches: Iterable[ArrayLike], variables: Params = None,
        out: str | Path | None = None, resume: bool = False,
        validation: Iterable[ArrayLike] | None = None,
    ) -> TrainState:
        """Takes batches until ``max_steps`` updates are done or there are none left.

        Args:
          batches: integers [B, L + 1], all of one shape: inputs are the first L tokens, targets the
            last L. Ids on a device are checked when the losses are fetched, others at once.
          variables: to start from, not consumed; default ``model.init``.
          out: directory for checkpoints: at the end, and about once a minute.
          resume: continue the run in ``out``, given the same batches from the first on; those it
            has seen are passed over. Interrupted or not, the result has the same bits.
          validation: tokens [B, L + 1] to evaluate on, every ``eval_every`` steps and at the end;
            all are kept in memory. They select ``best``, which checkpoints hold too.
        Returns:
          The state after the last step; ``state.params`` are the model's variables.
        Raises:
          ValueError, TypeError: no batch, of another shape, not tokens of the model's vocabulary;
            or a model that does not keep the protocol.
          TrainingError: when a loss or parameter is not finite; earlier checkpoints stay.
          CheckpointError: nothing to resume, or it belongs to another run; or, without ``resume``,
            the directory already holds a run.
          Interrupted: after Ctrl-C, once the state is saved.
        """
        self._forget()
        checkpoints = None if out is None else Checkpoints(out)
        run = _Run(self, batches, variables, checkpoints, resume, validation)
        with Interrupts() as interrupts:
            try:
                run.train(interrupts)
            except Interrupted:
                run.fetch()
                where = "nothing was kept"
                if checkpoints is not None:
                    where = f"resume from {run.save()}"
                raise Interrupted(f"interrupted after step {run.done}; {where}") from None
        self.stopped = "max_steps" if run.done >= self.config.max_steps else "batches"
        return run.state

    def evaluate(self, variables: Params, batches: Iterable[ArrayLike]) -> Evaluation:
        """Loss, hits and spikes of ``variables`` on batches of tokens [B, L + 1].

        Raises:
          ValueError, TypeError: no batch, or not tokens of the model's vocabulary.
        """
        sums: dict[str, Any] = {}
        for batch in _tokens(batches):
            known = jnp.ones((len(batch), batch.shape[1] - 1), bool)
            logits, _ = jax.eval_shape(self.model.apply, variables, batch[:, :-1])
            _check_range(batch.min(), batch.max(), logits.shape[-1], "a batch to evaluate")
            rows = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self._sums(
                variables, jnp.asarray(batch, jnp.int32), known))
            sums = add_sums(rows, sums)
        check(bool(sums), "Trainer", "there must be at least one batch to evaluate", "none")
        samples = sums["samples"]
        return Evaluation(
            sums["loss"] / samples, 100.0 * sums["correct"] / samples, samples, sums["spikes"]
        )


class _Report(NamedTuple):
    """What a step leaves on the device until it is fetched."""

    loss: Array
    correct: Array
    samples: Array
    lowest: Array
    highest: Array


class _Run:
    """One call of ``fit``: ``done`` steps, of which the last ``len(reports)`` are not fetched."""

    def __init__(self, trainer, batches, variables, checkpoints, resume, validation):
        self.trainer, self.config, self.checkpoints = trainer, trainer.config, checkpoints
        tokens = _tokens(batches)
        first = next(tokens, None)
        if first is None:
            raise fail("Trainer", "batches must hold at least one batch", "none")
        self.shape = first.shape
        self.validation = None if validation is None else list(_tokens(validation))
        check(self.validation != [], "Trainer", "validation must hold at least one batch", "none")
        self.batches = itertools.chain([first], tokens)
        self.mesh = fitting_mesh(len(first))
        state = self._initial_state(variables, first)
        for tokens in self.validation or ():
            _check_range(tokens.min(), tokens.max(), self.vocabulary, "a batch to evaluate")
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
        self.done = self.saved = int(state.step)
        self.saved_at = time.monotonic()
        self.reports: list[_Report] = []
        self.correct = self.samples = 0  # since the last event
        self.warm, self.seconds, self.steps = False, 0.0, 0  # of the steps but the first

    def train(self, interrupts: Interrupts) -> None:
        """Runs to the end and saves."""
        config = self.config
        if self.done >= config.max_steps:
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
            if self.done % config.eval_every == 0:
                self._evaluate(interrupts)
            if save_due:
                self.save()
            if due:
                self._tell()
            interrupts.check()
        self.fetch()
        if self.evaluated < self.done:
            self._evaluate(interrupts)
        self._tell()
        check_params(self.state.params, self.done, self.checkpoints)
        if self.checkpoints is not None and self.done > self.saved:
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
        self.saved, self.saved_at, self.began = self.done, time.monotonic(), time.perf_counter()
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
            raise CheckpointError(
                f"Trainer: {checkpoint.path} was made with {found}, got {self._identity()}"
            )
        trainer, journal = self.trainer, checkpoint.journal
        trainer.history = journal["history"]
        trainer.evaluations = [tuple(pair) for pair in journal.get("evaluations", ())]
        trainer.best = checkpoint.items.get("best")
        return checkpoint.items["state"]

    def _identity(self) -> dict[str, Any]:
        config = dataclasses.asdict(self.config)
        for name in ("max_steps", "log_every", "eval_every"):  # a run may be made longer
            del config[name]
        return {**config, "batch_shape": list(self.shape)}

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
        _check_range(lowest, highest, self.vocabulary, f"the batch of step {step}")

    @property
    def evaluated(self) -> int:
        """Step of the last evaluation; without validation every step counts as evaluated."""
        evaluations = self.trainer.evaluations
        if self.validation is None:
            return self.done
        return evaluations[-1][0] if evaluations else 0

    def _evaluate(self, interrupts: Interrupts) -> None:
        if self.validation is None:
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


def _check_range(lowest: Any, highest: Any, vocabulary: int, where: str) -> None:
    check(bool(lowest >= 0 and highest < vocabulary), "Trainer",
          f"tokens must lie in 0..{vocabulary - 1}, the model's vocabulary",
          f"{lowest}..{highest} in {where}")


def _tokens(batches: Iterable[ArrayLike]) -> Iterator[Any]:
    """The batches as arrays of integers [B, L + 1]; those on a device stay there."""
    for number, batch in enumerate(batches, 1):
        batch = batch if isinstance(batch, jax.Array) else np.asarray(batch)
        where = f"Trainer: batch {number}"
        if not jnp.issubdtype(batch.dtype, jnp.integer):
            raise TypeError(f"{where}: tokens must be integers, got dtype {batch.dtype}")
        check(batch.ndim == 2 and len(batch) > 0 and batch.shape[1] > 1, where,
              "tokens must be [B, L + 1], L at least 1", batch.shape)
        yield batch

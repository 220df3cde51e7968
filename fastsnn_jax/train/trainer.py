"""The user's door to training a language model: a model, a config, batches of tokens."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, Params
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.train.config import TrainConfig
from fastsnn_jax.train.interrupt import Interrupted, Interrupts
from fastsnn_jax.train.journal import add_sums
from fastsnn_jax.train.lm_evaluation import Evaluation, next_token_sums
from fastsnn_jax.train.progress import Progress
from fastsnn_jax.train.state import TrainState
from fastsnn_jax.train.token_run import TokenRun, check_range, checked_tokens


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
            has seen are passed over. Interrupted or not, the result has the same bits, on as many
            devices.
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
        run = TokenRun(self, batches, variables, checkpoints, resume, validation)
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
        vocabulary = None
        for batch in checked_tokens(batches):
            known = jnp.ones((len(batch), batch.shape[1] - 1), bool)
            if vocabulary is None:  # a trace of the model: once
                logits, _ = jax.eval_shape(self.model.apply, variables, batch[:, :-1])
                vocabulary = logits.shape[-1]
            check_range(batch.min(), batch.max(), vocabulary, "a batch to evaluate")
            rows = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self._sums(
                variables, jnp.asarray(batch, jnp.int32), known))
            sums = add_sums(rows, sums)
        check(bool(sums), "Trainer", "there must be at least one batch to evaluate", "none")
        samples = sums["samples"]
        return Evaluation(
            sums["loss"] / samples, 100.0 * sums["correct"] / samples, samples, sums["spikes"]
        )

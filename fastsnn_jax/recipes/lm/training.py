"""The training of a language model on windows of a text, evaluated on the part held out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax._typing import Key, Params
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.data import Corpus, Windows, random_crops
from fastsnn_jax.models import LanguageModel
from fastsnn_jax.recipes.lm import network
from fastsnn_jax.recipes.lm.config import EVALUATIONS, LMConfig
from fastsnn_jax.recipes.run_directory import CHECKPOINTS
from fastsnn_jax.record import LossHistory
from fastsnn_jax.train import (
    Journal,
    LoopConfig,
    Progress,
    Source,
    eval_params,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

EVAL_TOKENS = 8192  # per batch of the evaluation
Evaluate = Callable[[Params], dict[str, Any]]


def make_evaluation(
    sums: Callable[..., dict[str, Any]], held_out: Windows, key: Key
) -> Evaluate:
    """``params -> sums`` over all of the held-out text; ``sums`` as ``next_token_sums``."""
    batch = max(1, EVAL_TOKENS // held_out.mask.shape[1])
    rows = rows_of(jax.tree.map(jnp.asarray, tuple(held_out)))
    return make_evaluate(network.make_metrics(sums), rows, batch, key)


def train_windows(
    config: LMConfig, directory: Path, resume: bool, model: LanguageModel, params: Params,
    loss_fn: Callable, corpus: Corpus, evaluate: Evaluate, key: Key, progress: Progress | None,
    *, known: Params = None, identity: Mapping[str, Any] | None = None,
) -> tuple[Params, Journal]:
    """Trains ``params`` on random windows of the text; the last ones, or their average.

    Args:
      directory: of the run; its checkpoints lie below.
      loss_fn: as for ``make_train_step``; a batch is tokens [B, L + 1], or (known, tokens).
      evaluate: told of in the history, with the spikes of every layer.
      key: of dropout.
      known: what the loss reads beside the tokens and training does not change.
      identity: what must be the same for a run to be resumed, see ``train``.
    """
    epochs, steps = _epochs(config)

    def data(epoch: int) -> Any:
        count = steps * config.batch_size
        crops = random_crops(corpus.train, config.context, count, config.seed, epoch)
        return known, jnp.asarray(crops)

    def fetch(data: Any, index: Any) -> Any:
        known, crops = data
        return crops[index] if known is None else (known, crops[index])

    channels = network.input_channels(model)

    def evaluate_with_rates(params: Params) -> dict[str, Any]:
        sums = evaluate(params)
        return sums | {"figures": network.spikes_per_channel(channels, sums)}

    tx = network.build_optimiser(config)
    checkpoints = Checkpoints(directory / CHECKPOINTS)
    result = train(
        make_train_step(
            loss_fn, tx, ema_decay=config.ema_decay, accumulate=config.accumulate,
        ),
        Source(data, steps * config.batch_size, fetch),
        init_state(params, tx, key, ema=config.ema_decay is not None),
        LoopConfig(epochs, config.batch_size, config.seed, monitor="loss"),
        # A run killed before its first checkpoint resumes from the start.
        evaluate=evaluate_with_rates, checkpoints=checkpoints,
        resume=resume and bool(checkpoints.labels()), identity=identity, progress=progress,
    )
    return eval_params(result.state), result.journal


def history_of(config: LMConfig, journal: Journal, spiking: bool) -> LossHistory:
    """Losses, and spikes of every layer, at each evaluation on the way."""
    _, steps = _epochs(config)
    done, rates = len(journal.history["losses"]), journal.history["figures"]
    return LossHistory(
        steps=[steps * (i + 1) for i in range(done)],
        train_loss=journal.history["losses"],
        val_loss=journal.history["val_losses"],
        spikes_per_channel={
            layer: [entry[layer] for entry in rates] for layer in rates[0]
        } if spiking else None,
    )


def _epochs(config: LMConfig) -> tuple[int, int]:
    """Evaluations of a run, and steps between them."""
    epochs = max(n for n in range(1, EVALUATIONS + 1) if config.steps % n == 0)
    return epochs, config.steps // epochs

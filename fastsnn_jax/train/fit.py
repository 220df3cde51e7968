"""Trains any spiking classifier on a user's own arrays."""

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from fastsnn_jax._checks import check, check_count, check_number
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.encoding import direct
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.train.chunk import rows_of
from fastsnn_jax.train.evaluate import make_evaluate
from fastsnn_jax.train.journal import Journal
from fastsnn_jax.train.loop import LoopConfig, train
from fastsnn_jax.train.order import hold_out
from fastsnn_jax.train.plateau import Plateau
from fastsnn_jax.train.progress import Progress
from fastsnn_jax.train.state import check_learnable, init_state
from fastsnn_jax.train.step import make_train_step


class Fitted(NamedTuple):
    """Outcome of ``fit``.

    Attributes:
      variables: of the best validation accuracy; ``model.apply(variables, x)`` runs them.
      history: per epoch: losses, train_acc, val_acc (percent), val_losses, epoch_times (s).
      journal: besides, exact spike totals, speed and why the run stopped.
    """

    variables: Any
    history: dict[str, list[float]]
    journal: Journal


def fit(
    model: Any,
    samples: tuple[ArrayLike, ArrayLike],
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    num_steps: int = 25,
    encode: Callable[[Any, Any], Any] | None = None,
    validation: float | tuple[ArrayLike, ArrayLike] = 0.1,
    patience: int | None = None,
    plateau: Plateau | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Trains ``model`` on ``samples = (x, y)`` with Adam and cross-entropy.

    Args:
      model: anything with ``init(key, inputs) -> variables`` and
        ``apply(variables, inputs) -> (logits [B, K], activity)``; every value in ``activity`` has
        ``nonzero`` int [B], which the journal totals: spikes, or the entries of an analog input.
      samples: ``x`` [N, ...] floating, or uint8 that is scaled to [0, 1]; ``y`` [N] classes,
        integers from 0.
      epochs: passes over the data, at most.
      learning_rate: a number or an optax schedule over steps.
      num_steps: T of the default encoder, which presents ``x`` as a direct current.
      encode: ``(key, x [B, ...]) -> inputs`` of the model, traced, in place of the default.
      validation: share of the samples held out, in [0, 1), or other samples. 0 holds out none,
        any other share at least one.
      patience: stop after so many epochs without a better validation accuracy.
      plateau: rule that lowers the learning rate on the validation accuracy.
      out: directory for checkpoints; with ``resume`` the run in it is continued, which must have
        been begun with the same samples.
      progress: for instance ``stream_progress()``; silent by default.
    Raises:
      ValueError, TypeError: before training, if the arrays do not fit together or the model;
        while training, see ``train``.

    >>> class Linear:
    ...     def init(self, key, inputs):
    ...         return jnp.zeros((inputs.shape[-1], 2))
    ...     def apply(self, variables, inputs):
    ...         return inputs.mean(0) @ variables, {}
    >>> x = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    >>> fitted = fit(Linear(), (x, np.arange(40) % 2), epochs=2, batch_size=4)
    >>> fitted.history["val_acc"]
    [100.0, 100.0]
    """
    check_count("fit", "num_steps", num_steps)
    if not callable(learning_rate):
        check_number("fit", "learning_rate", learning_rate, above=0.0)
        check(math.isfinite(learning_rate), "fit", "learning_rate must be finite", learning_rate)
    config = LoopConfig(epochs, batch_size, seed, patience=patience, plateau=plateau)
    encode = partial(_direct, num_steps) if encode is None else encode
    samples = _samples("samples", samples)
    samples, held = _split(samples, validation, seed)
    check(batch_size <= len(samples[0]), "fit",
          f"batch_size must be <= {len(samples[0])}, the samples to train on", batch_size)

    keys = jax.random.split(jax.random.key(seed), 4)
    inputs = encode(keys[0], _scaled(samples[0][:1]))
    variables = model.init(keys[1], inputs)
    _check_model(model, variables, inputs, samples[1] if held is None else
                 np.concatenate([samples[1], held[1]]))

    def forward(variables, key, x):
        return model.apply(variables, encode(key, _scaled(x)))

    def loss_fn(variables, batch, key):
        x, y = batch
        logits, activity = forward(variables, key, x)
        mask = jnp.ones(y.shape, bool)
        return cross_entropy(logits, y).mean(), _sums(logits, activity, y, mask)

    def metrics_fn(variables, batch, mask, key):
        x, y = batch
        logits, activity = forward(variables, key, x)
        loss = jnp.where(mask, cross_entropy(logits, y), 0.0).sum()
        return _sums(logits, activity, y, mask) | {"loss": loss}

    tx = optax.adam(learning_rate)
    evaluate = held and make_evaluate(metrics_fn, rows_of(held), batch_size, keys[2])
    result = train(
        make_train_step(loss_fn, tx), rows_of(samples), init_state(variables, tx, keys[3]), config,
        evaluate=evaluate, checkpoints=None if out is None else Checkpoints(out), resume=resume,
        identity=None if out is None else {"data": _digest((samples, held))}, progress=progress,
    )
    return Fitted(result.params, result.journal.history, result.journal)


def _direct(num_steps, key, x):
    del key  # a direct current is not random
    return direct(x, num_steps)


def _scaled(x):
    return x.astype(jnp.float32) / (255.0 if x.dtype == jnp.uint8 else 1.0)


def _sums(logits, activity, y, mask):
    def spikes(count):
        return jnp.where(mask, count.nonzero, 0).sum(dtype=jnp.int32)

    return {
        "samples": mask.sum(dtype=jnp.int32),
        "correct": ((logits.argmax(-1) == y) & mask).sum(dtype=jnp.int32),
        "spikes": {name: spikes(count) for name, count in activity.items()},
    }


def _samples(name: str, samples: tuple[ArrayLike, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    check(isinstance(samples, tuple) and len(samples) == 2, "fit",
          f"{name} must be a tuple (x, y)", type(samples).__name__)
    x, y = (np.asarray(part) for part in samples)
    if not (x.dtype == np.uint8 or jnp.issubdtype(x.dtype, jnp.floating)):
        raise TypeError(f"fit: x of {name} must be floating or uint8, got dtype {x.dtype}")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"fit: y of {name} must be integer classes, got dtype {y.dtype}")
    check(x.ndim >= 2 and y.ndim == 1 and len(x) == len(y) > 0, "fit",
          f"{name} must be x [N, ...] and y [N]", f"x {x.shape} and y {y.shape}")
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    check(bool(np.isfinite(x).all()), "fit", f"x of {name} must be finite", "NaN or infinity",
          "clean the data first")
    return x, y.astype(np.int32)


def _split(samples, validation, seed):
    if isinstance(validation, tuple):
        return samples, _samples("validation", validation)
    check(isinstance(validation, (int, float)) and 0.0 <= validation < 1.0, "fit",
          "validation must be a share in [0, 1) or a tuple (x, y)", validation)
    size = len(samples[0])
    count = max(round(validation * size), 1 if validation else 0)
    kept, held = hold_out(seed, size, count)
    take = partial(jax.tree.map, lambda rows, index: rows[index])
    return take(samples, (kept, kept)), take(samples, (held, held)) if len(held) else None


def _check_model(model: Any, variables: Any, inputs: Any, labels: np.ndarray) -> None:
    check_learnable("fit", variables)
    logits, activity = jax.eval_shape(model.apply, variables, inputs)
    check(logits.ndim == 2 and isinstance(activity, Mapping), "fit",
          "model.apply must return (logits [B, K], activity dict)",
          f"logits {logits.shape} and {type(activity).__name__}")
    check(labels.min() >= 0 and labels.max() < logits.shape[1], "fit",
          f"y must lie in 0..{logits.shape[1] - 1}, the classes of the model",
          f"{labels.min()}..{labels.max()}")


def _digest(arrays: Any) -> str:
    """Short name of the arrays' shapes, dtypes and values."""
    digest = hashlib.sha256()
    for array in jax.tree.leaves(arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]

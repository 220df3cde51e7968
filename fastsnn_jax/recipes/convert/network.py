"""The conventional network of a conversion run: its training, and what is measured on it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastsnn_jax._typing import Array, Float, Int, Key, Params
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.data import Examples
from fastsnn_jax.jaxpr import run_needed
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.models import AnnCNN, AnnMLP
from fastsnn_jax.recipes.convert.config import ConvertConfig
from fastsnn_jax.recipes.mnist.inputs import augment
from fastsnn_jax.train import (
    LoopConfig,
    Progress,
    TrainResult,
    eval_params,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

NUM_CLASSES = 10
EVAL_BATCH = 256  # so that 2, 4 or 8 devices share it
STATISTICS_IMAGES = 4096  # training images that the statistics of BatchNorm are taken over
STATISTICS = "batch_stats"  # the collection of BatchNorm
Model = AnnMLP | AnnCNN
Forward = Callable[..., Any]
"""``(variables, x) -> logits``."""


def build_model(config: ConvertConfig) -> Model:
    """The network of a configuration for one model."""
    return AnnCNN(num_classes=NUM_CLASSES) if config.model == "cnn" else AnnMLP()


def train_network(
    config: ConvertConfig, model: Model, learn: Examples, select: Examples,
    checkpoints: Checkpoints, resume: bool, progress: Progress | None,
) -> tuple[dict[str, Any], TrainResult]:
    """Variables that ``model.apply`` takes, and the training they come from.

    They are the average of the last parameters: nothing is selected on ``select``, whose accuracy
    is only told. The statistics of BatchNorm belong to these very parameters: training normalises
    by the batch and keeps none, and they are taken afterwards over training images.
    """
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    x = jnp.zeros((1, *learn.images.shape[1:]))
    params = run_needed(model.init, init_key, x)["params"]
    source = rows_of(device_examples(learn))
    tx = optimiser(config.learning_rate, config, len(learn.labels), config.epochs or 1)
    statistics = make_statistics(model, learn.images[:STATISTICS_IMAGES])
    scores = evaluator(model.apply, select)
    result = train(
        make_train_step(make_loss(_in_training(model), config), tx, ema_decay=config.ema_decay),
        source, init_state(params, tx, run_key, ema=True),
        LoopConfig(config.epochs or 1, config.batch_size, config.seed),
        evaluate=lambda params: scores(statistics(params)), checkpoints=checkpoints,
        # A run killed before its first checkpoint resumes from the start.
        resume=resume and bool(checkpoints.labels()), progress=progress,
    )
    return jax.device_get(statistics(eval_params(result.state))), result


def optimiser(
    learning_rate: float, config: ConvertConfig, samples: int, epochs: int
) -> optax.GradientTransformation:
    """Adam with cosine decay to 0 over the whole training."""
    steps = samples // config.batch_size * epochs
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def make_statistics(model: Model, images: np.ndarray) -> Callable[[Params], dict[str, Any]]:
    """``params -> variables``, with BatchNorm's statistics over ``images`` where there are any.

    Means and variances of equal batches, averaged; images that do not fill the last are left out.
    """
    size = min(EVAL_BATCH, len(images))
    batches = jnp.asarray(images)[: len(images) // size * size].reshape(-1, size, *images.shape[1:])

    @jax.jit
    def statistics(params: Params, batches: Array) -> Params:
        def of_batch(batch):
            _, updated = model.apply(
                {"params": params}, scaled(batch), train=True, mutable=[STATISTICS]
            )
            return updated.get(STATISTICS, {})

        return jax.tree.map(lambda leaf: leaf.mean(0), jax.lax.map(of_batch, batches))

    def variables(params: Params) -> dict[str, Any]:
        measured = statistics(params, batches)
        return {"params": params} | ({STATISTICS: measured} if measured else {})

    return variables


def make_loss(forward: Forward, config: ConvertConfig) -> Callable:
    """``(params, (images uint8, labels), key) -> (loss, sums)`` for ``make_train_step``."""

    def loss_fn(params: Params, batch: tuple[Array, Array], key: Key):
        images, labels = batch
        logits = forward(params, augment(config, key, scaled(images)))
        loss = cross_entropy(logits, labels, config.label_smoothing).mean()
        return loss, sums_of(logits, labels, jnp.ones(labels.shape, bool))

    return loss_fn


def evaluator(forward: Forward, examples: Examples) -> Callable[[Any], dict[str, Any]]:
    """``variables -> {"accuracy": percent, "loss": nats, ...}`` over all examples."""

    def metrics_fn(variables: Any, batch: tuple[Array, Array], mask: Array, key: Key):
        del key  # nothing is random
        images, labels = batch
        logits = forward(variables, scaled(images))
        loss = jnp.where(mask, cross_entropy(logits, labels), 0.0).sum()
        return sums_of(logits, labels, mask) | {"loss": loss}

    return make_evaluate(
        metrics_fn, rows_of(device_examples(examples)), EVAL_BATCH, jax.random.key(0)
    )


def sums_of(logits: Float[Array, "B K"], labels: Int[Array, " B"], mask: Array) -> dict[str, Array]:
    """Hits and samples of a batch, padding aside."""
    hits = (logits.argmax(-1) == labels) & mask
    return {"correct": hits.sum(dtype=jnp.int32), "samples": mask.sum(dtype=jnp.int32)}


def scaled(images: Array) -> Float[Array, "B H W 1"]:
    """Images from bytes to [0, 1]."""
    return images.astype(jnp.float32) / 255


def device_examples(examples: Examples) -> tuple[Array, Array]:
    """Images and labels as device arrays, images still uint8."""
    return jnp.asarray(examples.images), jnp.asarray(examples.labels)


def _in_training(model: Model) -> Forward:
    """Normalisation by the batch, whose statistics are not kept."""

    def forward(params: Params, x: Array) -> Array:
        return model.apply({"params": params}, x, train=True, mutable=[STATISTICS])[0]

    return forward

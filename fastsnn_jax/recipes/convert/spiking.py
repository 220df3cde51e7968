"""The network of a run converted to spikes: by every method, fine-tuned, and measured."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._typing import Array, Key, Params
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.conversion import Converted, anytime, convert
from fastsnn_jax.data import Examples
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.report import Report, report
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.recipes.convert import network
from fastsnn_jax.recipes.convert.config import ConvertConfig
from fastsnn_jax.recipes.convert.network import Model
from fastsnn_jax.recipes.convert.work import Signal, count_work, spikes_per_inference
from fastsnn_jax.record import Anytime, Conversion
from fastsnn_jax.train import (
    LoopConfig,
    Progress,
    divergence,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

FINE_TUNED = "qcfs"  # the method whose thresholds learn
DYNAMIC = "dynamic_mean"  # the method without any
TEMPERATURE = 2.0  # of the answers that fine-tuning imitates


class Measured(NamedTuple):
    """A converted network over all examples.

    Attributes:
      accuracy: percent.
      signals: spikes of every site, in the order of the network.
      counts: work of every layer.
      energy: their report.
    """

    accuracy: float
    signals: list[Signal]
    counts: dict[str, LayerCounts]
    energy: Report

    def conversion(
        self, method: str, num_steps: int, validation_accuracy: float, fine_tune_epochs: int = 0
    ) -> Conversion:
        """The entry of the record."""
        total = self.energy["total"]
        return Conversion(
            method, num_steps, fine_tune_epochs, validation_accuracy, self.accuracy,
            spikes_per_inference(self.signals, self.energy["samples"]), total["ac"],
            total["energy_pj"]["total"],
        )


def convert_network(
    config: ConvertConfig, model: Model, variables: Any, learn: Examples, method: str,
    num_steps: int,
) -> tuple[Converted, Any]:
    """The network in spikes and the variables to run it with.

    The first training images set its thresholds and then, where asked for, BatchNorm's statistics.
    """
    images = _calibration_images(config, learn)
    options: dict[str, Any] = {"per_channel": config.per_channel}
    if method == DYNAMIC:
        options = {"k": num_steps / config.dynamic_range}
    converted = convert(
        model.apply, variables, images, method=method, num_steps=num_steps, **options
    )
    if not config.recalibrate:
        return converted, converted.variables
    return converted, recalibrated(model, converted, converted.variables, images)


def recalibrated(model: Model, converted: Converted, variables: Any, images: Array) -> Any:
    """``variables`` with BatchNorm's statistics of the spiking network itself, layer by layer.

    What few spikes do to the mean and variance of a channel is so undone behind it.
    """
    if network.STATISTICS not in variables["model"]:
        return variables
    (_, statistics), _ = _by_batch(model, converted).apply(variables, images)
    return {**variables, "model": {**variables["model"], network.STATISTICS: statistics}}


def fine_tune(
    config: ConvertConfig, model: Model, original: Any, converted: Converted, variables: Any,
    learn: Examples, checkpoints: Checkpoints, resume: bool, progress: Progress | None,
) -> Any:
    """``variables`` of ``converted`` after training kernels, biases and thresholds through spikes.

    It learns to answer as the network of values does, whose variables are ``original``, on the
    images as they are. As before the conversion the batch normalises while training, and
    BatchNorm's statistics are taken afterwards.
    """
    fixed, learnt = _split(variables)
    forward = converted.apply
    if network.STATISTICS in fixed:
        by_batch = _by_batch(model, converted)

        def forward(variables: Any, x: Array) -> tuple[Array, Any]:
            (logits, _), activity = by_batch.apply(variables, x)
            return logits, activity

    rate = config.fine_tune_learning_rate
    assert rate is not None, "run settles the rate"
    tx = network.optimiser(rate, config, len(learn.labels), config.fine_tune_epochs)

    def loss_fn(learnt: Params, batch: tuple[Array, Array], key: Key):
        del key  # nothing is random
        images, labels = batch
        x = network.scaled(images)
        logits, _ = forward(_joined(fixed, learnt), x)
        teacher: Any = model.apply(original, x)
        loss = TEMPERATURE**2 * divergence(logits, teacher, TEMPERATURE).mean()
        return loss, network.sums_of(logits, labels, jnp.ones(labels.shape, bool))

    result = train(
        make_train_step(loss_fn, tx), rows_of(network.device_examples(learn)),
        init_state(learnt, tx, jax.random.key(config.seed + 1)),
        LoopConfig(config.fine_tune_epochs, config.batch_size, config.seed + 1),
        checkpoints=checkpoints, resume=resume and bool(checkpoints.labels()), progress=progress,
    )
    tuned = _joined(fixed, jax.device_get(result.params))
    return recalibrated(model, converted, tuned, _calibration_images(config, learn))


def measure(
    converted: Converted, variables: Any, model: Model, examples: Examples, num_steps: int,
    macs: Sequence[int],
) -> Measured:
    """Runs all examples once, and counts; ``macs`` as in ``count_work``."""
    names = [site.name for site in converted.sites if site.converted]
    evaluate = make_evaluate(
        _metrics(converted, names), rows_of(network.device_examples(examples)),
        network.EVAL_BATCH, jax.random.key(0),
    )
    sums = evaluate(variables)
    signals = [
        Signal(np.asarray(sums["activity"][name]["events"], np.int64),
               sums["activity"][name]["saturated"]) for name in names
    ]
    counts = count_work(
        model, variables["model"], signals, num_steps=num_steps,
        samples=sums["samples"], active=int(np.count_nonzero(examples.images)),
        input_shape=examples.images.shape[1:], macs=macs,
    )
    return Measured(sums["accuracy"], signals, counts, report(counts))


def validate(converted: Converted, variables: Any, examples: Examples) -> float:
    """Accuracy over all examples in percent, of which nothing else is wanted."""
    scores = network.evaluator(lambda variables, x: converted.apply(variables, x)[0], examples)
    return scores(variables)["accuracy"]


def stop_early(converted: Converted, variables: Any, examples: Examples) -> Anytime:
    """Anytime inference over all examples: the planes it took, and whether the answers stood."""
    same = used = 0
    for start in range(0, len(examples.labels), network.EVAL_BATCH):
        x = network.scaled(jnp.asarray(examples.images[start : start + network.EVAL_BATCH]))
        predicted, planes = anytime(converted, variables, x)
        same += int((predicted == converted.apply(variables, x)[0].argmax(-1)).sum())
        used += int(planes.sum())
    samples = len(examples.labels)
    name, steps = converted.method.name, converted.method.num_steps
    return Anytime(name, steps, steps.bit_length(), used / samples, samples - same)


def _metrics(converted: Converted, names: list[str]) -> Callable:
    def metrics_fn(variables: Any, batch: tuple[Array, Array], mask: Array, key: Key):
        del key  # nothing is random
        images, labels = batch
        logits, activity = converted.apply(variables, network.scaled(images))
        loss = jnp.where(mask, cross_entropy(logits, labels), 0.0).sum()
        return network.sums_of(logits, labels, mask) | {"loss": loss, "activity": {
            name: {
                "events": _masked(activity[name].events, mask).sum(0).astype(jnp.int32),
                "saturated": _masked(activity[name].saturated, mask).sum(),
            }
            for name in names
        }}

    return metrics_fn


def _masked(values: Array, mask: Array) -> Array:
    return jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, 0)


def _calibration_images(config: ConvertConfig, learn: Examples) -> Array:
    return network.scaled(jnp.asarray(learn.images[: config.calibration_samples]))


def _by_batch(model: Model, converted: Converted) -> Converted:
    """The same network normalised by the batch; its output is ``(logits, statistics)``."""

    def apply_fn(variables: Any, x: Array) -> tuple[Array, Any]:
        logits, updated = model.apply(variables, x, train=True, mutable=[network.STATISTICS])
        return logits, updated[network.STATISTICS]

    return dataclasses.replace(converted, apply_fn=apply_fn)  # it has the same sites


def _split(variables: Mapping[str, Any]) -> tuple[Params, Params]:
    """What stays, BatchNorm's statistics, and what learns."""
    model = variables["model"]
    fixed = {name: leaves for name, leaves in model.items() if name != "params"}
    return fixed, {"params": model["params"], "sites": variables["sites"]}


def _joined(fixed: Params, learnt: Params) -> Params:
    return {"model": {**fixed, "params": learnt["params"]}, "sites": learnt["sites"]}

"""The network of an MNIST run, and what training and evaluation measure on it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from fastsnn_jax._typing import Array, Key, Params
from fastsnn_jax.activity import Activity, fan_out
from fastsnn_jax.data import Examples
from fastsnn_jax.energy.objective import above_target, synaptic_operations
from fastsnn_jax.jaxpr import run_needed
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.neurons import lif, lif_preset
from fastsnn_jax.recipes.mnist.config import MnistConfig
from fastsnn_jax.recipes.mnist.inputs import InputPlan, augment, encode
from fastsnn_jax.record import Architecture
from fastsnn_jax.sharding import map_rows
from fastsnn_jax.windows import sum_windows

NUM_HIDDEN, NUM_CLASSES = 400, 10
_WEIGHT_DECAY, _CLIP_NORM = 1e-5, 1.0  # of the notebook's protocol


class Optimiser(NamedTuple):
    """An optax transformation and what the record says of it."""

    tx: optax.GradientTransformation
    name: str
    weight_decay: float
    grad_clip_max_norm: float | None


def build_model(config: MnistConfig) -> MLP | CNN:
    """The spiking network of a configuration."""
    if config.protocol == "notebook":
        neuron = lif_preset("notebook", decay=config.decay, threshold=config.threshold)
    else:
        learn = ("decay",) if config.learn_decay else ()
        neuron = lif(config.decay, config.threshold, learn=learn)
    shared = {"neuron": neuron, "logit_scale": config.logit_scale, "gain": config.gain}
    if config.model == "cnn":
        return CNN(num_classes=NUM_CLASSES, **shared)
    return MLP(features=(NUM_HIDDEN, NUM_CLASSES), **shared)


def init_params(config: MnistConfig, model: Any, image_shape: tuple[int, ...], key: Key) -> Params:
    """Fresh parameters; one dense step of input is enough to give every shape."""
    x = jnp.zeros((1, 1, *input_shape(config, image_shape)))
    return run_needed(model.init, key, x)["params"]


def input_shape(config: MnistConfig, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a sample's input: flat for the mlp, a map for the cnn."""
    return (math.prod(image_shape),) if config.model == "mlp" else image_shape


def build_optimiser(config: MnistConfig, steps: int) -> Optimiser:
    """Adam with cosine decay over ``steps``; the notebook's: clip, then L2, then Adam."""
    if config.protocol == "notebook":
        tx = optax.chain(
            optax.clip_by_global_norm(_CLIP_NORM), optax.add_decayed_weights(_WEIGHT_DECAY),
            optax.adam(config.learning_rate),
        )
        return Optimiser(tx, "adam", _WEIGHT_DECAY, _CLIP_NORM)
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    return Optimiser(optax.adam(schedule), "adam, cosine decay", 0.0, None)


def activity_keys(model: Any) -> tuple[str, ...]:
    """Keys of `activity` from input to output: a dict that went through jit is sorted by name."""
    return (*(f"{name}/kernel" for name in model.layer_names), "output")


def fan_outs(model: Any, input_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Synapses leaving each neuron, ``int [*N]`` by key of the synapse, from input to output."""
    x = jnp.zeros((1, 1, *input_shape))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    activity = jax.eval_shape(model.apply, variables, x)[1]
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), variables)

    @jax.jit  # a start costs one compilation, not one an operation
    def counted(ones):
        synapses = model.synapses(ones, input_shape)
        return {
            key: fan_out(synapses[key], activity[key].events.shape[1:])
            for key in activity_keys(model)[:-1]
        }

    counts = counted(ones)  # which jit sorts by name
    return {key: np.asarray(counts[key], np.int64) for key in activity_keys(model)[:-1]}


def learned_decays(params: Params) -> dict[str, float]:
    """Mean decay of every layer that learns it, by name."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        path[0].key: float(np.mean(jax.nn.sigmoid(leaf)))
        for path, leaf in leaves if path[-1].key == "decay_logit"
    }


def architecture(config: MnistConfig, fans: Mapping[str, np.ndarray]) -> Architecture:
    """Sizes for the record, from `fan_outs`; a convolution has no single one, so those are None."""
    into_hidden, *others = fans.values()
    decay = None if config.learn_decay else config.decay  # learned: one for every neuron
    if config.model == "cnn":
        return Architecture(into_hidden.size, None, NUM_CLASSES, config.threshold, decay)
    (into_output,) = others
    return Architecture(
        into_hidden.size, into_output.size, NUM_CLASSES, config.threshold, decay,
        *map(int, (into_hidden.sum(), into_output.sum(), into_hidden[0], into_output[0])),
    )


def make_loss(
    model: Any, config: MnistConfig, plan: InputPlan, fans: Mapping[str, np.ndarray] | None = None,
    mesh: Mesh | None = None,
) -> Callable:
    """``(params, (images uint8, labels), key) -> (loss, sums)`` for `make_train_step`.

    With ``energy_weight`` the loss has a price on synaptic operations and needs `fan_outs`; those
    of the input are free, no parameter moves them. ``mesh`` is the one `train` is given: without it
    the compiler gathers event lists from several devices.
    """
    fans = fans or {}
    assert fans or not config.energy_weight, "a price on synaptic operations needs the fan-outs"
    connections = float(sum(fan.sum() for fan in fans.values()))
    charged = dict(list(fans.items())[1:])

    def loss_fn(params: Params, batch: tuple[Array, Array], key: Key):
        images, labels = batch
        augment_key, code_key = jax.random.split(key)
        x = augment(config, augment_key, _scaled(images))
        logits, activity = _forward(model, config, plan, mesh, params, code_key, x)
        loss = cross_entropy(logits, labels, config.label_smoothing).mean()
        if config.energy_weight:
            operations = synaptic_operations(activity, charged)
            loss += config.energy_weight * above_target(operations, 0.0, connections)
        everyone = jnp.ones(labels.shape, bool)
        spikes = spike_totals(model, activity, everyone)
        return loss, _sums(logits, labels, everyone) | {"spikes": spikes}

    return loss_fn


def make_metrics(
    model: Any, config: MnistConfig, plan: InputPlan, per_neuron: bool, mesh: Mesh | None = None
) -> Callable:
    """``(params, batch, mask, key) -> sums`` for `make_evaluate`.

    Loss, hits and a confusion matrix [true, predicted]; with ``per_neuron`` the spikes of every
    neuron instead of the matrix. ``mesh`` is the one `make_evaluate` is given, as in `make_loss`.
    """

    def metrics_fn(params: Params, batch: tuple[Array, Array], mask: Array, key: Key):
        images, labels = batch
        logits, activity = _forward(model, config, plan, mesh, params, key, _scaled(images))
        loss = jnp.where(mask, cross_entropy(logits, labels), 0.0).sum()
        sums = _sums(logits, labels, mask) | {"loss": loss}
        if per_neuron:
            return sums | {"activity": {
                name: {
                    "per_neuron": _masked(count.events, mask).sum(0).astype(jnp.int32),
                    "nonzero": _masked(count.nonzero, mask).sum(),
                    "saturated": _masked(count.saturated, mask).sum(),
                }
                for name, count in activity.items()
            }}
        confusion = jnp.zeros((NUM_CLASSES, NUM_CLASSES), jnp.int32)
        confusion = confusion.at[labels, logits.argmax(-1)].add(mask.astype(jnp.int32))
        return sums | {"confusion": confusion}

    return metrics_fn


def spike_totals(model: Any, activity: Activity, mask: Array) -> dict[str, Array]:
    """Exact int32 totals over a batch, by place in the network."""
    counts = [activity[key] for key in activity_keys(model)]

    def total(values: list[Array]) -> Array:
        return jnp.sum(jnp.where(mask, jnp.stack(values), 0), dtype=jnp.int32)

    return {
        "input": total([counts[0].nonzero]),
        "hidden": total([count.nonzero for count in counts[1:-1]]),
        "output": total([counts[-1].nonzero]),
        "saturated": total([count.saturated for count in counts]),
    }


def device_examples(examples: Examples) -> tuple[Array, Array]:
    """Images and labels as device arrays, images still uint8."""
    return jnp.asarray(examples.images), jnp.asarray(examples.labels)


def _forward(
    model: Any, config: MnistConfig, plan: InputPlan, mesh: Mesh | None, params: Params, key: Key,
    x: Array,
):
    """Logits and activity over all T: in windows where T is long, on each device its images."""

    def forward(whole, x, first_row):
        params, key = whole

        def run(params, state, start, steps):
            spikes = encode(config, plan, key, x, start, steps, first_row)
            return model.apply({"params": params}, state, spikes, method="run")

        rest = model.rest(len(x), input_shape(config, x.shape[1:]))
        return sum_windows(run, params, rest, config.num_steps)[1]

    logits, activity = map_rows(mesh, forward, (params, key), x)
    if config.encoder == "direct":  # analog: every pixel costs all its synapses at every step
        name = activity_keys(model)[0]
        count = activity[name]
        events = jnp.full_like(count.events, config.num_steps)
        nonzero = jnp.full_like(count.nonzero, config.num_steps * events[0].size)
        activity = {**activity, name: count._replace(events=events, nonzero=nonzero)}
    return logits, activity


def _scaled(images: Array) -> Array:
    return images.astype(jnp.float32) / 255


def _sums(logits: Array, labels: Array, mask: Array) -> dict[str, Any]:
    hits = (logits.argmax(-1) == labels) & mask
    return {"correct": hits.sum(dtype=jnp.int32), "samples": mask.sum(dtype=jnp.int32)}


def _masked(values: Array, mask: Array) -> Array:
    return jnp.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, 0)

"""The network of a language-model run, its optimiser, and what evaluation measures on it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastsnn_jax._typing import Array, Key, Params
from fastsnn_jax.activity import TokenSpikes, fan_out
from fastsnn_jax.energy.objective import above_target, synaptic_operations
from fastsnn_jax.models import LanguageModel, build_model_from_config
from fastsnn_jax.recipes.lm.config import LMConfig
from fastsnn_jax.record import SynapseCounts
from fastsnn_jax.train import TrainConfig, next_token_loss


def build_model(config: LMConfig, spiking: bool = True) -> LanguageModel:
    """The network of a configuration, or its twin without spikes."""
    assert config.vocab_size is not None, "run settles the size of the vocabulary"
    return build_model_from_config(dataclasses.replace(
        config.model, vocab_size=config.vocab_size, spiking=spiking and config.model.spiking
    ))


def build_optimiser(config: LMConfig) -> optax.GradientTransformation:
    """Clip, then AdamW; linear warm-up, cosine decay to a tenth."""
    return TrainConfig(
        max_steps=config.steps, lr=config.learning_rate, weight_decay=config.weight_decay,
        beta2=config.beta2, warmup_steps=config.warmup_steps, schedule="cosine",
        clip_norm=config.clip_norm,
    ).optimizer()


def make_loss(model: LanguageModel, config: LMConfig) -> Callable:
    """``(params, tokens [B, L + 1], key) -> (loss, sums)`` for `make_train_step`.

    With ``spike_weight`` the loss has a price on spikes: the mean ``log2(1 + |s|)`` of all channels
    that are coded, every distinct input once. With ``energy_weight`` it has one on synaptic
    operations: the same, but every synapse weighed by its fan-out.
    """
    if not model.config.spiking or not (config.spike_weight or config.energy_weight):
        return next_token_loss(model)
    channels, shapes = input_channels(model), kernel_shapes(model)
    fans = {key: columns for key, (_, columns) in shapes.items()}
    connections = float(sum(rows * columns for rows, columns in shapes.values()))

    def penalty(activity: Mapping[str, TokenSpikes]) -> Array:
        price = jnp.float32(0.0)
        if config.spike_weight:
            logs = jnp.stack([activity[key].log_counts.mean() for key in channels])
            price += config.spike_weight * logs.sum() / sum(channels.values())
        if config.energy_weight:
            operations = synaptic_operations(activity, fans)
            price += config.energy_weight * above_target(operations, 0.0, connections)
        return price

    return next_token_loss(model, penalty=penalty)


def make_metrics(sums: Callable[..., dict[str, Any]]) -> Callable:
    """``(params, (tokens, known), mask, key) -> sums`` for `make_evaluate`.

    ``sums(params, tokens, known)`` are over the targets that are ``known`` [B, L], as of
    ``next_token_sums``.
    """

    def metrics_fn(params: Params, batch: tuple[Array, Array], mask: Array, key: Key):
        del key  # nothing is random
        tokens, known = batch
        return sums(params, tokens, known & mask[:, None])

    return metrics_fn


def synapse_counts(
    model: LanguageModel, params: Params, sums: Mapping[str, Any]
) -> dict[str, SynapseCounts]:
    """What every synapse read in an evaluation, in the order of the network."""
    kernels = model.kernels(params)
    connected = model.synapses(jax.tree.map(jnp.ones_like, params))
    counts = {}
    for key, kernel in kernels.items():
        fans = np.unique(np.asarray(fan_out(connected[key], kernel.shape[:1])))
        assert len(fans) == 1, "every channel of a projection has as many synapses"
        counts[key] = SynapseCounts(
            tokens=sums["samples"], channels=kernel.shape[0], fan_out=int(fans[0]),
            **sums["spikes"][key],
        )
    return counts


def largest_count(model: LanguageModel) -> int:
    """Where the spike counts of a model are clipped."""
    return max(block.neuron.limit for block in model.blocks)


def shares(count: SynapseCounts) -> dict[str, float]:
    """Shares of the channels that spiked and that saturated, over all tokens counted."""
    places = count.tokens * count.channels
    return {"active": count.active / places, "saturated": count.saturated / places}


def input_channels(model: LanguageModel) -> dict[str, int]:
    """Channels of every distinct input that is coded, by the first key that reads it."""
    shapes = kernel_shapes(model)
    return {group[0]: shapes[group[0]][0] for group in model.input_groups()}


def kernel_shapes(model: LanguageModel) -> dict[str, tuple[int, int]]:
    """(channels, fan-out) of every kernel that reads spikes."""
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return {key: kernel.shape for key, kernel in
            jax.eval_shape(model.kernels, variables).items()}


def spikes_per_channel(channels: Mapping[str, int], sums: Mapping[str, Any]) -> dict[str, float]:
    """Bit-plane spikes per channel and token of each layer, from `input_channels`."""
    layers = {key: key.split("/")[0] for key in channels}
    spikes, places = dict.fromkeys(layers.values(), 0), dict.fromkeys(layers.values(), 0)
    for key, layer in layers.items():
        spikes[layer] += sums["spikes"][key]["bit_plane"]
        places[layer] += channels[key] * sums["samples"]
    return {layer: spikes[layer] / places[layer] for layer in spikes}

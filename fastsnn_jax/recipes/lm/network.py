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
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.models import LanguageModel, build_model_from_config
from fastsnn_jax.recipes.lm.config import LMConfig
from fastsnn_jax.record import SynapseCounts
from fastsnn_jax.train.lm_loss import next_token_loss

BITS = 7  # planes of a count of at most 127
_FLOOR = 0.1  # share of the learning rate that is left at the end of the cosine
_MUON_RMS = 0.2  # of an update, as AdamW's: then both take the same learning rate (2502.16982)


def build_model(config: LMConfig, spiking: bool = True) -> LanguageModel:
    """The network of a configuration, or its twin without spikes."""
    assert config.vocab_size is not None, "run settles the size of the vocabulary"
    return build_model_from_config(dataclasses.replace(
        config.model, vocab_size=config.vocab_size, spiking=spiking and config.model.spiking
    ))


def build_optimiser(config: LMConfig) -> optax.GradientTransformation:
    """Clip, then AdamW or Muon; linear warm-up, cosine decay to a tenth."""
    warmup = min(config.warmup_steps, config.steps // 2)
    rate = optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate, config.learning_rate, warmup, config.steps,
        end_value=_FLOOR * config.learning_rate,
    )
    if config.optimizer == "muon":
        tx = optax.contrib.muon(
            rate, weight_decay=config.weight_decay, weight_decay_mask=_is_kernel,
            adam_b2=config.beta2, consistent_rms=_MUON_RMS,
            muon_weight_dimension_numbers=_orthogonalised,
        )
    else:
        tx = optax.adamw(rate, b2=config.beta2, weight_decay=config.weight_decay, mask=_is_kernel)
    if config.clip_norm is None:
        return tx
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), tx)


def make_loss(model: LanguageModel, config: LMConfig) -> Callable:
    """``(params, tokens [B, L + 1], key) -> (loss, sums)`` for `make_train_step`."""
    return next_token_loss(model)


def make_metrics(model: LanguageModel) -> Callable:
    """``(params, (tokens, known), mask, key) -> sums`` for `make_evaluate`.

    Loss and hits over the targets that are ``known`` [B, L], and the spikes of every synapse.
    """

    def metrics_fn(params: Params, batch: tuple[Array, Array], mask: Array, key: Key):
        del key  # nothing is random
        tokens, known = batch
        known = known & mask[:, None]
        outputs: Any = model.apply(params, tokens[:, :-1])
        logits, activity = outputs
        targets = tokens[:, 1:]
        hits = (logits.argmax(-1) == targets) & known
        return {
            "loss": jnp.where(known, cross_entropy(logits, targets), 0.0).sum(),
            "correct": hits.sum(dtype=jnp.int32),
            "samples": known.sum(dtype=jnp.int32),
            "spikes": {key: _totals(count, known) for key, count in activity.items()},
        }

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


def spikes_per_channel(
    model: LanguageModel, params: Params, sums: Mapping[str, Any]
) -> dict[str, float]:
    """Bit-plane spikes per channel and token of each layer, every distinct input once."""
    kernels = model.kernels(params)
    spikes: dict[str, int] = {}
    channels: dict[str, int] = {}
    for key, *_ in model.input_groups():
        layer = key.split("/")[0]
        spikes[layer] = spikes.get(layer, 0) + sums["spikes"][key]["bit_plane"]
        channels[layer] = channels.get(layer, 0) + kernels[key].shape[0]
    return {layer: spikes[layer] / (channels[layer] * sums["samples"]) for layer in spikes}


def _totals(count: TokenSpikes, known: Array) -> dict[str, Array]:
    return {
        name: jnp.where(known, leaf, 0).sum(dtype=jnp.int32)
        for name, leaf in count._asdict().items()
    }


def _is_kernel(params: Params) -> Any:
    """True for matrices: weight decay leaves biases, norms and thresholds alone."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _orthogonalised(params: Params) -> Any:
    """Muon's matrices: kernels of the blocks; embedding, head and vectors stay with AdamW."""
    def spec(path: Any, leaf: Array) -> Any:
        names = [getattr(key, "key", "") for key in path]
        inside = names[-1] == "kernel" and any(name.startswith("blocks") for name in names)
        return optax.contrib.MuonDimensionNumbers() if inside else None

    return jax.tree_util.tree_map_with_path(spec, params)

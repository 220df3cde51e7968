"""From a configuration to a language model, through the registries of kinds."""

import math
from typing import Any

import jax.numpy as jnp

from fastsnn_jax._checks import check
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.models.language_model import LanguageModel
from fastsnn_jax.neurons import adaptive_threshold, lif_sint
from fastsnn_jax.nn.attention import LinearAttention, SlidingWindowAttention, SoftmaxAttention
from fastsnn_jax.nn.block import Block
from fastsnn_jax.nn.ffn import GatedFFN, PulseFFN
from fastsnn_jax.nn.hybrid import HybridMix
from fastsnn_jax.registry import (
    ATTENTION,
    FFN,
    NEURONS,
    Registry,
    register_attention,
    register_ffn,
    register_neuron,
)


def build_model_from_config(
    config: SNNConfig, *, neurons: Registry = NEURONS, attention: Registry = ATTENTION,
    ffn: Registry = FFN,
) -> LanguageModel:
    """The language model a configuration describes.

    Args:
      config: with ``spiking=False`` the same network without spikes.
      neurons, attention, ffn: where kinds are looked up; ``factory(config, layer)`` builds a neuron
        or a module with the interface of ``fastsnn_jax.nn.attention`` or ``fastsnn_jax.nn.ffn``.
        A module with a field ``neuron`` is given the layer's: it codes what the module projects.
    Raises:
      ValueError: for an unknown kind, or a neuron that mixes positions.

    >>> import jax, fastsnn_jax as fs
    >>> cfg = fs.SNNConfig(vocab_size=2000, d_model=128, n_heads=4, n_layers=2, d_ff=256,
    ...                    attn_kind="hybrid_alt")
    >>> model = fs.build_model_from_config(cfg)
    >>> x = jax.random.randint(jax.random.key(0), (2, 64), 0, cfg.vocab_size)
    >>> variables = model.init(jax.random.key(1), x[:, :-1])
    >>> logits, activity = model.apply(variables, x[:, :-1])
    >>> logits.shape
    (2, 63, 2000)
    """
    if not isinstance(config, SNNConfig):
        raise TypeError(f"build_model_from_config: config must be an SNNConfig, got {config!r}")
    make_neuron, make_attention, make_ffn = (
        registry.get(name) for registry, name in (
            (neurons, config.neuron), (attention, config.attn_kind), (ffn, config.ffn)
        )
    )

    def neuron_of(layer: int) -> Any:
        neuron = make_neuron(config, layer)
        check(not getattr(neuron, "legacy_time_collapse", False), "build_model_from_config",
              "neurons of a causal model must code each position by itself",
              "legacy_time_collapse=True", "it sums over the sequence, later tokens included")
        return neuron

    def block(layer: int) -> Block:
        neuron = neuron_of(layer) if config.spiking else None
        return Block(
            attention=_with_neuron(make_attention(config, layer), neuron),
            ffn=_with_neuron(make_ffn(config, layer), neuron), neuron=neuron, norm=config.norm,
            norm_eps=config.norm_eps, dropout=config.dropout, dtype=jnp.dtype(config.dtype),
        )

    blocks = tuple(block(layer) for layer in range(config.n_layers))
    head = config.spiking and config.spiking_lm_head
    return LanguageModel(config, blocks, neuron_of(config.n_layers) if head else None)


@register_neuron("adaptive_threshold")
def _adaptive_threshold(config: SNNConfig, layer: int) -> Any:
    return adaptive_threshold(config.k, rounding=config.rounding)


@register_neuron("lif_sint")
def _lif_sint(config: SNNConfig, layer: int) -> Any:
    # Where adaptive_threshold(k) would be for normal inputs of unit variance.
    return lif_sint(math.sqrt(2 / math.pi) / config.k, rounding=config.rounding)


@register_attention("linear")
def _linear(config: SNNConfig, layer: int) -> LinearAttention:
    return LinearAttention(
        **_heads(config), feature_map=config.feature_map, gate=config.gate,
        normalizer=config.normalizer,
    )


@register_attention("sliding")
def _sliding(config: SNNConfig, layer: int) -> SlidingWindowAttention:
    return SlidingWindowAttention(
        **_heads(config), **_positions(config), window=config.window + config.window_inclusive
    )


@register_attention("softmax")
def _softmax(config: SNNConfig, layer: int) -> SoftmaxAttention:
    return SoftmaxAttention(**_heads(config), **_positions(config))


@register_attention("interleaved")
def _interleaved(config: SNNConfig, layer: int) -> Any:
    """Linear and sliding in turn, as in SpikingBrain-7B."""
    return (_linear, _sliding)[layer % 2](config, layer)


@register_attention("hybrid_alt")
def _hybrid_alt(config: SNNConfig, layer: int) -> HybridMix:
    """Linear and sliding side by side, now and then softmax too, projected back (FastSNN)."""
    branches: list[Any] = [_linear(config, layer), _sliding(config, layer)]
    if layer % config.softmax_every == 0:
        branches.append(_softmax(config, layer))
    return _mix(config, branches, "project")


@register_attention("parallel_sum")
def _parallel_sum(config: SNNConfig, layer: int) -> HybridMix:
    """Linear and sliding side by side, normalised and summed, as in SpikingBrain-76B."""
    return _mix(config, [_linear(config, layer), _sliding(config, layer)], "sum")


@register_ffn("pulse")
def _pulse(config: SNNConfig, layer: int) -> PulseFFN:
    return PulseFFN(**_shared(config), hidden=config.d_ff)


@register_ffn("gated")
def _gated(config: SNNConfig, layer: int) -> GatedFFN:
    return GatedFFN(**_shared(config), hidden=config.d_ff)


def _with_neuron(module: Any, neuron: Any) -> Any:
    """The module, and the branches inside it, with the neuron that codes what it projects."""
    if branches := getattr(module, "branches", ()):
        module = module.clone(branches=tuple(_with_neuron(b, neuron) for b in branches))
    return module.clone(neuron=neuron) if hasattr(module, "neuron") else module


def _mix(config: SNNConfig, branches: list[Any], merge: str) -> HybridMix:
    return HybridMix(
        tuple(branches), merge, **_shared(config), norm_eps=config.norm_eps,
    )


def _shared(config: SNNConfig) -> dict[str, Any]:
    """Fields of every layer that writes to the residual stream."""
    return {
        "features": config.d_model, "dtype": jnp.dtype(config.dtype),
        # Two branches a layer add to the stream: their sum keeps the variance of one.
        "output_gain": (2 * config.n_layers) ** -0.5,
    }


def _heads(config: SNNConfig) -> dict[str, Any]:
    return _shared(config) | {
        "n_heads": config.n_heads, "n_kv_heads": config.kv_heads,
        "head_dim": config.size_of_head, "use_bias": config.qkv_bias,
        "output_bias": config.output_bias, "norm_eps": config.norm_eps,
    }


def _positions(config: SNNConfig) -> dict[str, Any]:
    return {"rope_theta": config.rope_theta, "rope_scaling": config.rope_scaling,
            "qk_norm": config.qk_norm}


"""From softmax attention to attention that needs no growing cache, with the weights it has."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax._typing import Key
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.nn.attention import half_life_bias
from fastsnn_jax.pretrained.parameters import expected_parameters, named_parameters, nested
from fastsnn_jax.pretrained.shards import shown

_GATE = ("gate_down/kernel", "gate_up/kernel")
KINDS = ("interleaved", "linear", "sliding")
GATE_GAIN = 2**-2.5  # of Xavier's initial values: SpikingBrain-7B, report section 3.1
# Norms of queries and keys go with the rotation, which linear layers have not.
_LEFT_BEHIND = ("attention/query_norm/scale", "attention/key_norm/scale")


def hybridize(
    config: SNNConfig, variables: Any, *, key: Key, attn_kind: str = "interleaved",
    window: int = 4096, half_lives: tuple[float, float] = (16.0, 4096.0),
) -> tuple[SNNConfig, dict[str, Any]]:
    """Turns the softmax layers of a model into linear and sliding-window ones.

    Every weight stays but norms of queries and keys, in linear layers. A linear layer reads ReLU
    features of queries and keys, without positions, and normalises each head; its state forgets by
    a low-rank gate, whose channels start at half-lives log-spaced over ``half_lives``:

        decay = sigmoid(gate(x) + b)^(1/16),   b = logit(2^(-16 / half-life)),   gate(x) near 0

    A sliding layer is the old one where the text is no longer than its window. Linear layers have
    to be trained; ``attn_kind="sliding"`` needs nothing.

    Args:
      config, variables: of a model with ``attn_kind="softmax"``.
      key: draws the gate's weights.
      attn_kind: "interleaved" (linear and sliding in turn, SpikingBrain-7B), "linear", "sliding".
      window: W, keys that a sliding layer sees.
      half_lives: of the channels of a state in tokens, shortest and longest.
    Returns:
      The configuration and variables of the new model.
    Raises:
      ValueError: for a configuration without softmax attention or with neurons that learn,
        variables that are not its own, or an option out of range.

    SpikingBrain, sections 3.1 and 3.2, arXiv:2509.05276.

    >>> from fastsnn_jax import build_model_from_config
    >>> config = SNNConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=2, d_ff=12, ffn="gated",
    ...                    attn_kind="softmax", spiking=False)
    >>> tokens = jnp.zeros((1, 1), int)
    >>> variables = build_model_from_config(config).init(jax.random.key(0), tokens)
    >>> config, variables = hybridize(config, variables, key=jax.random.key(1))
    >>> config.attn_kind, sorted(variables["params"]["blocks_0"]["attention"])[:3]
    ('interleaved', ['gate_bias', 'gate_down', 'gate_up'])
    """
    where = "hybridize"
    check(config.attn_kind == "softmax", where, "config must have attn_kind 'softmax'",
          repr(config.attn_kind))
    check_choice(where, "attn_kind", attn_kind, KINDS)
    check_count(where, "window", window)
    for half_life in half_lives:
        check_number(where, "half_lives", half_life, above=0.1, at_most=1e9)
    check(len(half_lives) == 2 and half_lives[0] <= half_lives[1], where,
          "half_lives must be the shortest and the longest", half_lives)
    old = named_parameters(variables)
    shapes = {path: leaf.shape for path, leaf in old.items()}
    check(shapes == expected_parameters(config), where,
          "variables must be those of config", shown([*shapes]))
    config = dataclasses.replace(
        config, attn_kind=attn_kind, window=window, window_inclusive=False, feature_map="relu",
        gate="decay", normalizer="rms",
    )
    expected = expected_parameters(config)
    dtype = old["embed/embedding"].dtype
    params = {
        path: old[path] if path in old else
        _fresh(config, path, shape, jax.random.fold_in(key, i), half_lives).astype(dtype)
        for i, (path, shape) in enumerate(expected.items())
    }
    lost = [path for path in old.keys() - params.keys() if not path.endswith(_LEFT_BEHIND)]
    assert not lost, lost
    return config, nested(params)


def _fresh(
    config: SNNConfig, path: str, shape: tuple[int, ...], key: Key,
    half_lives: tuple[float, float],
) -> jax.Array:
    """First values of a parameter that softmax attention has not."""
    if path.endswith("gate_bias"):
        return half_life_bias(config.kv_heads, config.size_of_head, half_lives)
    if path.endswith("head_norm/scale"):
        return jnp.ones(shape)
    check(path.endswith(_GATE), "hybridize", "config must be without neurons that learn", path)
    return GATE_GAIN * jax.nn.initializers.glorot_uniform()(key, shape)

"""Parameters of a language model by path, ``blocks_0/ffn/up/kernel``."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax.config import SNNConfig
from fastsnn_jax.models import build_model_from_config


def expected_parameters(config: SNNConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a configuration's model."""
    return dict(_shapes(config))


@lru_cache(maxsize=16)  # every load and save asks
def _shapes(config: SNNConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    model = build_model_from_config(config)
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    return tuple((path, leaf.shape) for path, leaf in named_parameters(variables).items())


def named_parameters(variables: Any) -> dict[str, Any]:
    """The leaves of ``variables["params"]``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
    return {"/".join(key.key for key in keys): leaf for keys, leaf in leaves}


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the named parameters: ``named_parameters`` back."""
    tree: dict[str, Any] = {}
    for path, leaf in params.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return {"params": tree}

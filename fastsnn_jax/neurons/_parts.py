"""What every neuron does the same way: learnable constants and the check of a current."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import (
    check,
    check_count,
    check_finite,
    check_floating,
    check_number,
)
from fastsnn_jax._typing import Array, Params


def check_decay(where: str, name: str, value: Any) -> None:
    """Raises unless ``value`` is a number in (0, 1]."""
    check_number(where, name, value, above=0.0, at_most=1.0)


def check_learn(neuron: Any, where: str, names: Sequence[str]) -> None:
    """Raises unless ``neuron.learn`` is a tuple of ``names`` without repeats, each learnable."""
    learn = neuron.learn
    if not isinstance(learn, tuple):
        raise TypeError(f"{where}: learn must be a tuple of names, got {learn!r}")
    known = set(learn) <= set(names) and len(set(learn)) == len(learn)
    check(known, where, f"learn must be a subset of {tuple(names)}", learn)
    for name in learn:
        if name.endswith("decay"):
            check(
                getattr(neuron, name) < 1, where, f"{name} must be < 1 to be learnable",
                getattr(neuron, name), "start at 0.99, or leave it out of learn",
            )


def init_learnable(neuron: Any, shape: Sequence[int]) -> dict[str, Array]:
    """Returns one leaf of ``shape`` per name in ``neuron.learn``, at the neuron's own constants.

    A decay is kept as its logit and a threshold as its logarithm, so that no step of an
    optimiser takes them out of (0, 1] or (0, inf).
    """
    for size in shape:
        check_count(type(neuron).__name__, "every size in shape", size)
    params = {}
    for name in neuron.learn:
        value = getattr(neuron, name)
        free = math.log(value / (1 - value)) if name.endswith("decay") else math.log(value)
        params[_leaf(name)] = jnp.full(tuple(shape), free, jnp.float32)
    return params


def constant(neuron: Any, params: Params, name: str, dtype: Any) -> float | Array:
    """Returns the neuron's own float, or the learned array ``[*N]`` in ``dtype``."""
    if name not in neuron.learn:
        return getattr(neuron, name)
    free = params[_leaf(name)]
    value = jax.nn.sigmoid(free) if name.endswith("decay") else jnp.exp(free)
    return value.astype(dtype)


def gain(input_gain: float | str, decay: float | Array) -> float | Array:
    """Returns the factor of the current, for ``"1-decay"`` the one of a moving average."""
    return 1 - decay if isinstance(input_gain, str) else input_gain


def zeros(where: str, shape: Sequence[int], dtype: Any) -> Array:
    """Returns a membrane at rest; TypeError unless ``dtype`` is floating."""
    check_floating(where, "the state", jax.ShapeDtypeStruct((), dtype))
    return jnp.zeros(tuple(shape), dtype)


def check_current(where: str, params: Params, v: Array, current: Array) -> None:
    """Raises unless ``current`` is floating, shaped as ``v``, and finite, as are ``params``."""
    check_floating(where, "current", current)
    check(
        jnp.shape(current) == jnp.shape(v), where,
        f"current of one step must have the state's shape {jnp.shape(v)}", jnp.shape(current),
        "unroll takes currents [T, ...]; rest(shape) takes their shape without T",
    )
    check_all_finite(where, params, current)


def check_all_finite(where: str, params: Params, current: Array) -> None:
    """Raises ValueError for NaN or infinity: a neuron would be silent rather than say so.

    Traced values pass. In a layer a current is what its input and its weights make of each other.
    """
    check_finite(where, "current", current, "look into the input and the weights before it")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        check_finite(where, f"params{jax.tree_util.keystr(path)}", leaf)


def _leaf(name: str) -> str:
    return f"{name}_logit" if name.endswith("decay") else f"log_{name}"

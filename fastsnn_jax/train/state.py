"""What a training run carries on the device from one step to the next."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastsnn_jax._checks import check, fail
from fastsnn_jax._typing import Array, Key, Params


class TrainState(NamedTuple):
    """Everything a step reads and writes.

    Attributes:
      step: number of updates done, int32.
      params: the learnable pytree.
      opt_state: state of the optax transformation.
      average: exponential moving average of ``params``, or None when none is kept.
      key: data (uint32) of the run's key; step ``i`` draws from ``fold_in(key, i)`` alone.
      rate_scale: factor on every update, float32; 1 until a plateau rule lowers it.
    """

    step: Array
    params: Params
    opt_state: Any
    average: Params | None
    key: Array
    rate_scale: Array


def init_state(
    params: Params, tx: optax.GradientTransformation, key: Key, ema: bool = False
) -> TrainState:
    """State before the first step; ``ema=True`` also keeps an average of the parameters.

    Raises:
      ValueError: if a floating parameter is not finite.

    >>> import jax, optax
    >>> init_state({"w": jnp.ones(3)}, optax.sgd(0.1), jax.random.key(0)).step
    Array(0, dtype=int32)
    """
    if not finite(params):
        raise fail("init_state", "parameters must be finite", "NaN or infinity")
    params = jax.tree.map(jnp.asarray, params)
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(
        step=jnp.int32(0), params=params, opt_state=tx.init(params), average=average,
        key=jax.random.key_data(key), rate_scale=jnp.float32(1.0),
    )


def eval_params(state: TrainState) -> Params:
    """Parameters to evaluate and deploy: the average where one is kept, else the last ones."""
    return state.params if state.average is None else state.average


def check_learnable(where: str, variables: Any) -> None:
    """Raises ValueError if a model's variables hold more than params: nothing would update it."""
    if isinstance(variables, Mapping) and "params" in variables:
        extra = sorted(set(variables) - {"params"})
        check(not extra, where, "the model's only collection must be params", extra)


def finite(tree: Any) -> bool:
    """True when every floating leaf of ``tree`` is free of NaN and infinity."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return all(
        np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)
    )

"""One update of the parameters, as a pure function."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fastsnn_jax._checks import check, check_count, check_number
from fastsnn_jax._typing import Array, Key, Params
from fastsnn_jax.train.state import TrainState

Metrics: TypeAlias = dict[str, Any]
"""Sums over a batch, int32 or float32: ``samples``, ``correct`` and whatever else is counted."""
LossFn: TypeAlias = Callable[[Params, Any, Key], tuple[Array, Metrics]]
TrainStep: TypeAlias = Callable[[TrainState, Any], tuple[TrainState, tuple[Array, Metrics]]]


def make_train_step(
    loss_fn: LossFn, tx: optax.GradientTransformation, *, ema_decay: float | None = None,
    accumulate: int = 1,
) -> TrainStep:
    """Returns ``step(state, batch) -> (state, (loss, metrics))``.

        key[i] = fold_in(state.key, i);  loss, metrics = loss_fn(params, batch, key[i])
        params <- params + rate_scale * tx(gradient)
        average <- d * average + (1 - d) * params,  d = min(ema_decay, (1 + i) / (10 + i))

    The growing ``d`` lets the average forget the first, untrained parameters.

    With ``accumulate`` n the batch is worked off in n parts, one after the other, so that it needs
    the memory of one part. Loss and gradient are the means over the parts, which for a mean loss
    are those of the whole batch; metrics add up. Part ``j`` draws from ``fold_in(key[i], j)``.

    Args:
      loss_fn: ``(params, batch, key) -> (scalar loss, metrics)``. The metrics are sums over the
        batch, never means: then they add up exactly over batches, devices and epochs. They hold
        ``samples`` (what the loss is averaged over) and ``correct``; count spikes as int32.
      tx: optax transformation; learning-rate schedules live there.
      ema_decay: decay of the average in (0, 1); needs ``init_state(..., ema=True)``.
      accumulate: n; it divides the leading axis of every leaf of the batch.
    Raises:
      ValueError, TypeError: at trace time, for a metric that is not an int32 or float32 sum, a
        missing key, a batch that cannot be split, or an average that the state does not keep.

    >>> import optax
    >>> def loss_fn(params, batch, key):
    ...     return (params - batch.mean()) ** 2, {"samples": jnp.int32(2), "correct": jnp.int32(0)}
    >>> from fastsnn_jax.train.state import init_state
    >>> state = init_state(jnp.float32(1.0), optax.sgd(0.25), jax.random.key(0))
    >>> state, (loss, metrics) = make_train_step(loss_fn, optax.sgd(0.25))(state, jnp.zeros(2))
    >>> float(state.params), float(loss)
    (0.5, 1.0)
    """
    if ema_decay is not None:
        check_number("make_train_step", "ema_decay", ema_decay, above=0.0, at_most=1.0 - 1e-9)
    check_count("make_train_step", "accumulate", accumulate)
    differentiate = _differentiate(loss_fn)
    if accumulate > 1:
        differentiate = _in_parts(differentiate, accumulate)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, tuple[Array, Metrics]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (loss, metrics), gradient = differentiate(state.params, batch, key)
        # A spike is 0 or 1 whatever its membrane: NaN in the parameters need not reach the loss.
        loss = jnp.where(jnp.isfinite(optax.tree.norm(gradient)), loss, jnp.nan)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: u * state.rate_scale.astype(u.dtype), updates)
        params = optax.apply_updates(state.params, updates)
        state = state._replace(
            step=state.step + 1, params=params, opt_state=opt_state,
            average=_average(state, params, ema_decay),
        )
        return state, (loss, metrics)

    return step


def _differentiate(loss_fn: LossFn) -> Callable[..., tuple[tuple[Array, Metrics], Params]]:
    def differentiate(params, batch, key):
        (loss, metrics), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, key)
        _check_outputs(loss, metrics)
        return (loss, metrics), gradient

    return differentiate


def _in_parts(differentiate, count: int):
    """``differentiate`` over ``count`` parts of the batch: mean loss and gradient, summed metrics.

    Part j holds the rows j, count + j, ...: split over devices, every device has rows of each part.
    """

    def split(leaf):
        check(jnp.ndim(leaf) > 0 and leaf.shape[0] % count == 0, "make_train_step",
              f"accumulate={count} must divide the leading axis of the batch", jnp.shape(leaf))
        return jnp.swapaxes(leaf.reshape(-1, count, *leaf.shape[1:]), 0, 1)

    def in_parts(params, batch, key):
        def body(total, numbered):
            number, part = numbered
            outputs, gradient = differentiate(params, part, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, total, gradient), outputs

        zeros = jax.tree.map(jnp.zeros_like, params)
        parts = jnp.arange(count), jax.tree.map(split, batch)
        total, (losses, metrics) = lax.scan(body, zeros, parts)
        metrics = jax.tree.map(lambda rows: rows.sum(0, dtype=rows.dtype), metrics)
        return (losses.mean(), metrics), jax.tree.map(lambda leaf: leaf / count, total)

    return in_parts


def _average(state: TrainState, params: Params, ema_decay: float | None) -> Params | None:
    check((ema_decay is None) == (state.average is None), "make_train_step",
          "ema_decay and init_state(ema=True) go together",
          f"ema_decay={ema_decay} and ema={state.average is not None}")
    if ema_decay is None:
        return None
    decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(
        lambda old, new: old + (1.0 - decay).astype(new.dtype) * (new - old), state.average, params
    )


def _check_outputs(loss: Array, metrics: Metrics) -> None:
    where = "make_train_step"
    check(jnp.shape(loss) == (), where, "loss_fn must return a scalar loss", jnp.shape(loss))
    check(isinstance(metrics, dict) and {"samples", "correct"} <= metrics.keys(), where,
          "loss_fn must return metrics with keys samples and correct", metrics)
    for path, leaf in jax.tree_util.tree_leaves_with_path(metrics):
        check(jnp.result_type(leaf) in (jnp.int32, jnp.float32), where,
              f"metric {jax.tree_util.keystr(path)} must be an int32 or float32 sum",
              jnp.result_type(leaf))

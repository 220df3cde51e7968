"""What training minimises: classification and the price of spikes."""

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_count, check_floating, check_number
from fastsnn_jax._typing import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "*B K"], labels: Int[Array, "*B"], smoothing: float = 0.0
) -> Float[Array, "*B"]:
    """Cross-entropy of each sample, in nats, with smoothed labels.

        loss = -sum_k q[k] log softmax(logits)[k],  q = (1 - smoothing) onehot + smoothing / K

    Computed in float32. A label outside 0..K-1 gives NaN.

    Args:
      smoothing: share of the target spread evenly over the classes, in [0, 1).
    Raises:
      ValueError, TypeError: if shapes or dtypes do not fit or ``smoothing`` is out of range.
    Reference: Szegedy et al. 2016, arXiv:1512.00567, section 7.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))
    Array([1.3862944], dtype=float32)
    """
    where = "cross_entropy"
    check_number(where, "smoothing", smoothing, at_least=0.0)
    check(smoothing < 1.0, where, "smoothing must be < 1", smoothing)
    check_floating(where, "logits", logits)
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f"{where}: labels must be integers, got dtype {jnp.result_type(labels)}")
    check(jnp.shape(logits)[:-1] == jnp.shape(labels) and jnp.ndim(logits) > 0, where,
          "labels must have the shape of logits without the last axis",
          f"logits {jnp.shape(logits)} and labels {jnp.shape(labels)}")
    log_share = jax.nn.log_softmax(logits.astype(jnp.float32))
    # Under `fill` an index below zero would count from the end.
    index = jnp.where(labels < 0, logits.shape[-1], labels)[..., None]
    chosen = jnp.take_along_axis(log_share, index, axis=-1, mode="fill")[..., 0]
    return -(1.0 - smoothing) * chosen - smoothing * log_share.mean(-1)


def rate_penalty(
    counts: Float[Array, "..."], num_steps: int, target: float = 0.0
) -> Float[Array, ""]:
    """Mean firing rate above ``target``: a constant price on every spike too many.

        penalty = mean(max(counts / num_steps - target, 0))

    With ``target`` 0 it is proportional to the number of spikes, so a weight on it buys events.

    Args:
      counts: spikes over all steps, of any shape; floating, so that gradients flow.
      num_steps: T.
      target: rate in spikes per step that is free, in [0, 1].
    Raises:
      ValueError, TypeError: if a number is out of range or the counts are not floating.

    >>> rate_penalty(jnp.array([0.0, 8.0]), num_steps=16, target=0.25)
    Array(0.125, dtype=float32)
    """
    check_floating("rate_penalty", "counts", counts)
    check_count("rate_penalty", "num_steps", num_steps)
    check_number("rate_penalty", "target", target, at_least=0.0, at_most=1.0)
    return jnp.maximum(counts / num_steps - target, 0.0).mean()

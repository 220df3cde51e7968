"""Synaptic operations and energy as something to minimise: gradients flow through the surrogate."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_number
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.activity import TokenSpikes


def synaptic_operations(
    activity: Mapping[str, Any], fan_outs: Mapping[str, Any]
) -> Float[Array, ""]:
    """Synaptic operations of one inference (or token), the mean over the batch.

        operations = mean over b of sum over synapses, i of events[b, i] * fan_out[i]

    Of `TokenSpikes`, whose counts carry no gradient, ``log_counts`` stands for the spikes: at least
    the bit planes of every channel, equal to them for counts 2^n - 1.

    Args:
      activity: what a model returned beside its logits.
      fan_outs: synapses leaving each neuron, ``[*N]`` or one for all, by key of ``activity``;
        keys that are left out are free.
    Raises:
      ValueError: if a key is not in ``activity`` or a fan-out has not the neurons' shape.

    >>> from fastsnn_jax.activity import SpikeCount
    >>> count = SpikeCount(jnp.array([[2., 1.]]), jnp.array([2]), jnp.array([0]))
    >>> synaptic_operations({"dense0/kernel": count}, {"dense0/kernel": np.array([3, 4])})
    Array(10., dtype=float32)
    """
    return _weighed(activity, fan_outs, 1.0, 0.0)


def energy_pj(
    activity: Mapping[str, Any], fan_outs: Mapping[str, Any], *, per_operation_pj: float,
    per_event_pj: float = 0.0,
) -> Float[Array, ""]:
    """What spikes cost in one inference (or token), in pJ: their operations and their routes.

        energy = operations * per_operation_pj + events * per_event_pj

    What an inference costs without a spike (updates of neurons, norms) is no one's to minimise here
    and left out. Arguments and errors as in `synaptic_operations`; the prices must be >= 0.

    >>> from fastsnn_jax.activity import SpikeCount
    >>> count = SpikeCount(jnp.array([[2., 1.]]), jnp.array([2]), jnp.array([0]))
    >>> energy_pj({"a": count}, {"a": 4}, per_operation_pj=0.5, per_event_pj=2.0)
    Array(12., dtype=float32)
    """
    check_number("energy_pj", "per_operation_pj", per_operation_pj, at_least=0)
    check_number("energy_pj", "per_event_pj", per_event_pj, at_least=0)
    return _weighed(activity, fan_outs, per_operation_pj, per_event_pj)


def above_target(value: Float[Array, ""], target: float, unit: float) -> Float[Array, ""]:
    """The part of ``value`` above ``target``, in multiples of ``unit``: a loss to be weighed.

        loss = max(value - target, 0) / unit

    With operations and the network's connections as the unit this is spikes per synapse.

    >>> above_target(jnp.float32(30.0), target=10.0, unit=40.0)
    Array(0.5, dtype=float32)
    """
    check_number("above_target", "target", target, at_least=0)
    check_number("above_target", "unit", unit, above=0)
    return jnp.maximum(value - target, 0.0) / unit


def _weighed(
    activity: Mapping[str, Any], fan_outs: Mapping[str, Any], operation: float, event: float
) -> Float[Array, ""]:
    where = "synaptic_operations"
    missing = [key for key in fan_outs if key not in activity]
    check(not missing, where, "fan_outs must name synapses of activity", missing)
    total = jnp.float32(0.0)
    for key, fan_out in fan_outs.items():
        count = activity[key]
        price = jnp.asarray(np.asarray(fan_out) * operation + event, jnp.float32)
        if isinstance(count, TokenSpikes):
            check(price.ndim == 0, where, f"the fan-out of {key} must be one number",
                  price.shape, "tokens are counted over their channels")
            total += jnp.mean(count.log_counts) * price
        else:
            check(price.ndim == 0 or price.shape == count.events.shape[1:], where,
                  f"the fan-outs of {key} must have the neurons' shape {count.events.shape[1:]}",
                  price.shape)
            total += jnp.sum(count.events * price) / len(count.events)
    return total

"""The table of every neuron that the laws run over, and what their tests share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax.neurons import (
    adaptive_lif,
    current_lif,
    integrate_and_fire,
    leaky_integrator,
    lif,
    lif_preset,
    recurrent,
)
from fastsnn_jax.surrogate import arctan, straight_through

T, B, N = 5, 2, 3


class Row(NamedTuple):
    """A neuron and the predicates that say which laws hold for it."""

    neuron: Any
    spiking: bool = True
    integrates: bool = False  # decay 1, subtract reset at once: counts what it is given
    flat: bool = False  # only for shapes [B, N]


NEURONS = {
    "lif": Row(lif()),
    "lif_zero": Row(lif(0.875, reset="zero", surrogate=straight_through())),
    "lif_zero_detached": Row(lif(0.875, 0.5, reset="zero", detach_reset=True)),
    "lif_none": Row(lif(0.875, reset="none", surrogate=arctan(ties="hold"))),
    "lif_gain": Row(lif(0.5, 0.25, input_gain="1-decay", detach_reset=True)),
    "lif_learned": Row(lif(learn=("decay", "threshold"))),
    "lif_gain_learned": Row(lif(0.5, 0.75, input_gain="1-decay", learn=("threshold", "decay"))),
    "lif_late_zero": Row(lif(0.875, reset="zero", reset_delay=True, learn=("threshold",))),
    "integrate_and_fire": Row(integrate_and_fire(0.75), integrates=True),
    "notebook": Row(lif_preset("notebook")),
    "snntorch": Row(lif_preset("snntorch")),
    "spikingjelly": Row(lif_preset("spikingjelly")),
    "norse_box": Row(lif_preset("norse_box", threshold=0.125)),
    "spyx": Row(lif_preset("spyx", learn=("decay",))),
    "adaptive_lif": Row(adaptive_lif(learn=("decay", "threshold"))),
    "adaptive_lif_0": Row(adaptive_lif(1.0, 0.5, adaptation=0.0), integrates=True),
    "current_lif": Row(current_lif(learn=("synapse_decay", "threshold"))),
    "current_lif_late": Row(current_lif(0.5, 0.875, reset_delay=True, learn=("decay",))),
    "leaky_integrator": Row(leaky_integrator(learn=("decay",)), spiking=False),
    "moving_average": Row(leaky_integrator(0.75, input_gain="1-decay"), spiking=False),
    "recurrent_lif": Row(recurrent(lif(learn=("decay",))), flat=True),
    "recurrent_current_lif": Row(recurrent(current_lif(), scale=0.5), flat=True),
    "recurrent_unwired": Row(
        recurrent(integrate_and_fire(), scale=0.0), integrates=True, flat=True
    ),
}


def currents(shape=(T, B, N), seed=0, dtype=jnp.float32):
    """Random currents that let most neurons of the table fire now and then."""
    normal = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray((0.5 + 0.8 * normal).astype(dtype))


def started(neuron, shape=(B, N), dtype=jnp.float32):
    """Returns params and a state away from rest."""
    params = neuron.init(jax.random.key(1), shape[1:])
    rest = jax.eval_shape(lambda: neuron.rest(shape, dtype))
    random = np.random.default_rng(2)
    return params, jax.tree.map(
        lambda leaf: jnp.asarray((0.25 * random.random(leaf.shape)).astype(leaf.dtype)), rest
    )


def membrane_at(state, value):
    """Returns ``state`` with its membrane, wherever it is nested, set to ``value``."""
    if "v" in state._fields:
        return state._replace(v=jnp.full_like(state.v, value))
    return state._replace(neuron=membrane_at(state.neuron, value))


def assert_trees_equal(actual, expected):
    """Asserts the same structure, dtypes and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_trees_close(actual, expected, tolerance=1e-5):
    """Asserts the same structure and dtypes, and values within ``tolerance`` of the largest."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()))

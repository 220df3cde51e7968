"""The time loop over any step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.unroll import unroll


def weighted_sum(params, state, x):
    total = state + params * x["current"]
    return total, (total, x["label"])


INPUTS = {"current": jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "label": jnp.arange(3)}


def test_unroll_walks_axis_0_of_every_leaf():
    state, (totals, labels) = unroll(weighted_sum, 2.0, jnp.zeros(2), INPUTS)
    np.testing.assert_array_equal(totals, [[2, 4], [8, 12], [18, 24]])
    np.testing.assert_array_equal(state, [18, 24])
    np.testing.assert_array_equal(labels, [0, 1, 2])


def test_rematerialising_changes_what_is_stored_and_no_value():
    def square(params, state, x):
        return jnp.sin(params * state + x), state

    def loss(params, remat):
        state, outputs = unroll(square, params, jnp.ones(2), INPUTS["current"], remat=remat)
        return jnp.sum(outputs) + jnp.sum(state)

    def stored(remat):
        _, pull = jax.vjp(lambda params: loss(params, remat), 0.5)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    np.testing.assert_allclose(jax.grad(loss)(0.5, True), jax.grad(loss)(0.5, False), rtol=1e-6)
    assert loss(0.5, True) == loss(0.5, False)
    assert stored(True) < stored(False)


@pytest.mark.parametrize(
    "inputs, message",
    [
        (jnp.float32(1), r"every input needs T as its axis 0, got shape \(\)"),
        ({"current": jnp.ones(3), "label": jnp.ones(4)}, r"agree on T.*\[3, 4\]"),
        (jnp.ones((0, 2)), "at least one time step"),
        ({}, "at least one array"),
    ],
)
def test_inputs_without_a_common_time_axis_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        unroll(lambda params, state, x: (state, x), None, 0.0, inputs)

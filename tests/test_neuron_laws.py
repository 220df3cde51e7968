"""Laws that every neuron of ``helpers.NEURONS`` obeys."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    NEURONS,
    B,
    N,
    T,
    assert_trees_close,
    assert_trees_equal,
    currents,
    membrane_at,
    started,
)

from fastsnn_jax.unroll import unroll


def rows(predicate=lambda row: True):
    chosen = [pytest.param(row, id=name) for name, row in NEURONS.items() if predicate(row)]
    assert chosen
    return pytest.mark.parametrize("row", chosen)


@rows()
def test_resuming_from_the_carry_equals_one_run(row):
    params, state = started(row.neuron)
    x = currents()
    last, outputs = row.neuron.unroll(params, state, x)
    half, first = row.neuron.unroll(params, state, x[:2])
    end, second = row.neuron.unroll(params, half, x[2:])
    assert_trees_close((end, jnp.concatenate([first, second])), (last, outputs), 1e-6)


@rows()
def test_zero_current_stays_at_rest(row):
    params = row.neuron.init(jax.random.key(0), (N,))
    rest = row.neuron.rest((B, N))
    assert_trees_equal(
        row.neuron.unroll(params, rest, jnp.zeros((T, B, N))), (rest, jnp.zeros((T, B, N)))
    )


@rows(lambda row: row.integrates)
def test_an_integrator_counts_what_it_is_given(row):
    inner = getattr(row.neuron, "neuron", getattr(row.neuron, "membrane", row.neuron))
    threshold, steps, levels = inner.threshold, 13, 17
    current = jnp.arange(levels) * (threshold / (levels - 1))  # dyadic, up to the threshold
    params = row.neuron.init(jax.random.key(0), (levels,))
    state = membrane_at(row.neuron.rest((1, levels)), threshold / 2)
    _, spikes = row.neuron.unroll(params, state, jnp.tile(current, (steps, 1, 1)))
    expected = [math.floor(steps * level / (levels - 1) + 0.5) for level in range(levels)]
    np.testing.assert_array_equal(spikes.sum((0, 1)), expected)


@rows()
def test_jit_equals_no_jit(row):
    params, state = started(row.neuron)
    compiled = jax.jit(row.neuron.unroll)(params, state, currents())
    with jax.disable_jit():
        plain = row.neuron.unroll(params, state, currents())
    assert_trees_close(compiled, plain, 1e-6)


@rows()
def test_vmap_equals_a_loop(row):
    params, state = started(row.neuron)
    x = currents((4, T, B, N))
    together = jax.vmap(row.neuron.unroll, (None, None, 0))(params, state, x)
    one_by_one = [row.neuron.unroll(params, state, x[i]) for i in range(4)]
    assert_trees_close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one), 1e-6)


@rows(lambda row: row.spiking)
def test_spikes_are_zero_or_one_and_both_occur(row):
    params, state = started(row.neuron)
    _, spikes = row.neuron.unroll(params, state, currents((40, B, N)))
    assert set(np.unique(spikes)) == {0.0, 1.0}


@rows()
@pytest.mark.parametrize("kept", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_state_keeps_its_dtype_and_spikes_come_in_the_currents(row, kept):
    params = row.neuron.init(jax.random.key(0), (N,))
    rest = row.neuron.rest((B, N), kept)
    state, outputs = row.neuron.unroll(params, rest, currents(dtype=jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(kept)}


@rows()
def test_unroll_is_the_plain_loop_in_values_and_gradients(row):
    params, state = started(row.neuron)
    weights = jax.random.normal(jax.random.key(3), (T, B, N))

    def run(loop):
        def loss(params, state, x):
            last, outputs = loop(params, state, x)
            final = sum(jnp.sum(leaf * weights[0]) for leaf in jax.tree.leaves(last))
            return jnp.sum(outputs * weights) + final, (last, outputs)

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, state, currents())

    plain = run(lambda params, state, x: unroll(row.neuron.step, params, state, x))
    assert_trees_close(run(row.neuron.unroll), plain)


@rows()
def test_gradients_are_finite_and_reach_parameters_and_currents(row):
    params, state = started(row.neuron)

    def loss(params, x):
        last, outputs = row.neuron.unroll(params, state, x)
        return jnp.sum(outputs * jnp.arange(1.0, T + 1)[:, None, None]) + sum(
            jnp.sum(leaf) for leaf in jax.tree.leaves(last)
        )

    gradients = jax.grad(loss, argnums=(0, 1))(params, currents())
    for gradient in jax.tree.leaves(gradients):
        assert jnp.isfinite(gradient).all()
        assert (gradient != 0).any()


@rows(lambda row: not row.flat)
def test_a_feature_map_is_its_flattened_neurons(row):
    shape = (B, 2, 4, 3)
    params, state = started(row.neuron, shape)
    x = currents((T, *shape))

    def flat(lead):
        return lambda leaf: leaf.reshape(*lead, -1)

    last, outputs = row.neuron.unroll(params, state, x)
    flat_params, flat_state = jax.tree.map(flat(()), params), jax.tree.map(flat((B,)), state)
    assert_trees_close(
        (jax.tree.map(flat((B,)), last), outputs.reshape(T, B, -1)),
        row.neuron.unroll(flat_params, flat_state, x.reshape(T, B, -1)), 1e-6,
    )


@rows()
def test_neurons_hash_and_are_static_arguments(row):
    @jax.jit
    def rest_of(x):
        return row.neuron.rest(x.shape)

    step = jax.jit(lambda neuron, *args: neuron.step(*args), static_argnums=0)
    params, state = started(row.neuron)
    assert_trees_close(
        step(row.neuron, params, state, currents()[0]),
        row.neuron.step(params, state, currents()[0]), 1e-6,
    )
    assert hash(row.neuron) == hash(type(row.neuron)(**vars(row.neuron)))
    assert row.neuron == type(row.neuron)(**vars(row.neuron))
    assert_trees_equal(rest_of(currents()[0]), row.neuron.rest((B, N)))


@rows()
def test_a_current_of_another_shape_or_dtype_is_refused(row):
    params, rest = row.neuron.init(jax.random.key(0), (N,)), row.neuron.rest((B, N))
    for run, shape in ((row.neuron.step, (B, N)), (row.neuron.unroll, (T, B, N))):
        with pytest.raises(TypeError, match="must be floating, got dtype int32"):
            run(params, rest, jnp.ones(shape, jnp.int32))
        with pytest.raises(ValueError, match="shape"):
            run(params, rest, jnp.ones((*shape, 1)))
        with pytest.raises(ValueError, match="shape"):
            run(params, rest, jnp.ones((*shape[:-1], N + 1)))


@rows()
def test_no_time_step_is_refused(row):
    params, rest = row.neuron.init(jax.random.key(0), (N,)), row.neuron.rest((B, N))
    with pytest.raises(ValueError, match="T >= 1|at least one time step"):
        row.neuron.unroll(params, rest, jnp.zeros((0, B, N)))


@rows()
def test_a_state_that_is_not_floating_is_refused(row):
    with pytest.raises(TypeError, match="the state must be floating"):
        row.neuron.rest((B, N), jnp.int32)

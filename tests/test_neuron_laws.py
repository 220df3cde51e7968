"""Laws that every neuron of ``helpers.NEURONS`` obeys."""

import math
from functools import cache, partial

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

VARIANTS = {  # of rows that every law runs on in the fast tier
    "lif_zero_detached", "lif_gain", "lif_gain_learned", "adaptive_lif_0", "current_lif_late",
    "moving_average", "recurrent_current_lif", "recurrent_unwired",
}

def rows(predicate=lambda row: True):
    chosen = [
        pytest.param(row, id=name, marks=pytest.mark.slow if name in VARIANTS else ())
        for name, row in NEURONS.items() if predicate(row)
    ]
    assert chosen
    return pytest.mark.parametrize("row", chosen)


@partial(jax.jit, static_argnums=0)
def unrolled(neuron, params, state, x):
    return neuron.unroll(params, state, x)


@cache
def runs(neuron):
    """Runs of two inputs that the laws compare, by name, in one program."""

    @jax.jit
    def all_runs(params, state, x):
        run = partial(neuron.unroll, params)
        half, first = run(state, x[0, :2])
        end, second = run(half, x[0, 2:])
        return {
            "halves": (end, jnp.concatenate([first, second])),
            "silence": run(neuron.rest((B, N)), jnp.zeros((T, B, N))),
            "mapped": jax.vmap(run, (None, 0))(state, x),
            "one by one": [run(state, one) for one in x],
        }

    return all_runs(*started(neuron), currents((2, T, B, N)))


@rows()
def test_resuming_from_the_carry_equals_one_run(row):
    assert_trees_close(runs(row.neuron)["halves"], runs(row.neuron)["one by one"][0], 1e-6)


@rows()
def test_zero_current_stays_at_rest(row):
    rest = row.neuron.rest((B, N))
    assert_trees_equal(runs(row.neuron)["silence"], (rest, np.zeros((T, B, N), np.float32)))


@rows(lambda row: row.integrates)
def test_an_integrator_counts_what_it_is_given(row):
    inner = getattr(row.neuron, "neuron", getattr(row.neuron, "membrane", row.neuron))
    threshold, steps, levels = inner.threshold, 13, 17
    current = np.arange(levels, dtype=np.float32) * (threshold / (levels - 1))  # dyadic, up to it
    params = row.neuron.init(jax.random.key(0), (levels,))
    state = membrane_at(row.neuron.rest((1, levels)), threshold / 2)
    _, spikes = unrolled(row.neuron, params, state, np.tile(current, (steps, 1, 1)))
    expected = [math.floor(steps * level / (levels - 1) + 0.5) for level in range(levels)]
    np.testing.assert_array_equal(np.asarray(spikes).sum((0, 1)), expected)


@rows()
def test_jit_equals_no_jit(row):
    params, state = started(row.neuron)
    with jax.disable_jit():
        plain = row.neuron.unroll(params, state, currents((2, T, B, N))[0])
    assert_trees_close(runs(row.neuron)["one by one"][0], plain, 1e-6)


@rows()
def test_vmap_equals_a_loop(row):
    one_by_one = jax.tree.map(lambda *leaves: np.stack(leaves), *runs(row.neuron)["one by one"])
    assert_trees_close(runs(row.neuron)["mapped"], one_by_one, 1e-6)


@rows(lambda row: row.spiking)
def test_spikes_are_zero_or_one_and_both_occur(row):
    _, spikes = runs(row.neuron)["mapped"]
    assert set(np.unique(spikes)) == {0.0, 1.0}


@rows()
@pytest.mark.parametrize("kept", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_state_keeps_its_dtype_and_spikes_come_in_the_currents(row, kept):
    params = row.neuron.init(jax.random.key(0), (N,))
    rest = row.neuron.rest((B, N), kept)
    state, outputs = jax.eval_shape(row.neuron.unroll, params, rest, currents(dtype=jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(kept)}


@rows()
def test_unroll_is_the_plain_loop_in_values_and_gradients(row):
    weights = np.random.default_rng(3).normal(size=(T, B, N)).astype(np.float32)

    def run(loop, *arguments):
        def loss(params, state, x):
            last, outputs = loop(params, state, x)
            final = sum(jnp.sum(leaf * weights[0]) for leaf in jax.tree.leaves(last))
            return jnp.sum(outputs * weights) + final, (last, outputs)

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*arguments)

    @jax.jit
    def both(*arguments):
        plain = partial(unroll, row.neuron.step)
        return run(row.neuron.unroll, *arguments), run(plain, *arguments)

    assert_trees_close(*both(*started(row.neuron), currents()))


@rows()
def test_gradients_are_finite_and_reach_parameters_and_currents(row):
    params, state = started(row.neuron)

    def loss(params, x):
        last, outputs = row.neuron.unroll(params, state, x)
        return jnp.sum(outputs * jnp.arange(1.0, T + 1)[:, None, None]) + sum(
            jnp.sum(leaf) for leaf in jax.tree.leaves(last)
        )

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, currents())
    for gradient in map(np.asarray, jax.tree.leaves(gradients)):
        assert np.isfinite(gradient).all()
        assert (gradient != 0).any()


@rows(lambda row: not row.flat)
def test_a_feature_map_is_its_flattened_neurons(row):
    shape = (B, 2, 4, 3)
    params, state = started(row.neuron, shape)
    x = currents((T, *shape))

    def flat(lead):
        return lambda leaf: leaf.reshape(*lead, -1)

    @jax.jit
    def both(params, state, x):
        last, outputs = row.neuron.unroll(params, state, x)
        flat_params, flat_state = jax.tree.map(flat(()), params), jax.tree.map(flat((B,)), state)
        return (
            (jax.tree.map(flat((B,)), last), outputs.reshape(T, B, -1)),
            row.neuron.unroll(flat_params, flat_state, x.reshape(T, B, -1)),
        )

    assert_trees_close(*both(params, state, x), 1e-6)


@rows()
def test_neurons_hash_and_are_static_arguments(row):
    @partial(jax.jit, static_argnums=0)
    def stepped(neuron, params, state, x):
        return neuron.step(params, state, x), neuron.rest(x.shape)

    params, state = started(row.neuron)
    step, rest = stepped(row.neuron, params, state, currents((B, N)))
    assert_trees_close(step, row.neuron.step(params, state, currents((B, N))), 1e-6)
    assert hash(row.neuron) == hash(type(row.neuron)(**vars(row.neuron)))
    assert row.neuron == type(row.neuron)(**vars(row.neuron))
    assert_trees_equal(rest, row.neuron.rest((B, N)))


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


@rows()
def test_what_is_not_finite_is_refused_unless_it_is_traced(row):
    params, rest = row.neuron.init(jax.random.key(0), (N,)), row.neuron.rest((B, N))
    leaves, structure = jax.tree.flatten(params)
    spoilt = [
        structure.unflatten([leaf * (jnp.nan if k == i else 1) for k, leaf in enumerate(leaves)])
        for i in range(len(leaves))
    ]
    for run, shape in ((row.neuron.step, (B, N)), (row.neuron.unroll, (T, B, N))):
        x = currents(shape)
        for value in (jnp.nan, jnp.inf):
            with pytest.raises(ValueError, match="current must be finite, got NaN or infinity"):
                run(params, rest, x.at[..., 1].set(value))
        for bad in spoilt:
            with pytest.raises(ValueError, match=r"params\[.*\] must be finite"):
                run(bad, rest, x)
        jax.jit(run)(params, rest, x * jnp.nan)

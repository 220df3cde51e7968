"""Each neuron against traces worked out by hand, and what its factory refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import N, assert_trees_equal, currents, started

from fastsnn_jax import surrogate
from fastsnn_jax.neurons import (
    adaptive_lif,
    current_lif,
    integrate_and_fire,
    leaky_integrator,
    lif,
    recurrent,
)
from fastsnn_jax.unroll import unroll

HOLD = surrogate.fast_sigmoid(ties="hold")


def trace(neuron, current, params=None):
    """Returns the membranes and spikes of one neuron, step by step, by both ways of running it."""
    current = np.float32(current)[:, None, None]
    params = neuron.init(jax.random.key(0), (1,)) if params is None else params

    def step(params, state, x):
        state, spikes = neuron.step(params, state, x)
        return state, (state, spikes)

    @jax.jit
    def both(params, current):
        rest = neuron.rest((1, 1))
        return unroll(step, params, rest, current), neuron.unroll(params, rest, current)

    (last, (states, spikes)), fast = both(params, current)
    assert_trees_equal(fast, (last, spikes))
    return jax.tree.map(lambda leaf: np.asarray(leaf).ravel().tolist(), (states, spikes))


@pytest.mark.parametrize(
    "options, membranes, spikes",
    [  # decay 0.5, threshold 1, current 1, 0.75, 1.5, 0.25; charged u in the comment
        ({}, [0, 0.75, 0.875, 0.6875], [1, 0, 1, 0]),  # 1, .75, 1.875, .6875
        ({"surrogate": HOLD}, [1, 0.25, 0.625, 0.5625], [0, 1, 1, 0]),  # 1, 1.25, 1.625, .5625
        ({"reset": "zero"}, [0, 0.75, 0, 0.25], [1, 0, 1, 0]),  # 1, .75, 1.875, .25
        ({"reset": "none"}, [1, 1.25, 2.125, 1.3125], [1, 1, 1, 1]),
        ({"input_gain": 2.0}, [1, 1, 2.5, 0.75], [1, 1, 1, 1]),  # 2, 2, 3.5, 1.75
        ({"input_gain": "1-decay"}, [0.5, 0.625, 0.0625, 0.15625], [0, 0, 1, 0]),
        # late subtract: 1; .5+.75-1; .125+1.5; .8125+.25-1
        ({"reset_delay": True}, [1, 0.25, 1.625, 0.0625], [1, 0, 1, 0]),
        ({"reset_delay": True, "output_delay": True}, [1, 0.25, 1.625, 0.0625], [0, 1, 0, 1]),
        # late zero: 1; .75; .375+1.5; .25
        ({"reset_delay": True, "reset": "zero"}, [1, 0.75, 1.875, 0.25], [1, 0, 1, 0]),
        ({"reset_delay": True, "reset": "none"}, [1, 1.25, 2.125, 1.3125], [1, 1, 1, 1]),
    ],
)
def test_lif_traces(options, membranes, spikes):
    states, fired = trace(lif(0.5, 1.0, **options), [1.0, 0.75, 1.5, 0.25])
    assert (states.v, fired) == (membranes, spikes)


@pytest.mark.parametrize(
    "late, reset, attached, detached",
    [  # d(u2)/d(x1) with decay 1/2, u1 = x1 = 5/4 (fires), g = 1/4 everywhere
        (False, "subtract", 0.5 * (1 - 0.25), 0.5),
        (False, "zero", 0.5 * (0 - 1.25 * 0.25), 0.0),
        (False, "none", 0.5, 0.5),
        (True, "subtract", 0.5 - 0.25, 0.5),
        (True, "zero", 0.5 * (0 - 1.25 * 0.25), 0.0),
        (True, "none", 0.5, 0.5),
    ],
)
def test_detaching_the_reset_changes_gradients_and_no_value(late, reset, attached, detached):
    def second_spike(x1, detach):
        neuron = lif(
            0.5, 1.0, reset=reset, reset_delay=late, detach_reset=detach,
            surrogate=surrogate.straight_through(0.25),
        )
        return neuron.unroll({}, neuron.rest((1,)), jnp.array([[x1], [0.25]]))[1][1, 0]

    both = jax.jit(lambda x1: [jax.value_and_grad(second_spike)(x1, d) for d in (False, True)])
    assert both(1.25) == [(0, 0.25 * attached), (0, 0.25 * detached)]


@pytest.mark.parametrize("decay", [1e-4, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("threshold", [0.01, 0.3, 1.0, 7.0])
def test_learned_constants_start_at_the_given_values(decay, threshold):
    neuron = lif(decay, threshold, learn=("decay", "threshold"))
    start = neuron.constants(neuron.init(jax.random.key(0), (N,)), jnp.float32)[:2]
    for value, expected in zip(start, (decay, threshold), strict=True):
        assert value.shape == (N,)
        np.testing.assert_allclose(value, np.float32(expected), rtol=2e-6)


def test_learned_constants_stay_in_range_wherever_an_optimiser_takes_them():
    neuron = lif(learn=("decay", "threshold"))
    for free in (-50.0, 50.0):
        params = {"decay_logit": jnp.full(N, free), "log_threshold": jnp.full(N, free)}
        decay, threshold, _ = neuron.constants(params, jnp.float32)
        assert ((decay > 0) & (decay <= 1) & (threshold > 0)).all()
        assert jnp.isfinite(threshold).all()


def test_each_neuron_has_its_own_learned_constants():
    neuron = lif(learn=("decay", "threshold"))
    params = {
        "decay_logit": jnp.log(jnp.array([1.0, 3.0])),  # decays 1/2 and 3/4
        "log_threshold": jnp.log(jnp.array([1.0, 4.0])),
    }
    state, spikes = neuron.unroll(params, neuron.rest((1, 2)), jnp.full((2, 1, 2), 0.875))
    np.testing.assert_array_equal(spikes[:, 0], [[0, 0], [1, 0]])
    np.testing.assert_allclose(state.v[0], [0.4375 + 0.875 - 1, 0.65625 + 0.875], rtol=1e-6)


def test_forward_mode_agrees_with_reverse_mode():
    neuron = lif(surrogate=surrogate.fast_sigmoid().forward_mode())
    reverse = lif()
    x, direction, weights = currents(seed=4), currents(seed=5), currents(seed=6)
    rest = neuron.rest(x.shape[1:])

    def outputs(neuron):
        return lambda x: neuron.unroll({}, rest, x)[1]

    values, tangents = jax.jvp(outputs(neuron), (x,), (direction,))
    expected, pull = jax.vjp(outputs(reverse), x)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(
        jnp.vdot(weights, tangents), jnp.vdot(pull(weights)[0], direction), rtol=1e-5
    )


def test_integrate_and_fire_is_lif_without_leak():
    assert integrate_and_fire(0.5, reset="zero") == lif(1.0, 0.5, reset="zero")


def test_adaptive_lif_trace():
    # decay 1/2, threshold 1/2, rise 2, forgets 1/2 a step; theta = 1/2 + 2 a before the step.
    neuron = adaptive_lif(0.5, 0.5, adaptation=2.0, adaptation_decay=0.5)
    states, spikes = trace(neuron, [1.0, 1.0, 1.0, 0.25])
    # theta .5, 1.5, 1, 1.5; u 1, 1.25, 1.625, .5625
    assert spikes == [1, 0, 1, 0]
    assert states.v == [0.5, 1.25, 0.625, 0.5625]
    assert states.adaptation == [0.5, 0.25, 0.625, 0.3125]


def test_adaptive_lif_without_rise_is_lif():
    options = {"reset": "zero", "input_gain": "1-decay", "learn": ("threshold",)}
    plain = lif(0.75, 0.25, **options)
    adaptive = adaptive_lif(0.75, 0.25, adaptation=0.0, **options)
    params, state = started(plain)
    rest = adaptive.rest(state.v.shape)._replace(v=state.v)
    np.testing.assert_array_equal(
        adaptive.unroll(params, rest, currents())[1], plain.unroll(params, state, currents())[1]
    )


def test_current_lif_trace():
    # i = i/2 + x = 1, .5, .75, .375; u = 1 (reset to 0), .5, .25+.75 (reset to 0), .375
    states, spikes = trace(current_lif(0.5, 0.5), [1.0, 0.0, 0.5, 0.0])
    assert states.synapse == [1, 0.5, 0.75, 0.375]
    assert spikes == [1, 0, 1, 0]
    assert states.v == [0, 0.5, 0, 0.375]


def test_leaky_integrator_traces():
    current = [1.0, 0.0, 0.5]
    assert trace(leaky_integrator(0.5), current)[1] == [1, 0.5, 0.75]
    assert trace(leaky_integrator(1.0), current)[1] == [1, 1, 1.5]
    assert trace(leaky_integrator(0.5, input_gain="1-decay"), current)[1] == [0.5, 0.25, 0.375]


def test_recurrent_spikes_come_back_through_the_kernel_one_step_later():
    neuron = recurrent(lif(0.5, 1.0))
    params = {"kernel": jnp.array([[0.0, 1.0], [0.25, 0.0]]), "neuron": {}}
    current = jnp.zeros((3, 1, 2)).at[0, 0, 0].set(1.0)
    state, spikes = neuron.unroll(params, neuron.rest((1, 2)), current)
    np.testing.assert_array_equal(spikes[:, 0], [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(state.neuron.v[0], [0.25, 0])
    np.testing.assert_array_equal(state.spikes[0], [0, 0])


def test_the_recurrent_kernel_starts_with_the_stated_spread():
    size = 200
    kernel = recurrent(lif(), scale=0.5).init(jax.random.key(0), (size,))["kernel"]
    expected = 0.5 / math.sqrt(size)
    assert abs(kernel.std() / expected - 1) < 5 / math.sqrt(2 * size**2)
    assert abs(kernel.mean()) < 5 * expected / size


@pytest.mark.parametrize("make", [lif, adaptive_lif, lambda *args, **options: current_lif(
    0.5, *args, **options)], ids=["lif", "adaptive_lif", "current_lif"])
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"decay": 0.0}, ValueError, "decay must be > 0 and <= 1, got 0.0"),
        ({"decay": 1.5}, ValueError, "decay must be > 0 and <= 1, got 1.5"),
        ({"decay": math.nan}, ValueError, "decay must be"),
        ({"decay": "0.9"}, TypeError, "decay must be a number"),
        ({"decay": np.array([0.9, 0.8])}, TypeError, "decay must be a number"),
        ({"threshold": 0.0}, ValueError, "threshold must be > 0"),
        ({"threshold": -1}, ValueError, "threshold must be > 0"),
        ({"threshold": math.inf}, ValueError, "threshold must be > 0"),
        ({"threshold": None}, TypeError, "threshold must be a number"),
        ({"reset": "hard"}, ValueError, "reset must be one of subtract, zero, none, got 'hard'"),
        ({"input_gain": 0.0}, ValueError, "input_gain must be > 0"),
        ({"input_gain": "decay"}, TypeError, "input_gain must be a number"),
        ({"decay": 1.0, "input_gain": "1-decay"}, ValueError, "must leave some input"),
        ({"learn": "decay"}, TypeError, "learn must be a tuple of names, got 'decay'"),
        ({"learn": ("reset",)}, ValueError, "learn must be a subset"),
        ({"learn": ("decay", "decay")}, ValueError, "learn must be a subset"),
        ({"decay": 1.0, "learn": ("decay",)}, ValueError, "decay must be < 1 to be learnable"),
        ({"surrogate": jnp.sign}, TypeError, "surrogate must be a Surrogate"),
    ],
)
def test_bad_constants_are_refused(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: lif(output_delay=True), ValueError, "output_delay needs reset_delay"),
        (lambda: adaptive_lif(adaptation=-1.0), ValueError, "adaptation must be >= 0"),
        (lambda: adaptive_lif(adaptation_decay=0), ValueError, "adaptation_decay must be > 0"),
        (lambda: current_lif(0.0), ValueError, "synapse_decay must be > 0"),
        (lambda: current_lif(1.0, learn=("synapse_decay",)), ValueError, "synapse_decay must be <"),
        (lambda: leaky_integrator(2.0), ValueError, "leaky_integrator: decay must be"),
        (lambda: leaky_integrator(learn=("threshold",)), ValueError, "subset of"),
        (lambda: recurrent("lif"), TypeError, "recurrent: neuron must have init"),
        (lambda: recurrent(lif(), scale=-1.0), ValueError, "scale must be >= 0"),
        (lambda: recurrent(lif()).init(jax.random.key(0), (2, 3)), ValueError, "shape must be"),
        (lambda: lif(learn=("decay",)).init(jax.random.key(0), (2, 0)), ValueError, "every size"),
        (lambda: lif(learn=("decay",)).init(jax.random.key(0), (2.0,)), TypeError, "an int"),
    ],
)
def test_bad_settings_of_one_neuron_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()

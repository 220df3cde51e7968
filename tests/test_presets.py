"""LIF presets: the values, ties and gradients of the libraries they are named after."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.neurons import lif, lif_preset
from fastsnn_jax.unroll import unroll

NAMES = ("notebook", "snntorch", "spikingjelly", "norse_box", "spyx")
CURRENT = [1.0, 0.75, 1.5, 0.25]


def trace(neuron, current):
    """Returns membranes and spikes of neurons of shape [1, N] or [1], step by step."""
    current = np.float32(current).reshape(len(current), 1, -1)
    return [np.squeeze(np.asarray(values)) for values in _trace(neuron, current)]


@partial(jax.jit, static_argnums=0)
def _trace(neuron, current):
    def step(params, state, x):
        state, spikes = neuron.step(params, state, x)
        return state, (state.v, spikes)

    return unroll(step, {}, neuron.rest(current.shape[1:]), current)[1]


@partial(jax.jit, static_argnums=(0, 1))
def spike_and_gradient(neuron, at, x1, x2):
    """Spike ``at`` of currents x1, x2 and none, and its derivative with respect to x1."""

    def spike(x1):
        currents = jnp.stack([x1, x2, 0.0])[:, None]
        return neuron.unroll({}, neuron.rest((1,)), currents)[1][at, 0]

    return jax.value_and_grad(spike)(x1)


@pytest.mark.parametrize(
    "name, decay, threshold, membranes, spikes",
    [
        # u = 1 (tie, fires), .75, 1.875, .25
        ("notebook", 0.5, 1.0, [0, 0.75, 0, 0.25], [1, 0, 1, 0]),
        # u = 1, .875+.75, 1.5, 1.3125+.25
        ("notebook", 0.875, 1.25, [1, 0, 0, 0.25], [0, 1, 1, 0]),
        # U = 1 (tie, holds), .5+.75, .625+1.5-1, .5625+.25-1
        ("snntorch", 0.5, 1.0, [1, 1.25, 1.125, -0.1875], [0, 1, 1, 0]),
        # h = v/2 + x/2 = .5 (tie, fires), .375, .1875+.75, .125
        ("spikingjelly", 0.5, 0.5, [0, 0.375, 0, 0.125], [1, 0, 1, 0]),
        # v = .5 (tie, holds), .25+.375, .75, .125
        ("norse_box", 0.5, 0.5, [0.5, 0, 0, 0.125], [0, 1, 1, 0]),
        # V = 1 (tie, holds), .5+.75, .625+1.5-1, .5625+.25-1; each spike one step later
        ("spyx", 0.5, 1.0, [1, 1.25, 1.125, -0.1875], [0, 0, 1, 1]),
    ],
)
def test_traces_worked_out_by_hand(name, decay, threshold, membranes, spikes):
    v, fired = trace(lif_preset(name, decay=decay, threshold=threshold), CURRENT)
    np.testing.assert_array_equal(v, membranes)
    np.testing.assert_array_equal(fired, spikes)


@pytest.mark.parametrize("name", NAMES)
def test_a_membrane_at_threshold_fires_in_notebook_and_spikingjelly_only(name):
    neuron = lif_preset(name, decay=0.5, input_gain=1.0)
    _, at_threshold = trace(neuron, [1.0, 0.0])
    assert at_threshold.sum() == (name in ("notebook", "spikingjelly"))
    _, just_above = trace(neuron, [1.0 + 2**-20, 0.0])
    assert just_above.sum() == 1


@pytest.mark.parametrize("x1, x2", [(1.25, 0.75), (0.75, 0.5), (2.5, 1.5), (3.0, 0.25)])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_worked_out_by_hand(name, x1, x2):
    """d(spike 2 or, for spyx, 3)/d(x1): how the reset passes the gradient on."""

    def heaviside(u):
        return float(u >= 0 if name in ("notebook", "spikingjelly") else u > 0)

    g = {
        "notebook": lambda u: 0.3,
        "snntorch": lambda u: 1 / (1 + (np.pi * u) ** 2),
        "spikingjelly": lambda u: 4 * np.exp(-4 * u) / (1 + np.exp(-4 * u)) ** 2,
        "norse_box": lambda u: 1 / (1 + abs(u)) ** 2,
        "spyx": lambda u: 1 / (1 + 25 * abs(u)) ** 2,
    }[name]
    decay, gain = {
        "notebook": (0.9, 1.0), "snntorch": (0.9, 1.0), "spikingjelly": (0.5, 0.5),
        "norse_box": (0.9, 0.1), "spyx": (0.5, 1.0),
    }[name]
    u1 = gain * x1
    s1 = heaviside(u1 - 1)
    if name == "snntorch":
        u2, kept = decay * u1 + gain * x2 - s1, decay  # reset detached
    elif name == "notebook":
        u2, kept = decay * u1 * (1 - s1) + gain * x2, decay * (1 - s1)  # reset detached
    elif name == "spyx":
        u2, kept = decay * u1 + gain * x2 - s1, decay - g(u1 - 1)
    else:
        u2, kept = decay * u1 * (1 - s1) + gain * x2, decay * ((1 - s1) - u1 * g(u1 - 1))

    value, gradient = spike_and_gradient(lif_preset(name), 2 if name == "spyx" else 1, x1, x2)
    assert value == heaviside(u2 - 1)
    np.testing.assert_allclose(gradient, g(u2 - 1) * kept * gain, rtol=1e-4)


def random_currents(limit):
    return np.random.default_rng(0).uniform(0, limit, (40, 30)).astype(np.float32)


def test_spyx_has_the_membrane_of_snntorch_and_its_spikes_one_step_later():
    v, spikes = trace(lif_preset("snntorch", decay=0.875), random_currents(0.8))
    late_v, late_spikes = trace(lif_preset("spyx", decay=0.875), random_currents(0.8))
    np.testing.assert_array_equal(late_v, v)
    np.testing.assert_array_equal(late_spikes[1:], spikes[:-1])
    assert 0 < spikes.mean() < 1


def test_spikingjellys_soft_reset_is_snntorchs_immediate_one_except_at_ties():
    soft = lif_preset("spikingjelly", reset="subtract", input_gain=1.0, decay=0.875)
    immediate = lif_preset("snntorch", reset_delay=False, detach_reset=False, decay=0.875)
    for a, b in zip(*(trace(n, random_currents(0.8)) for n in (soft, immediate)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert trace(soft, [1.0, 0.0])[1].sum() == 1
    assert trace(immediate, [1.0, 0.0])[1].sum() == 0


def test_norse_box_is_spikingjelly_with_its_time_constant_except_at_ties():
    norse = lif_preset("norse_box", decay=0.875, threshold=0.5)
    jelly = lif_preset("spikingjelly", decay=0.875, threshold=0.5)
    for a, b in zip(*(trace(n, random_currents(2.0)) for n in (norse, jelly)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert trace(norse, [4.0, 0.0])[1].sum() == 0  # 4 / 8 is the threshold
    assert trace(jelly, [4.0, 0.0])[1].sum() == 1


@pytest.mark.parametrize("name", NAMES)
def test_any_argument_of_lif_can_be_overridden(name):
    neuron = lif_preset(name, decay=0.25, threshold=2.0, learn=("decay",))
    assert (neuron.decay, neuron.threshold, neuron.learn) == (0.25, 2.0, ("decay",))
    assert neuron.surrogate == lif_preset(name).surrogate


def test_the_notebook_preset_is_what_its_description_says():
    notebook = lif_preset("notebook")
    assert notebook == lif(
        0.9, 1.0, reset="zero", detach_reset=True, surrogate=notebook.surrogate
    )
    assert (notebook.surrogate.shape, notebook.surrogate.scale) == ("straight_through", 0.3)


def test_an_unknown_preset_or_argument_is_refused():
    with pytest.raises(ValueError, match="name must be one of notebook, snntorch.*'nest'"):
        lif_preset("nest")
    with pytest.raises(TypeError, match="beta"):
        lif_preset("snntorch", beta=0.9)

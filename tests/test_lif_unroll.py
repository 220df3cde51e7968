"""The stored-membrane LIF loop against its plain twin."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import B, N, T, assert_trees_close, assert_trees_equal, currents, started
from processes import environment

from fastsnn_jax.kernels.lif_unroll import lif_unroll
from fastsnn_jax.neurons import lif
from fastsnn_jax.surrogate import arctan, fast_sigmoid
from fastsnn_jax.unroll import unroll

RESETS = [
    ("subtract", False), ("subtract", True), ("zero", False), ("zero", True), ("none", False),
]
CONSTANTS = {
    "fixed": {},
    "moving_average": {"input_gain": "1-decay", "surrogate": arctan(ties="hold")},
    "learned_decay": {"input_gain": 0.5, "learn": ("decay",)},
    "learned_gain": {"input_gain": "1-decay", "learn": ("decay", "threshold")},
    "learned_threshold": {"learn": ("threshold",), "surrogate": fast_sigmoid(3.0)},
}


def both(neuron, params, state, x):
    """Returns values and all gradients of the fast loop and of the plain one."""
    weights = np.random.default_rng(7).normal(size=(T + 1, B, N)).astype(np.float32)

    def run(loop, arguments):
        values, pull = jax.vjp(loop, *arguments)
        final = type(state)(jnp.asarray(weights[T], state.v.dtype))
        return values, pull((final, jnp.asarray(weights[:T], x.dtype)))

    def fast(params, state, x):
        return lif_unroll(neuron, params, state, x)

    def plain(params, state, x):
        return unroll(neuron.step, params, state, x)

    return jax.jit(lambda *arguments: (run(fast, arguments), run(plain, arguments)))(
        params, state, x)


@pytest.mark.parametrize("options", CONSTANTS.values(), ids=CONSTANTS)
@pytest.mark.parametrize("reset, detach", RESETS)
def test_values_and_gradients_are_those_of_the_plain_loop(reset, detach, options):
    neuron = lif(0.75, 0.5, reset=reset, detach_reset=detach, **options)
    fast, plain = both(neuron, *started(neuron), currents(seed=8))
    assert_trees_close(fast, plain)
    values, gradients = fast
    assert 0 < np.asarray(values[1]).mean() < 1
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("reset, detach", RESETS)
def test_dyadic_values_are_bit_equal(reset, detach):
    neuron = lif(0.5, 0.75, reset=reset, detach_reset=detach)
    x = np.round(np.asarray(currents(seed=9)) * 8) / 8
    fast, plain = both(neuron, {}, neuron.rest((B, N)), x)
    assert_trees_equal(fast[0], plain[0])


def test_half_precision_currents_keep_a_float32_membrane():
    neuron = lif(0.5, 0.75, learn=("threshold",))
    params = neuron.init(jax.random.key(0), (N,))
    fast, plain = both(neuron, params, neuron.rest((B, N)), currents(dtype=jnp.bfloat16))
    assert_trees_close(fast, plain, 1e-2)
    assert fast[1][2].dtype == jnp.bfloat16


@pytest.mark.parametrize("reset, detach", RESETS)
def test_the_gradient_stores_one_array_over_time(reset, detach):
    neuron = lif(reset=reset, detach_reset=detach, learn=("decay", "threshold"))
    params, state = started(neuron)
    _, pull = jax.vjp(lambda *args: lif_unroll(neuron, *args), params, state, currents())
    stored = [leaf for leaf in jax.tree.leaves(pull) if np.shape(leaf) == (T, B, N)]
    assert len(stored) == 1


def test_gradients_at_hand():
    # decay 1/2, threshold 1, gain 1; slope-1 arctan: g(u) = 0.5 / (1 + (pi u / 2)^2).
    # u1 = .25 + .5 = .75, u2 = .375 + 1.125 = 1.5 fires: last spike's gradient.
    neuron = lif(0.5, 1.0, surrogate=arctan(1.0), learn=("decay", "threshold"))
    params = {"decay_logit": jnp.zeros(1), "log_threshold": jnp.zeros(1)}

    def last_spike(params, v, x):
        return neuron.unroll(params, type(neuron.rest((1,)))(v), x)[1][1, 0]

    x = jnp.array([[0.5], [1.125]])
    gradients = jax.jit(jax.grad(last_spike, argnums=(0, 1, 2)))(params, jnp.array([0.5]), x)

    def g(u):
        return 0.5 / (1 + (np.pi * u / 2) ** 2)

    kept = 1 - g(-0.25)  # dv1/du1 through the attached reset
    # du2/ddecay = v1 + decay * kept * v0; ddecay/dlogit = 1/4
    d_decay = g(0.5) * (0.75 + 0.5 * kept * 0.5) / 4
    # v1 = u1 - threshold * s1 with s1 = 0 and ds1/dthreshold = -g(-.25); d threshold/d log = 1
    d_threshold = g(0.5) * (0.5 * g(-0.25) - 1)
    np.testing.assert_allclose(gradients[0]["decay_logit"], [d_decay], rtol=1e-6)
    np.testing.assert_allclose(gradients[0]["log_threshold"], [d_threshold], rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [g(0.5) * 0.5 * kept * 0.5], rtol=1e-6)
    np.testing.assert_allclose(gradients[2][:, 0], [g(0.5) * 0.5 * kept, g(0.5)], rtol=1e-6)


def test_a_delayed_reset_is_refused():
    neuron = lif(reset_delay=True)
    with pytest.raises(ValueError, match="lif_unroll: reset_delay must be False"):
        lif_unroll(neuron, {}, neuron.rest((B, N)), currents())


IN_PIECES = """
import jax, jax.numpy as jnp
from fastsnn_jax.neurons import current_lif, lif, lif_preset

for neuron in (lif(), lif_preset("notebook"), lif(learn=("decay",)), current_lif()):
    x = 0.3 + jax.random.normal(jax.random.key(1), (6, 64, 128))
    params, state = neuron.init(jax.random.key(0), (128,)), neuron.rest((64, 128))
    for run in (neuron.unroll, jax.jit(neuron.unroll)):
        whole = run(params, state, x)
        for cut in (1, 3, 5):
            middle, first = run(params, state, x[:cut])
            last, second = run(params, middle, x[cut:])
            pieces = last, jnp.concatenate([first, second])
            equal = jax.tree.map(lambda a, b: bool((a == b).all()), pieces, whole)
            assert jax.tree.all(equal), (neuron, cut, equal)
"""


@pytest.mark.slow
def test_pieces_round_as_the_whole_compiled_as_users_do():
    optimised = environment(JAX_DISABLE_MOST_OPTIMIZATIONS="0", XLA_FLAGS="")
    done = subprocess.run(
        [sys.executable, "-c", IN_PIECES], env=optimised, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

"""Spike functions: values, ties, derivatives and the rounding of counts."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax import surrogate

U = np.array([-3.0, -1.0, -0.75, -0.5, -0.25, -0.01, 0.0, 0.01, 0.25, 0.5, 0.75, 1.0, 3.0])


def _logistic(x):
    return 1 / (1 + math.exp(-x))


TABLE = {  # factory: (object, g by the formula of its source, peak)
    "straight_through": (surrogate.straight_through(0.3), lambda u: 0.3, 0.3),
    "fast_sigmoid": (surrogate.fast_sigmoid(10.0), lambda u: (1 + 10 * abs(u)) ** -2, 1.0),
    "superspike": (surrogate.superspike(100.0), lambda u: (1 + 100 * abs(u)) ** -2, 1.0),
    "arctan": (surrogate.arctan(2.0), lambda u: 1 / (1 + (math.pi * u) ** 2), 1.0),
    "sigmoid": (
        surrogate.sigmoid(4.0), lambda u: 4 * _logistic(4 * u) * (1 - _logistic(4 * u)), 1.0,
    ),
    "triangular": (
        surrogate.triangular(2.0), lambda u: 0.5 - abs(u) / 4 if abs(u) < 2 else 0.0, 0.5,
    ),
    "boxcar": (surrogate.boxcar(0.5), lambda u: 2.0 if abs(u) <= 0.25 else 0.0, 2.0),
    "gaussian": (
        surrogate.gaussian(0.5),
        lambda u: math.exp(-2 * u * u) / math.sqrt(math.pi / 2), 0.7978845608,
    ),
}
every = pytest.mark.parametrize(
    "spike, g, peak", [pytest.param(*row, id=name) for name, row in TABLE.items()]
)


@partial(jax.jit, static_argnums=0)
def pieces(spike, u):
    """Values, gradients and the derivative by name, of distances u [N]."""
    return spike(u), jax.vmap(jax.grad(spike))(u), spike.derivative(u)


def test_the_table_names_every_shape():
    assert {row[0].shape for row in TABLE.values()} == set(surrogate._FORMULAS)


@every
def test_the_forward_pass_is_a_step(spike, g, peak):
    np.testing.assert_array_equal(pieces(spike, np.float32(U))[0], U >= 0)


@every
def test_the_backward_pass_is_the_published_formula(spike, g, peak):
    expected = [g(u) for u in U]
    _, gradient, derivative = pieces(spike, np.float32(U))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(derivative, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(spike.derivative(0.0), peak, rtol=1e-6)


@every
def test_the_derivative_is_that_of_the_integral(spike, g, peak):
    u = np.float32(np.linspace(-2.99, 2.97, 43))  # off every kink
    h = 2.0**-6 / spike.scale if spike.scale > 1 else 2.0**-6
    numeric = (spike.integral(u + h) - spike.integral(u - h)) / np.float32((u + h) - (u - h))
    np.testing.assert_allclose(numeric, spike.derivative(u), rtol=2e-3, atol=2e-3 * peak)


@pytest.mark.parametrize("factory", ["arctan", "sigmoid", "triangular", "boxcar", "gaussian"])
def test_the_area_under_the_derivative_is_one(factory):
    spike = getattr(surrogate, factory)()
    u = np.linspace(-400, 400, 1_600_001, dtype=np.float32)
    area = float(np.mean(np.asarray(spike.derivative(u), np.float64)) * 800)
    assert area == pytest.approx(1, abs=2e-3)


@every
def test_ties_fire_or_hold(spike, g, peak):
    hold = type(spike)(spike.shape, spike.scale, ties="hold")
    u = np.float32([-1e-6, 0.0, 1e-6])
    fired, gradient, _ = pieces(spike, u)
    held, gradient_held, _ = pieces(hold, u)
    np.testing.assert_array_equal(fired, [0, 1, 1])
    np.testing.assert_array_equal(held, [0, 0, 1])
    np.testing.assert_array_equal(gradient_held, gradient)


@every
def test_the_forward_mode_twin_has_the_same_values_and_tangents(spike, g, peak):
    twin, u = spike.forward_mode(), np.float32(U)

    @jax.jit
    def forward(u):
        return jax.jvp(twin, (u,), (jnp.full_like(u, 2.0),)), jax.vmap(jax.grad(twin))(u)

    (values, tangents), gradient = jax.tree.map(np.asarray, forward(u))
    expected_values, _, derivative = pieces(spike, u)
    np.testing.assert_array_equal(values, expected_values)
    smooth = ~np.isin(np.abs(U), [0.25, 2.0]) | (spike.shape not in ("boxcar", "triangular"))
    expected = 2 * np.asarray(derivative)
    np.testing.assert_allclose(tangents[smooth], expected[smooth], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, tangents / 2, rtol=1e-6, atol=1e-7)


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_dtype_is_kept_and_large_distances_stay_finite(spike, g, peak, dtype):
    u = jnp.array([-6e4, -0.5, 6e4], dtype)
    assert spike(u).dtype == spike.forward_mode()(u).dtype == dtype
    gradient = jax.vmap(jax.grad(spike))(u)
    assert gradient.dtype == dtype
    assert jnp.isfinite(gradient).all()


def test_equal_settings_are_equal_and_hash_alike():
    assert surrogate.arctan() == surrogate.arctan(2.0)
    assert hash(surrogate.arctan()) == hash(surrogate.arctan(2.0))
    others = {surrogate.arctan(3.0), surrogate.arctan(ties="hold"), surrogate.sigmoid(2.0)}
    assert len(others | {surrogate.arctan(), surrogate.arctan().forward_mode()}) == 5


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: surrogate.arctan(0.0), ValueError, "arctan: scale must be > 0"),
        (lambda: surrogate.boxcar(math.nan), ValueError, "boxcar: scale must be"),
        (lambda: surrogate.sigmoid("4"), TypeError, "sigmoid: scale must be a number"),
        (lambda: surrogate.sigmoid(ties="?"), ValueError, "ties must be one of fire, hold"),
        (lambda: surrogate.Surrogate("step", 1.0), ValueError, "shape must be one of"),
        (lambda: surrogate.arctan()(jnp.arange(3)), TypeError, "arctan: u must be floating"),
        (lambda: surrogate.round_ste(jnp.arange(3)), TypeError, "x must be floating"),
        (lambda: surrogate.round_ste(jnp.ones(3), low=1, high=0), ValueError, "low must be <="),
        (lambda: surrogate.round_ste(jnp.ones(3), window="box"), ValueError, "identity, sigmoid"),
        (lambda: surrogate.round_ste(jnp.ones(3), tau=0.0), ValueError, "tau must be > 0"),
    ],
)
def test_bad_settings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_round_ste_rounds_half_to_even_and_clips():
    x = jnp.array([-0.5, 0.5, 1.5, 2.5, 3.49, 7.0])
    np.testing.assert_array_equal(surrogate.round_ste(x), [0, 0, 2, 2, 3, 7])
    np.testing.assert_array_equal(surrogate.round_ste(x - 2, low=-1, high=4), [-1, -1, 0, 0, 1, 4])


def test_round_ste_passes_the_gradient_in_range_only():
    x = jnp.array([-0.25, 0.0, 0.25, 4.0, 4.25])
    gradient = jax.vmap(jax.grad(lambda x: 3 * surrogate.round_ste(x, low=0, high=4)))(x)
    np.testing.assert_array_equal(gradient, [0, 3, 3, 3, 0])


def test_round_ste_in_fastsnns_window_is_its_bump():
    x = np.array([-1.0, 0.0, 2.0, 8.0])
    tau = 2.0
    expected = [_logistic(v / tau) * (1 - _logistic(v / tau)) / tau for v in x]

    def counts(x):
        return surrogate.round_ste(x, low=0, window="sigmoid", tau=tau)

    np.testing.assert_allclose(jax.vmap(jax.grad(counts))(jnp.float32(x)), expected, rtol=1e-5)
    np.testing.assert_array_equal(counts(jnp.float32(x)), [0, 0, 2, 8])

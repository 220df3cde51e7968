"""Losses against the formulas, by hand and in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.losses import cross_entropy, rate_penalty


def test_cross_entropy_is_minus_the_log_of_the_share_of_the_label():
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0], [4.0, 2.0, 2.0]]))
    found = cross_entropy(logits, jnp.array([2, 0]))
    np.testing.assert_allclose(found, -np.log([5 / 8, 1 / 2]), rtol=1e-6)


def test_smoothing_mixes_the_label_with_the_mean_over_classes():
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    mixed = 0.75 * -np.log(2 / 8) + 0.25 * -np.log([1 / 8, 2 / 8, 5 / 8]).mean()
    found = cross_entropy(logits, jnp.array([1]), smoothing=0.25)
    np.testing.assert_allclose(found, [mixed], rtol=1e-6)


def test_cross_entropy_keeps_every_leading_axis_and_the_gradient_is_softmax_minus_label():
    logits = jax.random.normal(jax.random.key(0), (2, 5, 3))
    labels = jnp.array([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])
    assert cross_entropy(logits, labels).shape == (2, 5)
    gradient = jax.grad(lambda z: cross_entropy(z, labels).sum())(logits)
    exponent = np.exp(np.asarray(logits))
    expected = exponent / exponent.sum(-1, keepdims=True) - np.eye(3)[labels]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_cross_entropy_is_computed_in_float32():
    assert cross_entropy(jnp.zeros((2, 3), jnp.bfloat16), jnp.array([0, 1])).dtype == jnp.float32


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_gives_nan(label):
    assert np.isnan(cross_entropy(jnp.zeros((1, 3)), jnp.array([label])))[0]


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((jnp.zeros((2, 3)), jnp.array([0, 1, 2])), ValueError, "cross_entropy: labels must have"),
    ((jnp.zeros((2, 3), int), jnp.array([0, 1])), TypeError, "logits must be floating"),
    ((jnp.zeros((2, 3)), jnp.array([0.0, 1.0])), TypeError, "labels must be integers"),
    ((jnp.zeros((2, 3)), jnp.array([0, 1]), 1.0), ValueError, "smoothing must be < 1"),
    ((jnp.zeros((2, 3)), jnp.array([0, 1]), -0.5), ValueError, "smoothing must be >= 0"),
])
def test_cross_entropy_refuses_what_does_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        cross_entropy(*arguments)


def test_the_rate_penalty_is_the_mean_rate_above_the_target():
    counts = jnp.array([[0.0, 4.0, 8.0, 1.0], [2.0, 16.0, 4.0, 5.0]])
    assert rate_penalty(counts, 16) == 40 / 16 / 8
    assert rate_penalty(counts, 16, 0.25) == (4 + 12 + 1) / 16 / 8


def test_the_rate_penalty_prices_every_spike_above_the_target_alike_and_no_other():
    gradient = jax.grad(lambda counts: rate_penalty(counts, 16, 0.25))(jnp.array([1.0, 5.0, 16.0]))
    np.testing.assert_allclose(gradient, [0.0, 1 / 48, 1 / 48], rtol=1e-6)


@pytest.mark.parametrize(("arguments", "error"), [
    ((jnp.zeros(3, int), 4), TypeError), ((jnp.zeros(3), 0), ValueError),
    ((jnp.zeros(3), 4, 1.5), ValueError),
])
def test_the_rate_penalty_refuses_what_does_not_fit(arguments, error):
    with pytest.raises(error, match="rate_penalty: "):
        rate_penalty(*arguments)

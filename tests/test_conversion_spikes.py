"""What the spikes of a conversion are: counts, thresholds, gradients, the search, the report."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversion_networks import HIDDEN, NETWORKS, X, dyadic, plain_mlp
from jax import lax

from fastsnn_jax.conversion import METHODS, convert
from fastsnn_jax.neurons import adaptive_threshold, integrate_and_fire
from fastsnn_jax.unroll import unroll

# The spikes


def test_half_threshold_integrate_and_fire_rounds_halves_upward():
    weights = (jnp.eye(6), jnp.eye(6))
    x = jnp.array([[0.375, 0.5, 0.625, 1.9, 9.0, -3.0]])
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, jnp.full((1, 6), 4.0),
                  method="max", num_steps=4)  # V = 1
    counts = snn.apply(weights, x)[1]["site0:relu"]
    assert counts.events.tolist() == [[0, 1, 1, 2, 4, 0]]
    assert (counts.nonzero.tolist(), counts.saturated.tolist()) == ([8], [1])
    # A neuron that starts half full, with all its input first, or the same in each step
    neuron = integrate_and_fire(reset="subtract")
    half = neuron.rest((1, 6))._replace(v=jnp.full((1, 6), 0.5))
    for share in (x[None] * jnp.array([1, 0, 0, 0])[:, None, None], jnp.stack([x / 4] * 4)):
        _, spikes = unroll(neuron.step, {}, half, share)
        assert spikes.sum(0).tolist() == [[0, 1, 1, 2, 4, 0]]


def test_a_signed_site_rounds_halves_away_from_zero():
    weights = (jnp.eye(4), jnp.eye(4))
    snn = convert(lambda w, x: jax.nn.leaky_relu(x @ w[0], 0.5) @ w[1], weights,
                  jnp.array([[4.0, -8.0, 0.0, 1.0]]), method="max", num_steps=4)
    y, activity = snn.apply(weights, jnp.array([[0.5, -1.0, -0.5, -9.0]]))
    assert y.tolist() == [[1.0, -1.0, 0.0, -4.0]]
    assert activity["site0:leaky_relu"].saturated.tolist() == [1]


def test_initial_potential_zero_rounds_down():
    weights = (jnp.eye(3), jnp.eye(3))
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, jnp.full((1, 3), 2.0),
                  method="max", num_steps=2, initial=0.0)
    assert snn.apply(weights, jnp.array([[0.75, 1.0, 1.5]]))[0].tolist() == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize("sites", ["activations", "synapses"])
def test_dynamic_mean_is_the_adaptive_threshold_neuron(sites):
    neuron = adaptive_threshold(2.0, signed=False, limit=5)
    x = dyadic(3, 4, 5)

    def ours(w, x):
        return jax.nn.relu(x) @ w

    snn = convert(ours, jnp.asarray(HIDDEN), x, sites=sites, k=2.0, num_steps=5)
    y, activity = snn.apply(jnp.asarray(HIDDEN), x)
    spikes = neuron.encode({}, jax.nn.relu(x))
    np.testing.assert_allclose(y, spikes.value() @ HIDDEN, rtol=1e-6)
    (count,) = activity.values()
    np.testing.assert_array_equal(count.events, np.abs(spikes.data))
    np.testing.assert_array_equal(count.saturated, spikes.saturated.sum(1))


def test_a_single_sample_is_converted_as_in_a_batch():
    snn = convert(*plain_mlp())
    together = snn.apply(snn.variables, X)[0]
    alone = jax.vmap(lambda x: snn.apply(snn.variables, x)[0])(X)
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)


def test_a_convolution_has_a_token_at_every_place():
    x, kernel = np.abs(dyadic(2, 4, 3)) + 0.5, dyadic(3, 3, 2)
    numbers = ("NHC", "HIO", "NHC")

    def convolve(w, x):
        return lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=numbers)

    snn = convert(convolve, jnp.asarray(kernel), x, sites="synapses", k=1.0)
    (count,) = snn.apply(jnp.asarray(kernel), x)[1].values()
    spikes = adaptive_threshold(1.0).encode({}, jnp.asarray(x))
    np.testing.assert_array_equal(count.events, spikes.data)


def test_thresholds_are_those_of_their_methods():
    x = np.abs(dyadic(16, 5, scale=64)) * np.array([1, 2, 3, 4, 5], np.float32)
    function, weights = (lambda w, x: jax.nn.relu(x) @ w), jnp.asarray(HIDDEN)

    def threshold(method, **options):
        snn = convert(function, weights, x, method=method, num_steps=4, **options)
        return np.asarray(snn.variables["sites"]["site0:relu"]["threshold"])

    def error(extent):
        counts = np.clip(np.floor(x / (extent / 4) + 0.5), 0, 4)
        return np.mean((counts * extent / 4 - x) ** 2)

    assert threshold("max") == x.max() / 4
    np.testing.assert_array_equal(threshold("max", per_channel=True), x.max(0) / 4)
    np.testing.assert_allclose(threshold("percentile", percentile=75.0), np.percentile(x, 75) / 4,
                               rtol=1e-6)
    tried = [x.max() * share / 64 for share in range(1, 65)]
    best = min(tried, key=error)
    for method in ("mse", "qcfs"):
        np.testing.assert_allclose(threshold(method), best / 4, rtol=1e-6)
    extent = np.zeros(5)
    for _ in range(100):
        extent += 2 * np.mean(np.maximum(x - extent, 0), 0)
    np.testing.assert_allclose(threshold("ltb"), extent / 4, rtol=1e-4)


def test_a_layer_that_never_fires_has_a_threshold_all_the_same():
    snn = convert(lambda w, x: jax.nn.relu(-jnp.abs(x @ w)) @ w.T, jnp.asarray(HIDDEN), X,
                  method="max", num_steps=4)
    assert snn.variables["sites"]["site0:relu"]["threshold"] == 0.25
    assert snn.report.sites[0].relative_error is None


def test_a_scanned_layer_has_a_threshold_for_every_turn():
    network = NETWORKS["stack"]()
    snn = convert(*network, method="max", num_steps=4)
    x, sizes = network.x, []
    for kernel in network.variables["stack"]:
        y = jax.nn.silu(x @ kernel)
        sizes.append(jnp.abs(y).max())
        x = x + y
    thresholds = snn.variables["sites"]["site0:silu"]["threshold"]
    np.testing.assert_allclose(thresholds, np.array(sizes) / 4, rtol=1e-5)
    count = snn.apply(snn.variables, network.x)[1]["site0:silu"]
    assert count.events.shape == (4, 3, 7)
    np.testing.assert_array_equal(count.events.sum((1, 2)), count.nonzero)


def test_thresholds_of_qcfs_learn_and_others_do_not():
    x = np.float32([[0.25, 0.75, 1.5, 9.0, -1.0]])
    function, weights = (lambda w, x: jax.nn.relu(x) @ w), jnp.ones((5, 1))
    variables = {"model": weights, "sites": {"site0:relu": {"threshold": jnp.float32(1.0)}}}
    slope = (0 - 0.25) + (1 - 0.75) + (2 - 1.5) + 2  # s - x / V in range, N above
    for method, expected in {"max": 0, "qcfs": slope}.items():
        apply = convert(function, weights, x, method=method, num_steps=2).apply
        learnt, _ = jax.grad(lambda v, x, apply=apply: apply(v, x)[0].sum(), (0, 1))(variables, x)
        assert learnt["sites"]["site0:relu"]["threshold"] == expected
    inputs = jax.grad(lambda x: apply(variables, x)[0].sum())(x)
    assert inputs.tolist() == [[1, 1, 1, 0, 0]]


@pytest.mark.parametrize("method", ["dynamic_mean", "max"])
def test_smoothing_is_a_scale_of_the_channels_that_the_weights_take_back(method):
    x = dyadic(4, 3, 2, 5) * np.float32([1, 1, 30, 1, 0])  # an outlier, and a silent channel
    weight = dyadic(2, 5, 6) * np.float32([[1], [4], [1], [1], [1]])

    def apply(w, x):
        return jnp.einsum("bthd,hdm->btm", x, w)

    snn = convert(apply, weight, x, sites="synapses", method=method, smooth=True, num_steps=7)
    silent = np.max(np.abs(x), (0, 1)) == 0
    scale = np.sqrt(np.max(np.abs(x), (0, 1)) / np.max(np.abs(weight), -1))
    scale[silent] = 1
    even = convert(apply, scale[..., None] * weight, x / scale, sites="synapses", method=method,
                   num_steps=7)
    np.testing.assert_allclose(snn.apply(weight, x)[0],
                               even.apply(scale[..., None] * weight, x / scale)[0], rtol=1e-5,
                               atol=1e-5)
    rough = convert(apply, weight, x, sites="synapses", method=method, num_steps=7)
    assert snn.report.output_error < 0.7 * rough.report.output_error


def test_unsigned_spikes_carry_what_cannot_be_negative():
    def apply(w, x):
        x = lax.reduce_window(jax.nn.relu(x @ w[0]), -jnp.inf, lax.max, (1, 2), (1, 1), "VALID")
        return jax.nn.gelu(0.5 * x @ w[1]) @ w[2]

    weights = (dyadic(5, 7), dyadic(6, 4), dyadic(4, 2))
    snn = convert(apply, weights, X, sites="synapses")
    assert [site.nonnegative for site in snn.sites] == [False, True, False]


# Search


def accuracy(labels):
    return lambda y: float(jnp.mean(jnp.argmax(y, -1) == labels))


@pytest.mark.parametrize("method, option", [
    ("dynamic_mean", "k"), pytest.param("mse", "num_steps", marks=pytest.mark.slow),
])
def test_a_search_finds_the_fewest_spikes_that_keep_the_metric(method, option):
    weights, x = (dyadic(6, 9, scale=64), dyadic(9, 4, scale=64)), dyadic(200, 6, scale=64)

    def apply(w, x):
        return jax.nn.relu(x @ w[0]) @ w[1]

    metric = accuracy(jnp.argmax(apply(weights, x), -1))
    settings = {}
    for drop in (0.3, 0.01):
        snn = convert(apply, weights, x, method=method, metric=metric, target_drop=drop)
        told = snn.report
        assert told.metric_before == 1.0 and told.metric_after >= 1 - drop
        assert metric(snn.apply(snn.variables, x)[0]) == told.metric_after
        settings[drop] = getattr(snn.method, option)
    assert settings[0.3] < settings[0.01]
    assert "metric 1 -> " in told.format()


def test_a_search_that_finds_nothing_says_how_near_it_came():
    weights, x = (dyadic(6, 9), dyadic(9, 4)), dyadic(20, 6)
    spoilt = iter(range(100, 0, -1))  # worse at every look
    with pytest.raises(ValueError, match="must drop by at most 0.5, got 1 at best"):
        convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, x, method="max", num_steps=2,
                target_drop=0.5, metric=lambda y: next(spoilt))
    with pytest.raises(ValueError, match="target_drop needs a metric"):
        convert(*plain_mlp(), target_drop=0.1)
    with pytest.raises(ValueError, match="metric must give a finite number, got nan"):
        convert(*plain_mlp(), metric=lambda y: np.nan)


# The report


def test_a_report_says_what_the_spikes_were():
    weights = (jnp.eye(2), jnp.eye(2))
    x = jnp.array([[1.0, 3.5], [-2.0, 2.0]])
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, x, method="percentile",
                  percentile=75.0, num_steps=2)
    extent = np.percentile([1, 3.5, 0, 2], 75)  # 2.375
    counts = np.array([1, 2, 0, 2])
    (site,) = snn.report.as_dict()["sites"]
    assert site["threshold"] == pytest.approx(extent / 2)
    error = np.sum((counts * extent / 2 - [1, 3.5, 0, 2]) ** 2) / np.sum(np.square([1, 3.5, 0, 2]))
    assert site["relative_error"] == pytest.approx(np.sqrt(error), rel=1e-6)
    assert snn.report.output_error == pytest.approx(np.sqrt(error), rel=1e-6)
    assert (site["rate"], site["spikes_per_synapse"], site["time_steps"]) == (5 / 8, 5 / 4, 2)
    assert site["saturation"] == 0.25
    assert json.loads(json.dumps(snn.report.as_dict())) == snn.report.as_dict()
    title, head, row = snn.report.format().splitlines()
    assert title.startswith("percentile, N = 2, binary: 1 of 1 sites converted, output error")
    assert row.split()[:2] == ["site0:relu", "2x2"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_close_at_many_steps(method):
    network = plain_mlp()
    options = {"k": 40.0, "num_steps": 2000} if method == "dynamic_mean" else {"num_steps": 256}
    snn = convert(*network, method=method, **options)
    assert snn.report.output_error < 0.02

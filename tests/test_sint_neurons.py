"""sINT neurons: their counts, thresholds, gradients and equivalence with integrate-and-fire."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax import codings
from fastsnn_jax.neurons import adaptive_threshold, integrate_and_fire, lif_sint

V, N = 0.25, 8  # threshold of CHANNELS under both neurons, and steps of the spiking neuron
# From -2 to 2 in steps of 1/16 = V / 4, then 14 = 56 V and zeros: mean |x| is 1, k = 4 gives V.
CHANNELS = np.zeros(80, np.float32)
CHANNELS[:65] = np.arange(-32, 33) / 16
CHANNELS[65] = 14
NEURONS = {
    "adaptive_threshold": lambda **options: adaptive_threshold(4.0, **options),
    "lif_sint": lambda **options: lif_sint(V, **options),
}
both = pytest.mark.parametrize("make", NEURONS.values(), ids=NEURONS)


@partial(jax.jit, static_argnums=0)
def encode(neuron, params, x):
    return neuron.encode(params, x)


def started(neuron, features):
    """Parameters whose thresholds, where there are any, differ from feature to feature."""
    params = neuron.init(jax.random.key(0), (features,))
    shift = (np.arange(features) / features).astype(np.float32)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + shift, params)


def tokens(shape=(2, 3, 5), seed=0, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


@partial(jax.jit, static_argnums=0)
def values(neuron, params, x):
    """What the counts stand for, the scale of the channels included."""
    scale = neuron.channel_scale(params)
    value = encode(neuron, params, x).value()
    return value if scale is None else value * scale


# Counts


def test_the_channels_of_these_tests_have_the_threshold_they_say():
    assert np.abs(CHANNELS).mean() == 1.0
    assert encode(adaptive_threshold(4.0), {}, jnp.asarray(CHANNELS)).threshold.tolist() == [V]


@both
@pytest.mark.parametrize("arrival", ["constant", "at_once"])
def test_a_count_is_what_a_soft_reset_neuron_fires_apart_from_ties(make, arrival):
    size = np.abs(CHANNELS)
    currents = np.zeros((N, 80), np.float32)
    currents[0] = size
    if arrival == "constant":
        currents = np.tile(size / N, (N, 1))
    spiking = integrate_and_fire(V)
    rest = spiking.rest((80,))
    _, train = jax.jit(spiking.unroll)({}, rest._replace(v=jnp.full_like(rest.v, V / 2)), currents)
    fired = np.asarray(train).sum(0)
    ratio = np.abs(CHANNELS) / V
    np.testing.assert_array_equal(fired, np.clip(np.floor(ratio + 0.5), 0, N))

    ties = ratio % 1 == 0.5
    assert ties.sum() == 16 and (ratio > N).sum() == 1
    neuron = make(limit=N)
    counts = encode(neuron, neuron.init(None, (80,)), jnp.asarray(CHANNELS)).data
    np.testing.assert_array_equal(counts[~ties], (np.sign(CHANNELS) * fired)[~ties])


@both
def test_rounded_down_is_what_a_spiking_neuron_fires_that_starts_at_rest(make):
    currents = np.eye(N, 1, dtype=np.float32) * np.abs(CHANNELS)
    spiking = integrate_and_fire(V)
    _, train = jax.jit(spiking.unroll)({}, spiking.rest((80,)), currents)
    neuron = make(limit=N, rounding="down")
    counts = encode(neuron, neuron.init(None, (80,)), jnp.asarray(CHANNELS)).data
    np.testing.assert_array_equal(counts, np.sign(CHANNELS) * np.asarray(train).sum(0))


def test_ties_go_to_the_even_count():
    ratio = CHANNELS[:65] / V
    counts = encode(adaptive_threshold(4.0), {}, jnp.asarray(CHANNELS)).data[:65]
    halves = ratio % 1 == 0.5
    np.testing.assert_array_equal(np.asarray(counts)[halves] % 2, np.zeros(16))
    np.testing.assert_array_equal(np.abs(counts - ratio)[halves], np.full(16, 0.5))


@both
def test_counts_beyond_the_limit_are_clipped_and_counted_per_token(make):
    x = np.stack([CHANNELS, -CHANNELS, CHANNELS]).reshape(3, 1, 80)
    x[2, 0, 65:72] = 2.0  # for one 14
    neuron = make(limit=6)
    spikes = encode(neuron, neuron.init(None, (80,)), jnp.asarray(x))
    assert spikes.form == "count" and spikes.coding == "bitwise"
    np.testing.assert_array_equal(spikes.data, np.clip(np.round(x / V), -6, 6))
    # Six on either side: 6.75 V .. 8 V; 6.5 V rounds to 6 and fits.
    assert spikes.saturated.tolist() == [[13], [13], [19]]
    assert spikes.saturated.dtype == jnp.int32


@both
def test_unsigned_counts_are_a_spiking_relu_whose_negatives_are_not_saturated(make):
    neuron = make(limit=6, signed=False)
    spikes = encode(neuron, neuron.init(None, (80,)), jnp.asarray(CHANNELS))
    np.testing.assert_array_equal(spikes.data, np.clip(np.round(CHANNELS / V), 0, 6))
    assert spikes.saturated.item() == 7


def test_the_adaptive_threshold_is_the_mean_of_the_token_within_its_clamp():
    x = jnp.array([[[1.0, -3.0]], [[9e4, -3e4]], [[0.0, 0.0]]])
    spikes = encode(adaptive_threshold(k=2.0), {}, x)
    np.testing.assert_array_equal(spikes.threshold, np.float32([[[1.0]], [[1e4]], [[1e-5]]]))
    np.testing.assert_array_equal(spikes.data, [[[1, -3]], [[9, -3]], [[0, 0]]])


def test_a_learned_threshold_starts_as_documented_and_folds_into_the_kernel():
    neuron = lif_sint(0.5)
    params = neuron.init(jax.random.key(0), (5,))
    assert params["log_threshold"].dtype == jnp.float32
    np.testing.assert_allclose(neuron.channel_scale(params), [0.5] * 5, rtol=1e-6)
    params = started(neuron, 5)
    x, kernel = tokens(), tokens((5, 4), seed=1)
    spikes, theta = encode(neuron, params, x), neuron.channel_scale(params)
    np.testing.assert_array_equal(spikes.threshold, np.ones((2, 3, 1)))
    folded = spikes.matmul(theta[:, None] * kernel)
    np.testing.assert_allclose(folded, values(neuron, params, x) @ kernel, rtol=1e-5, atol=1e-6)
    assert adaptive_threshold().channel_scale({}) is None


@both
def test_integrating_currents_is_encoding_their_sum(make):
    neuron, params = make(), make().init(None, (80,))
    shares = np.float32([0.25, -0.5, 1.25]).reshape(3, 1, 1)  # sum to 1, exactly
    currents = shares * np.stack([CHANNELS, CHANNELS[::-1]])
    integrated = jax.jit(neuron.integrate)(params, currents)
    encoded = encode(neuron, params, currents.sum(0))
    assert integrated.shape == (2, 80)
    jax.tree.map(np.testing.assert_array_equal, integrated, encoded)


@both
def test_bit_planes_give_the_counts_back(make):
    neuron = make()
    spikes = encode(neuron, started(neuron, 80), 2 * np.stack([CHANNELS] * 3))
    planes = jax.jit(lambda spikes: spikes.to_dense(7))(spikes)
    assert set(np.unique(planes.data)) == {-1, 0, 1} and not planes.saturated.any()
    np.testing.assert_array_equal(codings.decode(planes.data, "bitwise"), spikes.data)
    np.testing.assert_array_equal(planes.value(), spikes.value())


# P(s = 0), P(|s| <= 7), E |s| and E ones of |s| at k = 3, tabled from 4e5 samples of NumPy.
GOLDEN = {
    "gaussian": (lambda rng, n: rng.standard_normal(n), (0.106, 0.954, 2.99, 1.299)),
    "laplace": (lambda rng, n: rng.laplace(size=n), (0.153, 0.918, 2.99, 1.223)),
    "student_t5": (lambda rng, n: rng.standard_t(5, n), (0.119, 0.937, 2.99, 1.266)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_known_inputs_give_the_known_distribution_of_counts(name):
    draw, (zero, small, mean, ones) = GOLDEN[name]
    samples = 400_000
    x = jnp.asarray(draw(np.random.default_rng(7), samples), jnp.float32)
    size = np.abs(np.asarray(encode(adaptive_threshold(), {}, x).data)).astype(np.int64)
    for share, golden in ((size == 0, zero), (size <= 7, small)):
        sigma = math.sqrt(golden * (1 - golden) / samples)
        assert abs(share.mean() - golden) <= 5 * sigma + 0.0005  # the table has three digits
    assert abs(size.mean() / mean - 1) < 0.01
    assert abs(np.bitwise_count(size).mean() / ones - 1) < 0.01


# Gradients


@pytest.mark.parametrize("signed", [True, False])
def test_the_value_of_an_adaptive_count_moves_with_its_input_where_it_is_in_range(signed):
    neuron = adaptive_threshold(4.0, limit=6, signed=signed)
    gradient = jax.jit(jax.grad(lambda x: encode(neuron, {}, x).value().sum()))(CHANNELS)
    ratio = CHANNELS / V
    inside = (ratio >= (-6 if signed else 0)) & (ratio <= 6)
    np.testing.assert_array_equal(gradient, inside.astype(np.float32))


def test_a_learned_threshold_follows_the_rule_of_lsq():
    neuron = lif_sint(0.5, limit=3)
    params = {"log_threshold": jnp.log(jnp.array([0.5, 0.5, 0.5, 2.0]))}
    x = jnp.array([[0.625, 2.5, -4.0, 3.0], [-0.375, 1.0, 0.125, 8.5]])
    weight = jnp.array([[1.0, 2.0, 4.0, 8.0], [-1.0, 0.5, 0.25, 2.0]])
    to_x, to_params = jax.jit(jax.grad(
        lambda x, params: (weight * values(neuron, params, x)).sum(), (0, 1)
    ))(x, params)
    # s - x / theta in range: 1 - 1.25, -1 + 0.75, 2 - 2, 0 - 0.25, 2 - 1.5; outside 3 or -3
    by_theta = np.array([[-0.25, 3.0, -3.0, 0.5], [-0.25, 0.0, -0.25, 3.0]])
    theta = np.array([0.5, 0.5, 0.5, 2.0])
    np.testing.assert_allclose(
        to_params["log_threshold"], theta * (np.asarray(weight) * by_theta).sum(0), rtol=1e-5)
    inside = np.array([[1, 0, 0, 1], [1, 1, 1, 0]])
    np.testing.assert_allclose(to_x, np.asarray(weight) * inside, rtol=1e-6)


@both
def test_the_sigmoid_window_fades_with_the_count(make):
    neuron = make(window="sigmoid", tau=2.0)
    params = neuron.init(None, (80,))
    gradient = jax.jit(jax.grad(lambda x: values(neuron, params, x).sum()))(CHANNELS)
    logistic = 1 / (1 + np.exp(-CHANNELS.astype(np.float64) / V / 2))
    np.testing.assert_allclose(gradient, logistic * (1 - logistic) / 2, rtol=1e-5, atol=1e-8)


# FastSNN's own form


def collapsed(x, threshold, tau, cotangent):
    """Counts of FastSNN for x [B, L, D] and their pull-back to v / V, [B, 1, D], in float64."""
    ratio = x.sum(1, keepdims=True) / threshold
    assert np.abs(ratio % 1 - 0.5).min() > 1e-3  # float32 rounds none of them the other way
    logistic = 1 / (1 + np.exp(-ratio / tau))
    counts = np.broadcast_to(np.maximum(np.round(ratio), 0), x.shape)
    return ratio, counts, cotangent.sum(1, keepdims=True) * logistic * (1 - logistic) / tau


def test_the_legacy_adaptive_threshold_is_the_one_of_fastsnn():
    neuron = adaptive_threshold(3.0, window="sigmoid", tau=1.5, legacy_time_collapse=True)
    x, cotangent = np.float64(tokens((2, 4, 6))), np.float64(tokens((2, 4, 6), seed=1))
    x[1, :, 2] = 0.0  # at the floor of the threshold
    mean = np.abs(x).mean(1, keepdims=True)
    threshold = np.maximum(mean / 3, 1e-5)
    ratio, counts, pull = collapsed(x, threshold, 1.5, cotangent)
    assert counts.max() > 3 and (ratio < -1).any()
    spikes, pullback = jax.vjp(lambda x: encode(neuron, {}, x).value(), jnp.float32(x))
    np.testing.assert_array_equal(spikes, counts)
    by_mean = np.where(mean / 3 > 1e-5, np.sign(x) / (3 * 4), 0)  # dV / dx
    expected = pull * (1 - ratio * by_mean) / threshold
    np.testing.assert_allclose(pullback(jnp.float32(cotangent))[0], expected, rtol=2e-4, atol=1e-5)


def test_the_legacy_lif_sint_is_the_one_of_fastsnn():
    neuron = lif_sint(window="sigmoid", tau=0.75, legacy_time_collapse=True)
    params = started(neuron, 6)
    x, cotangent = np.float64(tokens((2, 4, 6))), np.float64(tokens((2, 4, 6), seed=1))
    theta = np.exp(np.arange(6) / 6)
    ratio, counts, pull = collapsed(x, theta, 0.75, cotangent)
    assert counts.max() > 1 and (ratio < -1).any()
    spikes, pullback = jax.vjp(
        lambda params, x: encode(neuron, params, x).value(), params, jnp.float32(x))
    np.testing.assert_array_equal(spikes, counts)
    to_params, to_x = pullback(jnp.float32(cotangent))
    np.testing.assert_allclose(to_x, np.broadcast_to(pull / theta, x.shape), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        to_params["log_threshold"], -(pull * ratio).sum((0, 1)), rtol=1e-4, atol=1e-6)
    assert neuron.channel_scale(params) is None


@both
def test_legacy_counts_have_no_limit_and_no_sign(make):
    neuron = make(legacy_time_collapse=True, limit=2)
    x = jnp.stack([jnp.full((7, 2), 100 * V), jnp.full((7, 2), -100 * V)])
    spikes = encode(neuron, neuron.init(None, (2,)), x)
    # The sum of seven tokens is 28 times their mean / 4, and 700 times V.
    positive = {"AdaptiveThreshold": 28, "LIFSint": 700}[type(neuron).__name__]
    np.testing.assert_array_equal(spikes.data[0], np.full((7, 2), positive))
    assert not spikes.data[1].any() and not spikes.saturated.any()


@both
@pytest.mark.parametrize("legacy", [False, True])
def test_only_the_legacy_form_lets_a_token_see_the_future(make, legacy):
    neuron = make(legacy_time_collapse=legacy)
    params, x = started(neuron, 5), tokens()
    before = encode(neuron, params, x)
    moved = np.array(x)
    moved[:, -1] += 8.0
    after = encode(neuron, params, moved)
    for seen in (lambda spikes: spikes.data, jax.jit(lambda spikes: spikes.value())):
        a, b = np.asarray(seen(before)), np.asarray(seen(after))
        assert np.array_equal(a[:, :-1], b[:, :-1]) != legacy
    assert not np.array_equal(np.asarray(before.data)[:, -1], np.asarray(after.data)[:, -1])


# Dtypes, NaN, transformations


@both
@pytest.mark.parametrize("compiled", [False, True])
def test_nan_stays_visible_and_in_its_place(make, compiled):
    neuron = make()
    params, x = started(neuron, 5), tokens()
    bad = np.array(x)
    bad[1, 2, 3] = np.nan
    if compiled:
        bad = values(neuron, params, bad)
    else:
        with jax.disable_jit():
            bad = values(neuron, params, jnp.asarray(bad))
    whole_token = neuron.channel_scale(params) is None
    place = np.zeros(x.shape, bool)
    place[1, 2, slice(None) if whole_token else 3] = True
    np.testing.assert_array_equal(np.isnan(bad), place)
    good = np.asarray(values(neuron, params, x))
    np.testing.assert_allclose(np.asarray(bad)[~place], good[~place], rtol=1e-6)


@both
def test_bfloat16_inputs_give_the_counts_of_their_float32_values(make):
    neuron = make()
    params = started(neuron, 40)
    x = tokens((3, 40), scale=9.0).astype(jnp.bfloat16)
    narrow, wide = encode(neuron, params, x), encode(neuron, params, x.astype(jnp.float32))
    assert narrow.data.dtype == jnp.bfloat16 and narrow.threshold.dtype == jnp.float32
    assert wide.data.dtype == jnp.float32
    np.testing.assert_array_equal(np.float32(narrow.data), wide.data)
    np.testing.assert_array_equal(narrow.threshold, wide.threshold)
    assert jax.eval_shape(neuron.integrate, params, x[None]).data.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="limit must be <= 256 for bfloat16 counts, got 257"):
        make(limit=257).encode(params, x)


@both
def test_jit_and_vmap_change_nothing(make):
    neuron = make()
    params, x = started(neuron, 5), tokens()
    plain = neuron.encode(params, x)
    mapped = jax.vmap(neuron.encode, (None, 0))(params, x)
    for other in (jax.jit(neuron.encode)(params, x), mapped):
        assert other.form == "count"
        np.testing.assert_array_equal(other.data, plain.data)
        np.testing.assert_allclose(other.threshold, plain.threshold, rtol=1e-6)


@both
def test_a_neuron_is_a_frozen_hashable_description(make):
    assert make(limit=7) == make(limit=7) and hash(make(limit=7)) == hash(make(limit=7))
    assert make() != make(signed=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().limit = 3


# Bad input


@both
@pytest.mark.parametrize("options, message", [
    ({"limit": 0}, "limit must be >= 1"),
    ({"limit": 2**24 + 1}, "limit must be <= 16777216"),
    ({"window": "boxcar"}, "window must be one of identity, sigmoid"),
    ({"tau": 0.0}, "tau must be > 0"),
])
def test_a_setting_out_of_range_is_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@both
def test_a_setting_of_another_type_is_refused(make):
    for options in ({"limit": 7.0}, {"signed": 1}, {"legacy_time_collapse": None}, {"tau": "1"}):
        with pytest.raises(TypeError, match=next(iter(options))):
            make(**options)


@pytest.mark.parametrize("make", [adaptive_threshold, lif_sint])
@pytest.mark.parametrize("value, error", [
    (0.0, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError),
])
def test_the_constant_of_a_neuron_is_a_finite_positive_number(make, value, error):
    with pytest.raises(error, match=f"{make.__name__}: (k|threshold) must be"):
        make(value)


@both
def test_inputs_that_cannot_be_encoded_are_refused(make):
    neuron = make()
    params = started(neuron, 5)
    with pytest.raises(TypeError, match="x must be floating, got dtype int32"):
        neuron.encode(params, jnp.ones((3, 5), jnp.int32))
    with pytest.raises(ValueError, match="x must have 1 axes or more"):
        neuron.encode(params, jnp.float32(1.0))
    with pytest.raises(ValueError, match="currents must have 2 axes or more"):
        neuron.integrate(params, jnp.ones(5))
    with pytest.raises(ValueError, match="x must have 2 axes or more"):
        make(legacy_time_collapse=True).encode(params, jnp.ones(5))


def test_features_and_parameters_must_fit():
    neuron = lif_sint()
    with pytest.raises(ValueError, match=r"lif_sint: x must have \(5,\) features, got \(4,\)"):
        neuron.encode(started(neuron, 5), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="every size in shape must be >= 1"):
        neuron.init(None, (0,))

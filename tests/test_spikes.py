"""Laws of SpikeTensor: every view of a signal stands for the same integers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.codings import CODINGS, POSITIONAL, SIGNED, bounds, plane_weights
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.surrogate import round_ste

ROUND_TRIPS = [
    ("binary", 1), ("binary", 6), ("binary", 255), ("ternary", 1), ("ternary", 5),
    ("ternary", 128), *((coding, n) for coding in POSITIONAL for n in (1, 3, 8, 12)),
]
# (coding, steps, lowest and highest count), counted by hand
RANGES = [
    ("binary", 5, 0, 5), ("ternary", 5, -5, 5), ("bitwise", 5, -31, 31),
    ("twos_complement", 5, -16, 15), ("twos_complement", 8, -128, 127), ("bitwise", 8, -255, 255),
]


def all_counts(coding, num_steps):
    low, high = bounds(coding, num_steps)
    return np.arange(low, high + 1)


def random_counts(coding, num_steps, shape, seed=0):
    low, high = bounds(coding, num_steps)
    return np.random.default_rng(seed).integers(low, high + 1, shape)


@partial(jax.jit, static_argnames=("coding", "num_steps"))  # one compilation, not one an operation
def three_views(counts, coding, num_steps, threshold=1):
    spikes = SpikeTensor.from_count(counts, coding=coding, threshold=threshold)
    train = spikes.to_dense(num_steps)
    return spikes, train, train.to_event(counts.shape[-1])


@partial(jax.jit, static_argnames=("coding", "num_steps"))
def round_trips(counts, coding, num_steps):
    """The planes, and of every view its count, value and what was saturated."""
    views = three_views(counts, coding, num_steps)
    return views[1].data, [(view.to_count().data, view.value(), view.saturated) for view in views]


@partial(jax.jit, static_argnums=1)
def expanded(spikes, num_steps):
    """The planes of counts, what saturated and the counts again."""
    train = spikes.to_dense(num_steps)
    return train.data, train.saturated, train.to_count().data


@jax.jit
def products(views, weight):
    return [view.matmul(weight) for view in views]


@pytest.mark.parametrize(("coding", "num_steps", "low", "high"), RANGES)
def test_ranges_are_those_of_the_design(coding, num_steps, low, high):
    assert bounds(coding, num_steps) == (low, high)


@pytest.mark.parametrize(("coding", "num_steps"), ROUND_TRIPS)
def test_every_count_in_range_survives_every_view(coding, num_steps):
    counts = all_counts(coding, num_steps)[:, None]
    for count, value, saturated in round_trips(counts, coding, num_steps)[1]:
        np.testing.assert_array_equal(count, counts)
        np.testing.assert_array_equal(value, counts)
        np.testing.assert_array_equal(saturated, 0)


@pytest.mark.parametrize(("coding", "num_steps"), ROUND_TRIPS)
def test_planes_hold_allowed_spikes_and_weigh_up_to_the_count(coding, num_steps):
    counts = all_counts(coding, num_steps)
    planes = np.asarray(round_trips(counts[:, None], coding, num_steps)[0])[..., 0]
    assert planes.shape == (num_steps, len(counts))
    assert set(np.unique(planes)) <= ({-1, 0, 1} if coding in SIGNED else {0, 1})
    np.testing.assert_array_equal(np.tensordot(plane_weights(coding, num_steps), planes, 1), counts)


def test_planes_are_front_loaded_or_most_significant_first():
    expected = {
        ("binary", 3): [[1, 1, 0]], ("ternary", -2): [[-1, -1, 0]],
        ("bitwise", -6): [[-1, -1, 0]], ("twos_complement", -3): [[1, 0, 1]],
    }
    for (coding, count), planes in expected.items():
        count = min(count, 2) if coding == "binary" else count
        spikes = SpikeTensor.from_count(np.array([count]), coding=coding)
        np.testing.assert_array_equal(expanded(spikes, 3)[0].T, planes)


def test_events_are_ascending_padded_and_signed_by_n_minus_channels():
    train = np.array([[0, 1, 0, -1, 1], [-1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    events = SpikeTensor.from_dense(train, coding="ternary").to_event(4)
    np.testing.assert_array_equal(events.data, [[-2, 1, 4, 5], [-5, 5, 5, 5], [5, 5, 5, 5]])
    assert (events.num_channels, events.num_steps, events.shape) == (5, 3, (5,))


@pytest.mark.parametrize("coding", CODINGS)
def test_from_event_reads_what_to_event_writes(coding):
    counts = random_counts(coding, 4, (2, 7))
    _, train, events = three_views(counts, coding, 4)
    again = jax.jit(lambda data: SpikeTensor.from_event(data, 7, coding=coding).to_dense().data)
    np.testing.assert_array_equal(again(events.data), train.data)


@pytest.mark.parametrize("coding", CODINGS)
def test_all_views_multiply_int8_weights_bit_equal_in_int32(coding):
    counts = random_counts(coding, 6, (2, 3, 11)).astype(np.float32)
    weight = np.random.default_rng(1).integers(-128, 128, (11, 5)).astype(np.int8)
    weight[0] = -128  # its negative does not fit int8
    expected = counts.astype(np.int64) @ weight.astype(np.int64)
    views = three_views(counts, coding, 6)
    for product in products((*views, *(view.to_int8() for view in views)), weight):
        assert product.dtype == jnp.int32
        np.testing.assert_array_equal(product, expected)


@pytest.mark.parametrize("coding", CODINGS)
def test_all_views_multiply_dyadic_weights_bit_equal(coding):
    counts = random_counts(coding, 6, (2, 3, 11)).astype(np.float32)
    weight = np.random.default_rng(1).integers(-64, 65, (11, 5)).astype(np.float32) / 128
    threshold = np.array([0.5, 0.25, 2.0], np.float32)[:, None]
    for product in products(three_views(counts, coding, 6, threshold), weight):
        assert product.dtype == jnp.float32
        np.testing.assert_array_equal(product, counts @ weight * threshold)


def assert_within_bound(product, counts, weight):
    exact = counts @ weight.astype(np.float64)
    bound = 1e-6 * (np.abs(counts) @ np.abs(weight).astype(np.float64))
    assert (np.abs(np.asarray(product, np.float64) - exact) <= bound).all()


@pytest.mark.parametrize(("coding", "num_steps"), [
    ("binary", 20), ("ternary", 20), ("bitwise", 8), ("twos_complement", 8)])
def test_all_views_multiply_random_weights_within_the_bound(coding, num_steps):
    counts = random_counts(coding, num_steps, (16, 784))
    weight = np.random.default_rng(2).uniform(-1, 1, (784, 9)).astype(np.float32)
    for product in products(three_views(counts.astype(np.float32), coding, num_steps), weight):
        assert_within_bound(product, counts, weight)


def test_twos_complement_products_do_not_cancel():
    counts = np.full((1, 784), -1)
    counts[0, 100] = 2**14  # products of plain planes leave 2^14 times a rounding error
    weight = np.random.default_rng(2).uniform(0, 1, (784, 9)).astype(np.float32)
    _, *planes = three_views(counts.astype(np.float32), "twos_complement", 16)
    for product in products(planes, weight):
        assert_within_bound(product, counts, weight)


def test_long_sums_of_events_of_one_sign_do_not_drift():
    counts = np.ones((1, 3000))
    weight = np.random.default_rng(3).uniform(0, 1, (3000, 64)).astype(np.float32)
    events = SpikeTensor.from_event(np.arange(3000)[None, None], 3000)
    assert_within_bound(events.matmul(weight), counts, weight)


@pytest.mark.parametrize("coding", CODINGS)
def test_synapse_keeps_the_steps_and_sums_to_matmul(coding):
    counts = random_counts(coding, 5, (2, 3)).astype(np.float32)
    weight = np.arange(12, dtype=np.float32).reshape(3, 4) / 8 - 0.5
    _, train, events = three_views(counts, coding, 5, 0.5)
    expected = np.asarray(train.data) @ weight * 0.5
    expected *= plane_weights(coding, 5)[:, None, None]

    @jax.jit
    def both(views):
        return [(view.synapse(weight), view.matmul(weight)) for view in views]

    for current, product in both((train, events)):
        np.testing.assert_array_equal(current, expected)
        np.testing.assert_array_equal(np.sum(current, axis=0), product)


def test_bfloat16_weights_and_counts_sum_in_float32():
    counts = jnp.full((1, 300), 3, jnp.bfloat16)
    for product in products(three_views(counts, "binary", 4), jnp.ones((300, 2), jnp.bfloat16)):
        assert product.dtype == jnp.float32
        np.testing.assert_array_equal(product, 900.0)  # 900 is no bfloat16 number


@pytest.mark.parametrize(("coding", "num_steps", "low", "high"), RANGES)
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_counts_out_of_range_saturate_and_are_counted_each_way(coding, num_steps, low, high, dtype):
    counts = np.array([[high + 1, 0, high + 40], [low, high, 1]], dtype)
    if low < 0:
        counts = np.concatenate([counts, np.array([[low - 1, high, low - 40]], dtype)])
    spikes = SpikeTensor.from_count(counts, coding=coding)
    _, saturated, again = expanded(spikes, num_steps)
    np.testing.assert_array_equal(saturated, [2, 0, 2][: len(counts)])
    np.testing.assert_array_equal(again, np.clip(counts, low, high))
    with pytest.raises(ValueError, match="all entries must fit, got .* that do not"):
        spikes.to_dense(num_steps, overflow="error")


def test_negative_counts_nan_and_fractions_made_under_jit_are_counted_not_lost():
    @jax.jit
    def expand(counts):
        return SpikeTensor.from_count(counts).to_dense(3)
    train = expand(jnp.array([[-1.0, 2.0], [jnp.nan, jnp.inf], [1.5, 3.0]]))
    np.testing.assert_array_equal(train.saturated, [1, 2, 1])
    np.testing.assert_array_equal(train.to_count().data, [[0, 2], [0, 3], [2, 3]])


def test_events_beyond_capacity_are_dropped_and_counted():
    train = np.zeros((3, 2, 5), np.float32)
    train[0, 0] = train[2, 0, 1:] = train[1, 1, :3] = 1
    events = SpikeTensor.from_dense(train).to_event(2)
    np.testing.assert_array_equal(events.saturated, [3 + 2, 1])
    np.testing.assert_array_equal(events.data[:, 0], [[0, 1], [5, 5], [1, 2]])
    np.testing.assert_array_equal(events.num_events(), [4, 2])
    with pytest.raises(ValueError, match="got 6 that do not"):
        SpikeTensor.from_dense(train).to_event(2, overflow="error")


def test_saturation_adds_up_along_conversions():
    spikes = SpikeTensor.from_count(np.array([9, 3, 1]), saturated=4)
    train = spikes.to_dense(3)
    assert train.saturated == 5
    assert train.to_event(1).saturated == 5 + 2 + 1 + 1
    assert train.to_event(1).to_event(3).saturated == 9


def test_a_larger_capacity_only_pads():
    events = SpikeTensor.from_event(np.array([[0, 2], [1, 3]]), 3)
    np.testing.assert_array_equal(events.to_event(4).data, [[0, 2, 3, 3], [1, 3, 3, 3]])
    assert events.to_event(2) is events


def test_int8_counts_clip_and_count():
    counts = np.array([[300.0, -128.0, 5.0], [127.0, -129.0, -400.0]])
    small = SpikeTensor.from_count(counts, coding="ternary").to_int8()
    assert small.data.dtype == jnp.int8
    np.testing.assert_array_equal(small.data, [[127, -128, 5], [127, -128, -128]])
    np.testing.assert_array_equal(small.saturated, [1, 2])
    with pytest.raises(ValueError, match="SpikeTensor.to_int8"):
        SpikeTensor.from_count(counts, coding="ternary").to_int8(overflow="error")


def test_int8_counts_and_planes_decode_beyond_127():
    train = SpikeTensor.from_count(np.array([255, -200]), coding="bitwise").to_dense(8).to_int8()
    assert train.data.dtype == jnp.int8
    np.testing.assert_array_equal(train.to_count().data, [255, -200])
    spikes = SpikeTensor.from_count(np.array([100], np.int8)).to_dense(200)  # 200 is no int8
    np.testing.assert_array_equal(spikes.to_count().data, [100])


@pytest.mark.parametrize(("coding", "expected"), [
    ("binary", [3 + 2, 5]), ("ternary", [3 + 2, 5]), ("bitwise", [2 + 1, 2])])
def test_num_events_counts_the_spikes_of_the_coding_in_every_view(coding, expected):
    counts = np.array([[3, -2], [0, 5]]) if coding in SIGNED else np.array([[3, 2], [0, 5]])
    for view in three_views(counts, coding, 5):
        assert view.num_events().dtype == jnp.int32
        np.testing.assert_array_equal(view.num_events(), expected)


def test_num_events_of_twos_complement_counts_the_ones_of_the_planes():
    spikes, train, events = three_views(np.array([[-1, 2], [5, 0]]), "twos_complement", 4)
    for view in (train, events):
        np.testing.assert_array_equal(view.num_events(), [4 + 1, 2])
    with pytest.raises(ValueError, match=r"call to_dense\(num_steps\) first"):
        spikes.num_events()


def test_gradients_flow_through_rounded_counts_and_weights():
    x = jnp.array([[0.2, 1.6, -2.7], [3.4, 0.9, -0.4]])
    weight = jnp.arange(6.0).reshape(3, 2) - 2.0
    threshold = jnp.array([[0.5], [2.0]])

    def loss(x, weight, threshold):
        spikes = SpikeTensor.from_count(round_ste(x), coding="ternary", threshold=threshold)
        return spikes.matmul(weight).sum()
    grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, weight, threshold)
    s, v = np.round(x), np.asarray(threshold)
    np.testing.assert_allclose(grads[0], v * np.sum(weight, axis=1), rtol=1e-6)
    np.testing.assert_allclose(grads[1], np.repeat((v * s).sum(axis=0)[:, None], 2, 1), rtol=1e-6)
    np.testing.assert_allclose(grads[2][:, 0], (s @ weight).sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("coding", CODINGS)
def test_gradients_reach_a_float_train_through_decoding_and_matmul(coding):
    train = expanded(SpikeTensor.from_count(np.array([1.0, 0.0]), coding=coding), 3)[0]
    weight = np.array([[2.0], [-3.0]], np.float32)
    planes = plane_weights(coding, 3)[:, None].astype(np.float32)

    def decoded(train):
        return SpikeTensor.from_dense(train, coding=coding).to_count().data.sum()

    def multiplied(train):
        return SpikeTensor.from_dense(train, coding=coding).matmul(weight).sum()

    by_count, by_product = jax.jit(lambda t: (jax.grad(decoded)(t), jax.grad(multiplied)(t)))(train)
    np.testing.assert_array_equal(by_count, planes * np.ones((3, 2)))
    np.testing.assert_array_equal(by_product, planes * weight[:, 0])


@pytest.mark.parametrize("coding", CODINGS)
def test_weight_gradient_is_the_same_in_every_view(coding):
    counts = random_counts(coding, 4, (3, 5)).astype(np.float32)
    weight = jnp.zeros((5, 2))
    views = three_views(counts, coding, 4)
    totals = jax.jacrev(lambda weight: [view.matmul(weight).sum() for view in views])
    for gradient in jax.jit(totals)(weight):
        np.testing.assert_array_equal(gradient, np.repeat(counts.sum(axis=0)[:, None], 2, 1))


@pytest.mark.parametrize("coding", CODINGS)
def test_jit_equals_no_jit(coding):
    counts = random_counts(coding, 4, (2, 6)).astype(np.float32)
    weight = jnp.arange(18.0).reshape(6, 3) / 16

    def run(counts):
        spikes = SpikeTensor.from_count(counts, coding=coding, threshold=0.5)
        events = spikes.to_dense(3).to_event(2)
        return events, events.to_count(), events.matmul(weight), spikes.to_int8()
    jax.tree.map(np.testing.assert_array_equal, jax.jit(run)(counts), run(counts))


@pytest.mark.parametrize("coding", CODINGS)
def test_vmap_equals_a_batch(coding):
    counts = random_counts(coding, 4, (3, 2, 6)).astype(np.float32)
    weight = jnp.arange(18.0).reshape(6, 3) / 16

    def run(counts):
        spikes = SpikeTensor.from_count(counts, coding=coding)
        events = spikes.to_dense(4).to_event(4)
        return spikes, events.matmul(weight), events.saturated

    @jax.jit
    def both(counts):
        batched = jax.vmap(run)(counts)
        mapped = jax.vmap(lambda spikes: spikes.matmul(weight))(batched[0])
        return batched, run(counts), mapped

    batched, at_once, mapped = both(counts)
    jax.tree.map(np.testing.assert_array_equal, batched, at_once)
    np.testing.assert_array_equal(mapped, counts @ np.asarray(weight))


def test_flattening_keeps_everything_and_static_fields_are_static():
    events = SpikeTensor.from_event(np.array([[0, 2]]), 2, coding="bitwise", threshold=0.5)
    leaves, structure = jax.tree.flatten(events)
    assert [leaf.shape for leaf in leaves] == [(1, 2), (1,), ()]
    again = jax.tree.unflatten(structure, leaves)
    assert (again.form, again.coding, again.num_channels) == ("event", "bitwise", 2)
    other = SpikeTensor.from_event(np.array([[0, 2]]), 2, coding="binary", threshold=0.5)
    assert structure != jax.tree.structure(other)


def test_threshold_keeps_the_leading_axes():
    spikes = SpikeTensor.from_count(np.ones((2, 3, 4)), threshold=np.array([[0.5], [0.25], [4.0]]))
    assert spikes.threshold.shape == (2, 3, 1)
    np.testing.assert_array_equal(spikes.value()[1], [[0.5] * 4, [0.25] * 4, [4.0] * 4])

"""Encoders: exact laws, and statistics at five standard deviations with fixed keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammainc

from fastsnn_jax import encoding

KEY = jax.random.key(7)
poisson = jax.jit(encoding.poisson, static_argnums=2)  # one program for each shape
RATES = np.array([[0.0, 0.01, 0.08, 0.5, 1.0]], np.float32)
STEPS, SAMPLES = 100, 2000


def long_train():
    """[T, B, N] Poisson spikes with the same five rates in every sample."""
    return np.asarray(poisson(KEY, np.tile(RATES, (SAMPLES, 1)), STEPS))


def test_poisson_mean_and_variance_match_each_pixel_and_step():
    train = long_train()
    p = RATES[0]
    draws = STEPS * SAMPLES
    sigma = np.sqrt(p * (1 - p) / draws)
    assert (np.abs(train.mean((0, 1)) - p) <= 5 * sigma).all()
    per_step = train.mean(1)  # over samples: every step has the same mean
    assert (np.abs(per_step - p) <= 5 * np.sqrt(p * (1 - p) / SAMPLES) + 1e-7).all()
    counts = train.sum(0)  # binomial variance over samples and pixels, steps being independent
    expected = STEPS * p * (1 - p)
    spread = expected * np.sqrt(2 / (SAMPLES - 1))
    assert (np.abs(counts.var(0, ddof=1) - expected) <= 5 * spread).all()


def test_rates_zero_and_one_are_certain():
    train = long_train()
    assert train[..., 0].sum() == 0 and (train[..., -1] == 1).all()


@pytest.mark.parametrize("lag_t, lag_b, lag_n", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (7, 3, 0),
                                                 (1, 1, 1), (0, 0, 32)])
def test_neighbours_in_time_batch_and_channel_are_uncorrelated(lag_t, lag_b, lag_n):
    p = 0.25
    train = np.asarray(poisson(KEY, np.full((31, 67), p, np.float32), 101)) - p
    first = train[: 101 - lag_t, : 31 - lag_b, : 67 - lag_n]
    second = train[lag_t:, lag_b:, lag_n:]
    sigma = p * (1 - p) / np.sqrt(first.size)
    assert abs((first * second).mean()) <= 5 * sigma


def test_different_keys_give_independent_trains():
    p = np.full((31, 67), 0.25, np.float32)
    trains = [
        np.asarray(poisson(jax.random.fold_in(KEY, i), p, 101)) - 0.25 for i in (1, 2)
    ]
    sigma = 0.25 * 0.75 / np.sqrt(trains[0].size)
    assert abs((trains[0] * trains[1]).mean()) <= 5 * sigma


def test_joint_counts_of_pairs_follow_the_product_law():
    p = np.full((64, 784), 0.08, np.float32)
    train = np.asarray(poisson(KEY, p, 50)).reshape(-1, 784)
    both = (train[:, :-1] * train[:, 1:]).sum()
    draws = train.shape[0] * 783
    assert abs(both - draws * 0.0064) <= 5 * np.sqrt(draws * 0.0064)
    rows = train.sum(1)  # events per row are binomial
    expected = 784 * 0.08 * 0.92
    assert abs(rows.var() - expected) <= 5 * expected * np.sqrt(2 / len(rows))


def test_events_are_the_spikes_of_the_dense_train():
    p = np.random.default_rng(0).random((3, 70)).astype(np.float32) * 0.2

    @jax.jit
    def both(p):
        events = encoding.poisson_events(KEY, p, 6, 40)
        return events, events.to_dense().data, encoding.poisson(KEY, p, 6)

    events, expanded, dense = both(p)
    np.testing.assert_array_equal(expanded, dense)
    assert events.saturated.tolist() == [0, 0, 0]


def test_events_that_do_not_fit_are_counted_per_sample():
    p = np.ones((2, 10), np.float32)
    events = encoding.poisson_events(KEY, p, 3, 4)
    assert events.num_events().tolist() == [12, 12] and events.saturated.tolist() == [18, 18]


def test_no_samples_have_no_events():
    events = encoding.poisson_events(KEY, np.zeros((0, 7), np.float32), 3, 5)
    assert events.data.shape == (3, 0, 5) and events.num_events().tolist() == []


@pytest.mark.parametrize("encode", [
    lambda steps, start: encoding.poisson(KEY, np.full((2, 5), 0.4, np.float32), steps,
                                          start=start),
    lambda steps, start: encoding.poisson_events(KEY, np.full((2, 5), 0.4, np.float32), steps, 5,
                                                 start=start).data,
    lambda steps, start: encoding.latency(np.linspace(0, 1, 10, dtype=np.float32).reshape(2, 5),
                                          steps, window=7, start=start),
], ids=["poisson", "poisson_events", "latency"])
def test_windows_join_without_a_seam(encode):
    @jax.jit
    def pieces(start):
        return encode(7, 0), jnp.concatenate([encode(3, 0), encode(4, 3)]), encode(4, start)

    whole, joined, later = map(np.asarray, pieces(3))
    assert len(np.unique(whole)) > 1
    np.testing.assert_array_equal(joined, whole)
    np.testing.assert_array_equal(later, whole[3:])


def test_a_sample_draws_the_same_spikes_in_any_batch_size():
    p = np.full((4, 9), 0.3, np.float32)
    np.testing.assert_array_equal(np.asarray(poisson(KEY, p, 5))[:, :2], poisson(KEY, p[:2], 5))


def test_a_part_of_a_batch_draws_what_it_would_in_the_whole():
    p = np.random.default_rng(0).random((5, 9)).astype(np.float32)
    whole = np.asarray(poisson(KEY, p, 7))
    events = np.asarray(encoding.poisson_events(KEY, p, 7, 9).data)
    for first in (2, jnp.int32(2)):
        np.testing.assert_array_equal(poisson(KEY, p[2:4], 7, first_sample=first), whole[:, 2:4])
        part = encoding.poisson_events(KEY, p[2:4], 7, 9, first_sample=first).data
        np.testing.assert_array_equal(part, events[:, 2:4])
    assert (whole[:, :2] != whole[:, 2:4]).any()


def test_latency_fires_once_and_earlier_for_brighter_pixels():
    x = jnp.array([[1.0, 0.75, 0.5, 0.25]])
    train = encoding.latency(x, 9, threshold=0.5, window=5)
    assert train.sum(0).tolist() == [[1, 1, 1, 0]]
    assert train.argmax(0).tolist()[0][:3] == [0, 2, 4]


@pytest.mark.parametrize("winners", [1, 2, 5, 6, 9])
def test_local_winners_are_the_largest_of_each_block_and_of_equal_ones_the_first(winners):
    x = np.random.default_rng(0).integers(0, 4, (2, 4, 9, 5)).astype(np.float32) / 4
    expected = np.zeros_like(x)
    for sample, row, column, channel in np.ndindex(2, 2, 3, 5):
        block = np.s_[sample, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3, channel]
        best = sorted(np.ndindex(2, 3), key=lambda place: -x[block][place])[:winners]
        for place in best:
            expected[block][place] = x[block][place]
    found = encoding.local_winners(x, winners, (2, 3))
    np.testing.assert_array_equal(found, expected)
    assert bool((found == x).all()) == (winners >= 6)


def test_delta_marks_changes_with_their_sign():
    x = jnp.array([[0.0], [0.5], [0.5], [0.25], [1.0]])
    assert encoding.delta(x, threshold=0.5)[:, 0].tolist() == [0, 1, 0, 0, 1]
    falling = encoding.delta(x[::-1], threshold=0.5)[:, 0].tolist()
    assert falling == [0, -1, 0, 0, -1]
    assert encoding.delta(x[::-1], threshold=0.5, signed=False)[:, 0].tolist() == [0] * 5


def test_direct_repeats_the_input():
    x = jnp.array([[0.25, 0.5]])
    assert encoding.direct(x, 3).tolist() == [[[0.25, 0.5]]] * 3


def test_capacity_holds_the_fullest_rows():
    assert encoding.event_capacity(0.0, 784) == 8
    assert encoding.event_capacity(25.0, 784) == 64
    assert encoding.event_capacity(25.0, 30) == 30
    for mean in np.geomspace(1e-3, 500, 400):  # Poisson tails are those of many rare pixels
        beyond = gammainc(encoding.event_capacity(mean, 10_000) + 1.0, mean)
        assert beyond < 2e-7, mean


@pytest.mark.parametrize("call, message", [
    (lambda: encoding.poisson(KEY, jnp.ones((2, 3)), 0), "num_steps must be >= 1"),
    (lambda: encoding.poisson_events(KEY, jnp.ones((2, 3, 4)), 5, 8), r"must be \[B, N\]"),
    (lambda: encoding.latency(jnp.ones((2, 3)), 5, threshold=1.0), "threshold must be < 1"),
    (lambda: encoding.latency(jnp.ones((2, 3)), 5, threshold=float("nan")), "threshold"),
    (lambda: encoding.local_winners(jnp.ones((2, 4, 3)), 1), r"multiples of \(2, 2\), got \(4, 3"),
    (lambda: encoding.local_winners(jnp.ones((4, 4)), 1), r"must be \[B, H, W"),
    (lambda: encoding.local_winners(jnp.ones((2, 4, 4)), 0), "winners must be >= 1"),
    (lambda: encoding.local_winners(jnp.ones((2, 4, 4)), 1, (0, 2)), "block must be >= 1"),
    (lambda: encoding.local_winners(jnp.ones((2, 4, 4)), 1, (2, 2, 2)), "block must be .height"),
    (lambda: encoding.delta(jnp.ones((2, 3)), threshold=0.0), "threshold must be > 0"),
    (lambda: encoding.delta(jnp.full((2, 3), jnp.nan), threshold=1.0), "input must be finite"),
    (lambda: encoding.poisson(KEY, jnp.full((2, 3), 1.5), 5), r"in \[0, 1\]"),
    (lambda: encoding.poisson(KEY, jnp.full((2, 3), jnp.nan), 5), r"in \[0, 1\]"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_jitted_function_may_close_over_its_input():
    """The range check once traced it."""
    p = jnp.full((2, 3), 0.5)
    np.testing.assert_array_equal(
        jax.jit(lambda key: encoding.poisson(key, p, 4))(KEY), encoding.poisson(KEY, p, 4)
    )


def test_integer_input_is_refused():
    with pytest.raises(TypeError, match="floating"):
        encoding.poisson(KEY, jnp.ones((2, 3), jnp.int32), 5)
    with pytest.raises(TypeError, match="floating"):
        encoding.local_winners(jnp.ones((2, 4, 4), jnp.int32), 1)


def test_a_block_is_a_pair():
    with pytest.raises(TypeError, match="block must be .height, width., got 2"):
        encoding.local_winners(jnp.ones((2, 4, 4)), 1, 2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_probabilities_of_any_float_dtype_keep_their_rate(dtype):
    spikes = encoding.poisson(KEY, jnp.full((50, 40), 0.5, dtype), 20)
    assert spikes.dtype == dtype
    assert abs(np.asarray(spikes, np.float32).mean() - 0.5) <= 5 * 0.5 / np.sqrt(spikes.size)


def test_a_window_of_latency_spikes_needs_the_window_of_the_whole():
    with pytest.raises(ValueError, match="needs a window"):
        encoding.latency(jnp.ones((2, 3)), 5, start=5)

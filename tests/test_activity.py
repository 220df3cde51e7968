"""Spike counts and what they say, against numbers worked out by hand."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.activity import (
    SpikeCount,
    count_spikes,
    count_tokens,
    fan_out,
    firing_rates,
    saturated,
    silent,
    synaptic_events,
    total_tokens,
    warn_unhealthy,
)
from fastsnn_jax.spikes import SpikeTensor

# [T=4, B=2, N=3]; by sample and neuron: 0110, 1111, 0000 and 1010, 1111, 0000
TRAIN = np.array([
    [[0, 1, 0], [1, 1, 0]],
    [[1, 1, 0], [0, 1, 0]],
    [[1, 1, 0], [1, 1, 0]],
    [[0, 1, 0], [0, 1, 0]],
], np.float32)
EVENTS = [[2, 4, 0], [2, 4, 0]]
counted = jax.jit(count_spikes)


def check_count(count, events, nonzero, lost):
    assert count.events.tolist() == events and count.events.dtype == jnp.float32
    assert count.nonzero.tolist() == nonzero and count.nonzero.dtype == jnp.int32
    assert count.saturated.tolist() == lost and count.saturated.dtype == jnp.int32


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.bool_, jnp.bfloat16])
def test_a_dense_train_is_counted_per_neuron_and_in_total(dtype):
    check_count(counted(jnp.asarray(TRAIN, dtype)), EVENTS, [6, 6], [0, 0])


def test_maps_keep_their_shape_and_total_over_all_of_it():
    train = TRAIN.reshape(4, 2, 3, 1, 1)
    count = counted(np.concatenate([train, train], axis=-1))
    assert count.events.shape == (2, 3, 1, 2)
    assert np.asarray(count.events).sum(-1).tolist() == [[[4], [8], [0]], [[4], [8], [0]]]
    assert count.nonzero.tolist() == [12, 12]


def test_spikes_of_either_sign_are_events_and_graded_ones_weigh_their_size():
    train = TRAIN.copy()
    train[0, 0, 1], train[1, 1, 1] = -1.0, 2.5
    check_count(counted(train), [[2, 4, 0], [2, 5.5, 0]], [6, 6], [0, 0])
    signed = SpikeTensor.from_dense(jnp.array([[[1.0, -1.0]], [[-1.0, 0.0]]]), coding="ternary")
    check_count(counted(signed), [[2, 1]], [3], [0])
    check_count(counted(signed.to_event(2)), [[2, 1]], [3], [0])


def test_every_view_of_a_spike_tensor_counts_alike():
    train = SpikeTensor.from_dense(jnp.asarray(TRAIN))
    for view in (train, train.to_event(2), train.to_event(3), train.to_count()):
        check_count(counted(view), EVENTS, [6, 6], [0, 0])


def test_dropped_events_are_not_counted_as_spikes_but_as_saturated():
    narrow = SpikeTensor.from_dense(jnp.asarray(TRAIN)).to_event(1)
    check_count(counted(narrow), [[2, 2, 0], [2, 2, 0]], [4, 4], [2, 2])


def test_counts_that_exceed_their_steps_are_saturated():
    counts = SpikeTensor.from_count(jnp.array([[5.0, 2.0, 0.0], [3.0, 4.0, 9.0]]))
    check_count(counted(counts.to_dense(4)), [[4, 2, 0], [3, 4, 4]], [6, 11], [1, 1])


def test_counting_lets_no_gradient_through_a_total_and_all_of_it_through_events():
    gradient = jax.jit(jax.grad(lambda x: count_spikes(x).events.sum()))(TRAIN)
    np.testing.assert_array_equal(gradient, np.ones_like(TRAIN))
    total = jax.jit(jax.grad(lambda x: count_spikes(x).nonzero.sum().astype(jnp.float32)))
    np.testing.assert_array_equal(total(TRAIN), np.zeros_like(TRAIN))


def test_counts_are_exact_where_a_product_in_bfloat16_would_round():
    train = jnp.ones((1001, 1, 2), jnp.bfloat16)  # 1001 is no bfloat16
    check_count(count_spikes(train), [[1001, 1001]], [2002], [0])


def test_the_rate_is_the_mean_over_batch_and_steps():
    count = SpikeCount(jnp.array([[2.0, 4.0, 0.0], [1.0, 4.0, 0.0]]), None, None)
    assert firing_rates(count, 4).tolist() == [0.375, 1.0, 0.0]


def test_a_neuron_is_silent_that_never_fired_in_the_whole_batch():
    count = SpikeCount(jnp.array([[0.0, 4.0, 0.0], [1.0, 4.0, 0.0]]), None, None)
    assert silent(count).tolist() == [False, False, True]


def test_a_neuron_is_saturated_from_the_given_rate_on():
    count = SpikeCount(jnp.array([[3.0, 4.0, 0.0], [3.0, 3.0, 1.0]]), None, None)
    assert saturated(count, 4, rate=0.875).tolist() == [False, True, False]
    assert saturated(count, 4, rate=0.75).tolist() == [True, True, False]
    assert saturated(SpikeCount(jnp.array([[19.0, 18.0]]), None, None), 20).tolist() == [
        True, False
    ]


@pytest.mark.parametrize("num_steps", [0, -1])
def test_a_rate_needs_steps(num_steps):
    with pytest.raises(ValueError, match="firing_rates: num_steps must be >= 1"):
        firing_rates(count_spikes(jnp.asarray(TRAIN)), num_steps)


def test_fan_out_counts_the_ones_that_leave_each_neuron():
    kernel = jnp.array([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    assert fan_out(lambda s: s @ kernel, (3,)).tolist() == [3.0, 0.0, 1.0]


def test_fan_out_of_a_map_has_the_shape_of_the_map():
    window = lambda s: s[:2] + s[1:]  # noqa: E731 - neighbours: the middle row meets two
    assert fan_out(window, (3, 2)).tolist() == [[1, 1], [2, 2], [1, 1]]


def test_synaptic_events_are_spikes_times_fan_out():
    count = SpikeCount(jnp.array([[2.0, 4.0, 0.0], [1.0, 0.0, 5.0]]), None, None)
    assert synaptic_events(count, jnp.array([10.0, 3.0, 7.0])).tolist() == [32.0, 45.0]


def test_synaptic_events_of_maps_sum_over_all_axes():
    count = SpikeCount(jnp.arange(8.0).reshape(2, 2, 2), None, None)
    fan_outs = jnp.array([[1.0, 10.0], [100.0, 1000.0]])
    assert synaptic_events(count, fan_outs).tolist() == [3210.0, 7654.0]


def test_synaptic_events_need_a_fan_out_for_every_neuron():
    with pytest.raises(ValueError, match=r"neurons' shape \(3,\), got \(4,\)"):
        synaptic_events(count_spikes(jnp.asarray(TRAIN)), jnp.ones(4))


# [B=2, L=1, D=4]; ones of 3, 4, 127 and 64: 2, 1, 7 and 1
COUNTS = np.array([[[3, 0, -4, 0]], [[-127, 127, 0, 64]]], np.float32)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.int8])
def test_tokens_are_counted_in_every_coding_at_once(dtype):
    counts = jnp.asarray(COUNTS, dtype)
    signal = SpikeTensor.from_count(counts, coding="bitwise", saturated=jnp.array([[0], [2]]))
    for tokens in (count_tokens(signal), jax.jit(count_tokens)(signal)):
        assert tokens.active.tolist() == [[2], [3]]
        assert tokens.unary.tolist() == [[7], [318]]
        assert tokens.bit_plane.tolist() == [[3], [15]]
        assert tokens.saturated.tolist() == [[0], [2]]
        np.testing.assert_allclose(
            tokens.log_counts, np.log2(1 + np.abs(COUNTS)).sum(-1), rtol=1e-6
        )
        assert all(leaf.dtype == jnp.int32 for leaf in tokens[:4])


def test_tokens_are_counted_as_their_trains_spike():
    signal = SpikeTensor.from_count(jnp.asarray(COUNTS[:1]), coding="bitwise")
    unary = SpikeTensor.from_count(jnp.asarray(COUNTS[:1]), coding="ternary")
    tokens = count_tokens(signal)
    assert tokens.bit_plane.tolist() == signal.to_dense(3).num_events().tolist()
    assert tokens.unary.tolist() == unary.to_dense(4).num_events().tolist()


def test_totals_leave_out_what_the_mask_does():
    tokens = count_tokens(SpikeTensor.from_count(jnp.asarray(COUNTS), coding="bitwise"))
    activity = {"q": tokens, "k": tokens, "other": jnp.zeros(3)}
    sums = {"active": 5, "unary": 325, "bit_plane": 18, "saturated": 0}
    assert total_tokens(activity) == {"q": sums, "k": sums} and total_tokens({}) == {}
    assert total_tokens(activity, jnp.array([[True], [False]]))["k"]["unary"] == 7


def test_the_logarithm_of_the_counts_is_what_a_penalty_can_push_down():
    def price(counts):
        return count_tokens(SpikeTensor.from_count(counts, coding="bitwise")).log_counts.sum()

    expected = np.sign(COUNTS) / ((1 + np.abs(COUNTS)) * np.log(2))
    np.testing.assert_allclose(jax.jit(jax.grad(price))(COUNTS), expected, rtol=1e-6)


def test_counting_tokens_needs_counts():
    train = SpikeTensor.from_count(jnp.asarray(COUNTS), coding="bitwise").to_dense(7)
    with pytest.raises(ValueError, match="count_tokens: counts are needed, got a dense view"):
        count_tokens(train)


def test_an_unhealthy_layer_is_named_with_its_remedy_and_a_healthy_one_is_not():
    rates = {
        "ok": {"active": 0.9, "saturated": 0.001, "unary": 3.0},
        "dead": {"active": 0.0, "saturated": 0.0},
        "wild": {"active": 1.0, "saturated": 0.25},
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_unhealthy(rates)
    dead, wild = (str(warning.message) for warning in caught)
    assert dead.startswith("dead: silent, 0.000 %") and "raise k or lower the threshold" in dead
    assert wild.startswith("wild: saturated, 25.000 %") and "lower k or raise" in wild
    assert caught[0].filename == __file__

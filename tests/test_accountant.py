"""The accountant against NumPy, by hand and against XLA, on small functions."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accountant_helpers import written_out, xla
from helpers import assert_trees_equal
from jax import lax

from fastsnn_jax.energy.accountant import count

RANDOM = np.random.default_rng(0)


def spikes(shape, rate=0.4, signed=False):
    train = (RANDOM.random(shape) < rate).astype(np.float32)
    return train * RANDOM.choice([-1.0, 1.0], shape).astype(np.float32) if signed else train


W = RANDOM.normal(size=(5, 3)).astype(np.float32)
S = spikes((4, 5))


def products(function, *args, **options):
    return count(function, **options)(*args)[1].products


# Products against brute force


def test_a_product_counts_every_spike_times_its_fan_out():
    (product,) = products(lambda w, s: s @ w, W, S)
    fired = int(sum(s != 0 for s in S.ravel().tolist()))
    assert (product.kind, product.calls, product.macs) == ("weight", 1, 4 * 5 * 3)
    assert (product.operands, product.zero_operands, product.unit_operands) == (20, 20 - fired, 20)
    assert product.effective_macs == product.spike_driven_macs == 3 * fired
    assert (product.lhs_bits, product.rhs_bits) == (32, 32)


def test_spike_driven_is_decided_call_by_call():
    rows = np.stack([spikes((2, 5), signed=True) for _ in range(4)])
    rows[2, 0, 1] = 0.5  # one analog value makes its whole step analog
    rows[3] = 0.0
    (product,) = products(lambda w, rows: lax.scan(lambda c, s: (c, s @ w), 0, rows)[1], W, rows)
    nonzero = [int((step != 0).sum()) for step in rows]
    assert product.calls == 4 and product.macs == 4 * 2 * 5 * 3
    assert product.effective_macs == 3 * sum(nonzero)
    assert product.spike_driven_macs == 3 * (sum(nonzero) - nonzero[2])
    assert product.unit_operands == 40 - 1


@pytest.mark.parametrize("dtype, units", [(np.int8, 5), (np.uint8, 3), (np.float16, 5)])
def test_units_are_minus_one_zero_and_one_of_every_dtype(dtype, units):
    values = np.array([0, 0, 1, -1, -1, 2, -128]).astype(dtype)  # unsigned: 255, 255, 128
    (product,) = products(lax.dot, np.ones((3, 7), dtype), values)
    assert (product.zero_operands, product.unit_operands) == (2, units)
    assert product.effective_macs == 3 * 5 and product.spike_driven_macs == 0
    assert product.lhs_bits == 8 * np.dtype(dtype).itemsize


def test_batched_products_of_any_layout_are_exact():
    left, right = spikes((2, 7, 3, 5)), RANDOM.normal(size=(5, 2, 6, 3)).astype(np.float32)
    numbers = (((3,), (0,)), ((2, 0), (3, 1)))
    (product,) = products(
        lambda w, s: lax.dot_general(s, w, numbers), right, left
    )
    assert product.macs == 2 * 3 * 7 * 6 * 5
    assert product.effective_macs == 6 * int(left.sum())


CONVOLUTIONS = {
    "plain": {},
    "stride": {"strides": (2, 1)},
    "padded": {"padding": ((1, 2), (0, 1))},
    "cropped": {"padding": ((-1, 0), (1, -2))},
    "dilated taps": {"rhs_dilation": (1, 2), "padding": ((1, 1), (2, 2))},
    "dilated input": {"lhs_dilation": (2, 1), "strides": (1, 2), "padding": ((1, 0), (1, 1))},
    "grouped": {"groups": 2, "padding": ((1, 1), (1, 1)), "strides": (2, 2)},
    "batch groups": {"batch_groups": 2, "padding": ((0, 1), (1, 0))},
}


def convolve(w, x, strides=(1, 1), padding=((0, 0), (0, 0)), lhs_dilation=(1, 1),
             rhs_dilation=(1, 1), groups=1, batch_groups=1):
    return lax.conv_general_dilated(
        x, w, strides, padding, lhs_dilation, rhs_dilation, ("NHWC", "HWIO", "NHWC"), groups,
        batch_groups,
    )


def taps_by_hand(x, w, result, strides=(1, 1), padding=((0, 0), (0, 0)), lhs_dilation=(1, 1),
                 rhs_dilation=(1, 1), groups=1, batch_groups=1):
    """(MACs, those whose input is not zero), every tap looked at."""
    samples, channels, features = len(x) // batch_groups, w.shape[2], w.shape[3]
    dense = effective = 0
    for row, column, i, j in itertools.product(*map(range, (*result.shape[1:3], *w.shape[:2]))):
        place = []
        for axis, (out, tap) in enumerate(((row, i), (column, j))):
            at = out * strides[axis] + tap * rhs_dilation[axis] - padding[axis][0]
            inside = at % lhs_dilation[axis] == 0 and 0 <= at // lhs_dilation[axis] < (
                x.shape[1 + axis])
            place.append(at // lhs_dilation[axis] if inside else None)
        if None in place:
            continue
        for sample, channel, feature in itertools.product(
            range(samples), range(channels), range(features)
        ):
            group = feature * groups // features
            part = feature * batch_groups // features
            value = x[part * samples + sample, place[0], place[1], group * channels + channel]
            dense += 1
            effective += value != 0
    return dense, effective


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_counts_the_taps_that_meet_a_spike(name):
    geometry = CONVOLUTIONS[name]
    x, w = spikes((2, 6, 5, 4)), RANDOM.normal(size=(3, 2, 4, 6)).astype(np.float32)
    w = w[:, :, :4 // geometry.get("groups", 1)]
    result, counts = count(partial(convolve, **geometry))(w, x)
    (product,) = counts.products
    dense, effective = taps_by_hand(x, w, result, **geometry)
    assert (product.macs, product.effective_macs) == (dense, effective)
    assert product.spike_driven_macs == effective and counts.coverage == 1.0


@pytest.mark.parametrize("name", ["stride", "grouped", "dilated input", "batch groups"])
def test_convolutions_of_the_backward_pass_have_the_same_taps(name):
    x, w = spikes((2, 6, 5, 4)), RANDOM.normal(size=(3, 2, 4, 6)).astype(np.float32)
    w = w[:, :, :4 // CONVOLUTIONS[name].get("groups", 1)]
    apply = partial(convolve, **CONVOLUTIONS[name])
    cotangent = RANDOM.normal(size=jax.eval_shape(apply, w, x).shape).astype(np.float32)
    backward = products(lambda w, x, c: jax.vjp(apply, w, x)[1](c), w, x, cotangent)
    dense, effective = taps_by_hand(x, w, jax.eval_shape(apply, w, x), **CONVOLUTIONS[name])
    assert sorted((product.kind, product.macs) for product in backward) == [
        ("activation", dense), ("weight", dense)]
    (gradient,) = (product for product in backward if product.kind == "activation")
    assert gradient.effective_macs == effective


# What a weight is


def stack_and_scan(w, x):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]


def looked_up(w, tokens):
    return w[tokens] @ w.T


def expert(w, x):
    return x @ w[jnp.argmax(x.sum(-1)) % 2]


KINDS = {
    "transposed": (lambda w, x: x @ w.T, np.ones((3, 5)), S, ["weight"]),
    "masked, scaled and quantised": (
        lambda w, x: x @ jnp.round(jnp.where(w > 0, w, 0) * 2 / jnp.abs(w).max()), W, S,
        ["weight"]),
    "in int8": (lambda w, x: lax.dot(x.astype(jnp.int8), w), W.astype(np.int8), S, ["weight"]),
    "scanned over": (stack_and_scan, np.ones((2, 5, 5)), S, ["weight"]),
    "carried": (lambda w, x: lax.fori_loop(0, 2, lambda _, c: (c[0] * 2, c[1] @ c[0]), (w, x))[1],
                np.ones((5, 5)), S, ["weight"]),
    "overwritten by data": (
        lambda w, x: lax.fori_loop(0, 2, lambda _, c: (c[1].T @ c[1], c[1] @ c[0]), (w, x))[1],
        np.ones((5, 5)), S, ["activation", "activation"]),
    "of an embedded token": (looked_up, W, np.array([1, 0]), ["weight"]),
    "an expert's": (expert, np.ones((2, 5, 3)), S, ["weight"]),
    "of two inputs": (lambda w, x: x @ x.T, W, S, ["activation"]),
    "scaled by data": (lambda w, x: x @ (w * x.sum()), W, S, ["activation"]),
    "chosen by data": (lambda w, x: lax.cond(x.sum() > 3, lambda: x @ w, lambda: x @ (2 * w)),
                       W, S, ["weight", "weight"]),
    "in a gradient": (jax.grad(lambda w, x: jnp.tanh(jnp.tanh(x @ w) @ w.T).sum()), W, S,
                      ["weight", "weight", "activation", "weight", "activation"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_weight_is_what_comes_from_parameters_alone(name):
    function, w, x, expected = KINDS[name]
    w = w.astype(np.float32) if w.dtype == np.float64 else w
    assert sorted(p.kind for p in products(function, w, x)) == sorted(expected)


def test_parameters_are_the_arguments_said_to_be_and_what_is_closed_over():
    assert [p.kind for p in products(lambda x, w: x @ w, S, W, parameters=(1,))] == ["weight"]
    assert [p.kind for p in products(lambda x, w: x @ w, S, W, parameters=())] == ["activation"]
    (product,) = products(lambda x: x @ W, S, parameters=())
    assert product.kind == "weight" and product.operands == S.size


def test_step_counters_and_keys_among_the_parameters_are_data():
    def function(state, w):
        return (jax.random.uniform(state["key"], (4, 5)) < 0.5).astype(jnp.float32) @ w

    (product,) = products(function, {"key": jax.random.key(0), "step": 3}, W, parameters=(0, 1))
    assert product.kind == "weight" and product.operands == 20


def test_of_two_activations_the_sparser_is_the_data_side():
    dense = np.ones((5, 2), np.float32)
    for function in (lambda s, d: s @ d, lambda s, d: (d.T @ s.T).T):
        (product,) = products(function, S, dense, parameters=())
        assert product.operands == S.size and product.effective_macs == 2 * int(S.sum())


# Control flow


def test_work_grows_exactly_with_the_length_of_a_scan():
    def function(w, x, length):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w) + x, None), x, None, length)[0]

    square = np.ones((5, 5), np.float32)
    flops = {n: count(partial(function, length=n))(square, S)[1].flops for n in (0, 1, 2, 7)}
    body = 2 * 4 * 5 * 5 + 4 * 5  # product and addition; tanh is no flop
    assert flops == {n: n * body for n in flops}


def test_a_while_counts_the_trips_it_made_and_a_cond_the_branch_it_took():
    @jax.jit
    def function(w, x, turns):
        def body(state):
            i, total = state
            more = lax.cond(i % 3 == 0, lambda: x @ w, lambda: jnp.zeros((4, 3)))
            return i + 1, total + more

        return lax.while_loop(lambda state: state[0] < turns, body, (0, jnp.zeros((4, 3))))

    counted = count(function)
    for turns in (0, 1, 7):
        output, counts = counted(W, S, turns)
        assert_trees_equal(output, function(W, S, turns))
        (product,) = counts.products
        assert product.calls == -(-turns // 3) and product.macs == product.calls * 60
        assert product.effective_macs == product.calls * 3 * int(S.sum())
        # A turn adds 1 to i and a map to the total, and the loop ends by one more comparison.
        assert counts.elementwise.get("add", 0) >= 13 * turns and counts.coverage == 1.0
        assert counts.elementwise["compare"] >= turns + 1


def test_loops_count_what_they_count_written_out():
    def function(w, x, scales):
        def outer(x, scale):
            def inner(x, _):
                return jnp.tanh(scale * x @ w), None

            return lax.scan(inner, x, None, 3)[0], x.sum()

        return lax.scan(outer, x, scales, reverse=True)

    args = RANDOM.normal(size=(5, 5)).astype(np.float32), S, np.float32([1, 0])
    (_, loops), (_, flat) = count(function)(*args), count(written_out(function))(*args)
    (one,) = loops.products
    assert one.calls == len(flat.products) == 6
    for name in ("macs", "operands", "zero_operands", "unit_operands", "effective_macs",
                 "spike_driven_macs"):
        assert getattr(one, name) == sum(getattr(product, name) for product in flat.products)
    assert loops.flops == xla(written_out(function), *args)[0]


# The whole of it


def test_primitives_without_a_rule_are_named_and_never_complete():
    _, counts = count(lambda x: lax.fori_loop(0, 3, lambda _, x: jnp.fft.fft(x).real, x) * 2)(S)
    assert counts.unknown == {"fft": 3} and not counts.complete
    assert count(lambda x: jnp.sin(x) * 2)(S)[1].complete


def test_a_program_counts_again_without_being_traced_again():
    traces = []

    def function(w, x):
        traces.append(x.shape)
        return x @ w

    counted = count(function)
    first, second = counted(W, S)[1], counted(W, 0 * S)[1]
    assert traces == [(4, 5)] and first.flops == second.flops
    assert second.products[0].effective_macs == 0
    counted(W, S[:2])
    assert traces == [(4, 5), (2, 5)]


def test_faults_are_refused_with_one_message():
    for wrong in (lambda: count(3), lambda: count(jnp.sin)("a"), lambda: count(jnp.sin)(object()),
                  lambda: count(jnp.sin, parameters=1), lambda: count(jnp.sin, parameters=("w",))):
        with pytest.raises(TypeError, match="^count: "):
            wrong()
    for wrong in (lambda: count(jnp.sin, parameters=(1,))(S),
                  lambda: count(jnp.sin, parameters=(-1,))):
        with pytest.raises(ValueError, match="^count: .*parameters"):
            wrong()

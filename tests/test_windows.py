"""Windows of time: what is summed, what a gradient stores and what it runs again."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from fastsnn_jax import windows
from fastsnn_jax.encoding import poisson_events
from fastsnn_jax.models import MLP
from fastsnn_jax.neurons import lif
from fastsnn_jax.unroll import unroll
from fastsnn_jax.windows import AT_ONCE, WINDOW, sum_windows, unroll_windows

B, CHANNELS, HIDDEN, CLASSES, STEPS = 2, 7, 5, 3, 4
MODEL = MLP((HIDDEN, CLASSES), lif(0.5))
PROBABILITY = 0.7 * np.random.default_rng(0).random((B, CHANNELS), np.float32)
VARIABLES = MODEL.init(jax.random.key(0), jnp.zeros((1, 1, CHANNELS)))


def network(variables, state, start, model=MODEL):
    spikes = poisson_events(jax.random.key(1), PROBABILITY, STEPS, CHANNELS, start=start)
    return model.apply(variables, state, spikes, method="run")


def loss(walk, number, model=MODEL):
    """Of logits and last state over ``number`` windows, with weights that tell all apart."""
    weights = jnp.arange(1.0, 1 + B * CLASSES).reshape(B, CLASSES)

    def of(variables):
        starts = STEPS * jnp.arange(number)
        step, rest = partial(network, model=model), model.rest(B, (CHANNELS,))
        state, (logits, _) = walk(step, variables, rest, starts)
        return (weights * logits.sum(0)).sum() + sum(jnp.sum(layer.v) for layer in state)

    return of


@pytest.mark.parametrize("stored", [1, 5])
def test_windows_give_the_values_and_gradients_of_the_plain_loop(stored, monkeypatch):
    monkeypatch.setattr(windows, "_STORED", stored)  # below the number of windows, and at it
    starts, rest = STEPS * jnp.arange(5), MODEL.rest(B, (CHANNELS,))
    outputs = unroll(network, VARIABLES, rest, starts)
    assert_trees_equal(unroll_windows(network, VARIABLES, rest, starts), outputs)
    gradient = jax.grad(loss(unroll, 5))(VARIABLES)
    for leaf in jax.tree.leaves(gradient):
        assert (np.asarray(leaf) != 0).any()
    assert_trees_close(jax.grad(loss(unroll_windows, 5))(VARIABLES), gradient, 1e-6)


def loops(walk, model=MODEL):
    """Loops over time, words and event slots in the gradient's program."""
    program = str(jax.make_jaxpr(jax.grad(loss(walk, 2, model)))(VARIABLES))
    return tuple(program.count(f" {kind}[") for kind in ("scan", "while"))


def test_a_few_windows_run_no_loop_again_in_the_backward_pass(monkeypatch):
    once = loops(unroll)
    assert min(once) > 0
    assert loops(unroll_windows) == once
    monkeypatch.setattr(windows, "_STORED", 1)
    assert min(a - b for a, b in zip(loops(unroll_windows), once, strict=True)) > 0


def test_a_neuron_that_marks_nothing_runs_again_but_no_event_is_drawn_again(monkeypatch):
    delayed = MLP((HIDDEN, CLASSES), lif(0.5, reset_delay=True))
    once, few = loops(unroll, delayed), loops(unroll_windows, delayed)
    monkeypatch.setattr(windows, "_STORED", 1)
    many = loops(unroll_windows, delayed)
    assert few[0] - once[0] == 2  # the time loop of each layer
    assert many[0] - few[0] == 2  # the encoder's, over words and over slots


def test_a_few_windows_store_membranes_and_events_and_many_only_states(monkeypatch):
    def stored_bytes(walk, number):
        pull = jax.vjp(loss(walk, number), VARIABLES)[1]
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))

    def per_window(walk):
        return (stored_bytes(walk, 12) - stored_bytes(walk, 8)) / 4

    states = 4 * B * (HIDDEN + CLASSES)
    # Membranes of 4 bytes, and a slot of 2 for each channel.
    marked = STEPS * B * (4 * (HIDDEN + CLASSES) + 2 * CHANNELS)
    assert marked <= per_window(unroll_windows) <= marked + 2 * states + 8
    assert per_window(unroll) > per_window(unroll_windows)
    monkeypatch.setattr(windows, "_STORED", 1)
    assert states <= per_window(unroll_windows) <= states + 8


@pytest.mark.parametrize("num_steps", [
    1, AT_ONCE, AT_ONCE + 1, 3 * WINDOW, 3 * WINDOW + 1, 20 * WINDOW, 20 * WINDOW - 1,
])
def test_every_step_is_run_once_and_in_order(num_steps):
    def run(factor, state, start, steps):
        times = start + jnp.arange(steps)
        in_order = jnp.all(times == state + jnp.arange(steps))
        return state + steps, {"sum": factor * times.sum(), "out of order": ~in_order * 1}

    state, sums = jax.jit(lambda factor: sum_windows(run, factor, jnp.int32(0), num_steps))(2)
    assert int(state) == num_steps
    assert int(sums["sum"]) == num_steps * (num_steps - 1)
    assert int(sums["out of order"]) == 0


@pytest.mark.parametrize("num_steps, stored", [(AT_ONCE + 3, 1), (3 * WINDOW, 2)])
def test_sums_over_windows_have_the_values_and_gradients_of_one_piece(
    num_steps, stored, monkeypatch
):
    monkeypatch.setattr(windows, "_STORED", stored)  # below the windows before the last, and at it

    def run(variables, state, start, steps):
        spikes = poisson_events(jax.random.key(1), PROBABILITY, steps, CHANNELS, start=start)
        return MODEL.apply(variables, state, spikes, method="run")

    def loss(walk, variables):
        state, (logits, activity) = walk(run, variables, MODEL.rest(B, (CHANNELS,)))
        weights = jnp.arange(1.0, 1 + B * CLASSES).reshape(B, CLASSES)
        return (weights * logits).sum() + state[0].v.sum(), (state, logits, activity)

    def whole(run, variables, state):
        return run(variables, state, 0, num_steps)

    def windowed(run, variables, state):
        return sum_windows(run, variables, state, num_steps)

    gradient = jax.jit(jax.grad(loss, argnums=1, has_aux=True), static_argnums=0)
    (of_whole, outputs), (of_windows, sums) = (gradient(w, VARIABLES) for w in (whole, windowed))
    assert_trees_close(sums, outputs, 1e-6)
    for leaf in jax.tree.leaves(of_whole):
        assert (np.asarray(leaf) != 0).any()
    assert_trees_close(of_windows, of_whole, 1e-5)


@pytest.mark.parametrize("num_steps, error", [
    (0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError),
])
def test_no_steps_are_refused(num_steps, error):
    with pytest.raises(error, match="sum_windows: num_steps must be"):
        sum_windows(lambda *_: None, None, None, num_steps)


@pytest.mark.parametrize("inputs, message", [
    ({}, "unroll_windows: inputs must hold"),
    (jnp.int32(1), "unroll_windows: every input needs T"),
    (jnp.zeros((0,)), "unroll_windows: inputs must have at least one"),
])
def test_no_windows_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        unroll_windows(network, VARIABLES, MODEL.rest(B, (CHANNELS,)), inputs)

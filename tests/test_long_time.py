"""Long T in windows: the whole network, encoder included, is one step of `unroll_windows`."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from fastsnn_jax.encoding import poisson, poisson_events
from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.neurons import lif
from fastsnn_jax.windows import sum_windows, unroll_windows

B, CLASSES = 3, 4
NEURON = lif(0.5, learn=("decay",))
NETWORKS = {
    "mlp": (MLP((6, CLASSES), NEURON), (11,), poisson),
    "mlp_events": (MLP((6, CLASSES), NEURON), (11,), partial(poisson_events, capacity=11)),
    "cnn": (CNN((5,), CLASSES, NEURON), (5, 6, 1), poisson),
}
KEY = jax.random.key(3)
every_network = pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mlp_events", "cnn"))]
)


@cache
def started(name):
    model, shape, encode = NETWORKS[name]
    probability = 0.8 * np.random.default_rng(0).random((B, *shape), np.float32)
    variables = jax.jit(model.init)(jax.random.key(1), np.zeros((1, B, *shape), np.float32))
    variables = jax.tree.map(
        lambda leaf: np.round(64 * (1.5 * np.asarray(leaf) + 0.15)) / 64, variables)
    return model, encode, variables, probability


def at_once(model, encode, num_steps, variables, probability):
    """(logits, activity) of all T in one piece."""
    return model.apply(variables, encode(KEY, probability, num_steps))


def in_windows(model, encode, num_steps, window, variables, probability):
    """The same, a window of time after the other."""

    def step(variables, state, start):
        spikes = encode(KEY, probability, window, start=start)
        return model.apply(variables, state, spikes, method="run")

    rest = model.rest(len(probability), probability.shape[1:])
    starts = jnp.arange(0, num_steps, window)
    outputs = unroll_windows(step, variables, rest, starts)[1]
    return jax.tree.map(lambda leaf: leaf.sum(0), outputs)


def summed(model, encode, num_steps, variables, probability):
    """The same, as a recipe walks it."""

    def run(variables, state, start, steps):
        spikes = encode(KEY, probability, steps, start=start)
        return model.apply(variables, state, spikes, method="run")

    rest = model.rest(len(probability), probability.shape[1:])
    return sum_windows(run, variables, rest, num_steps)[1]


@every_network
def test_logits_and_counts_of_windows_add_up_to_those_of_one_run(name):
    model, encode, *given = started(name)
    whole = jax.jit(partial(at_once, model, encode, 12))(*given)
    windows = jax.jit(partial(in_windows, model, encode, 12, 3))(*given)
    for count in whole[1].values():
        assert (np.asarray(count.events) > 0).any()
    assert_trees_equal(windows, whole)


@every_network
def test_the_gradient_through_windows_is_that_of_one_run(name):
    model, encode, *given = started(name)
    weights = np.random.default_rng(2).normal(size=(B, CLASSES)).astype(np.float32)

    def gradient(run):
        return jax.jit(jax.grad(lambda *given: (weights * run(*given)[0]).sum()))(*given)

    whole = gradient(partial(at_once, model, encode, 12))
    for leaf in jax.tree.leaves(whole):
        assert (np.asarray(leaf) != 0).any()
    assert_trees_close(gradient(partial(in_windows, model, encode, 12, 3)), whole, 1e-5)


def gradient_bytes(run, num_steps):
    """Temporary memory of the compiled gradient of ``run`` on a network of 784-400-10."""
    model = MLP(neuron=NEURON)
    variables = jax.eval_shape(model.init, KEY, jnp.zeros((1, 1, 784)))
    probability = jax.ShapeDtypeStruct((8, 784), jnp.float32)
    gradient = jax.grad(lambda *given: run(model, poisson, num_steps, *given)[0].sum())
    compiled = jax.jit(gradient).lower(variables, probability).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_of_the_gradient_does_not_grow_with_the_number_of_windows():
    stored, short, long = (gradient_bytes(summed, steps) for steps in (400, 800, 1600))
    assert stored > 4 * 400 * 8 * 400  # a few windows hold the membranes at least
    assert long <= 1.5 * stored
    assert long <= 1.5 * short  # many hold their states only
    assert gradient_bytes(at_once, 1600) > 5 * long  # what windows are for

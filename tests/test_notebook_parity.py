"""Our network with the notebook's neuron against an independent NumPy one, forward and backward."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy_notebook
import pytest

from fastsnn_jax.models import MLP
from fastsnn_jax.neurons import lif_preset

T, B, SIZES = 6, 3, (11, 7, 5)


def model_of(weights, decay):
    """Our model and its variables, with the weights of the NumPy network."""
    features = tuple(bias.size for _, bias in weights)
    model = MLP(features=features, neuron=lif_preset("notebook", decay=decay))
    params = {
        f"dense{number}": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
        for number, (kernel, bias) in enumerate(weights)
    }
    return model, {"params": params}


@partial(jax.jit, static_argnums=(0, 3))
def apply(model, variables, spikes, trace=()):
    return model.apply(variables, spikes, trace)


@partial(jax.jit, static_argnums=0)
def loss_and_gradient(model, params, spikes, labels):
    def cross_entropy(params):
        logits, _ = model.apply({"params": params}, spikes)
        return -jax.nn.log_softmax(logits)[jnp.arange(B), labels].mean()

    return jax.value_and_grad(cross_entropy)(params)


def random_weights(random, sizes, scale=1.0):
    """A little excitation on average, so that every layer fires; float32."""
    return [
        (
            random.normal(scale / fan_in, scale / np.sqrt(fan_in), (fan_in, fan_out))
            .astype(np.float32),
            random.normal(0.1, 0.1, fan_out).astype(np.float32),
        )
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True)
    ]


def dyadic_weights(random, sizes):
    """The same in multiples of 1/64."""
    return [
        ((kernel * 64).round() / 64, (bias * 64).round() / 64)
        for kernel, bias in random_weights(random, sizes)
    ]


def spike_trains(random, num_steps, batch_size, num_inputs, rate):
    return (random.random((num_steps, batch_size, num_inputs)) < rate).astype(np.float32)


def doubled(weights):
    return [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in weights]


def counts_of(activity):
    """Spikes of each layer from the hidden one on, [B, N]."""
    return [np.asarray(activity[key].events) for key in ("dense1/kernel", "output")]


@pytest.mark.parametrize("decay, num_steps", [(0.875, T), (0.5, 16)])
def test_logits_and_counts_are_exact_on_dyadic_parameters(decay, num_steps):
    random = np.random.default_rng(2)
    weights = dyadic_weights(random, SIZES)
    spikes = spike_trains(random, num_steps, B, SIZES[0], 0.3)
    layers = numpy_notebook.forward(weights, spikes, decay)
    for layer, exact in zip(
        layers, numpy_notebook.forward(doubled(weights), spikes, decay), strict=True
    ):
        np.testing.assert_array_equal(layer.charged, exact.charged)  # float32 rounds nowhere
        assert 0.05 < layer.spikes.mean() < 0.95

    model, variables = model_of(weights, decay)
    logits, activity = apply(model, variables, spikes)
    np.testing.assert_array_equal(logits, layers[-1].spikes.sum(0))
    np.testing.assert_array_equal(activity["dense0/kernel"].events, spikes.sum(0))
    for events, layer in zip(counts_of(activity), layers, strict=True):
        np.testing.assert_array_equal(events, layer.spikes.sum(0))


def test_a_membrane_exactly_at_threshold_fires():
    weights = [(np.full((1, 1), 0.5, np.float32), np.full(1, 0.5, np.float32))] * 2
    model, variables = model_of(weights, 0.5)
    spikes = np.array([1, 0, 0], np.float32).reshape(3, 1, 1)
    hidden, _ = numpy_notebook.forward(weights, spikes, 0.5)
    assert hidden.charged[:, 0, 0].tolist() == [1.0, 0.5, 0.75]
    logits, activity = apply(model, variables, spikes)
    assert [events.tolist() for events in counts_of(activity)] == [[[1.0]], [[1.0]]]
    assert logits.tolist() == [[1.0]]


def test_at_most_a_millionth_of_the_spikes_differs_on_random_floats():
    random = np.random.default_rng(0)
    sizes, num_steps, batch_size = (784, 400, 10), 50, 64
    weights = random_weights(random, sizes, scale=3.0)
    spikes = spike_trains(random, num_steps, batch_size, sizes[0], 0.01)
    exact = numpy_notebook.forward(doubled(weights), spikes, 0.9)
    model, variables = model_of(weights, 0.9)
    names = ("dense0", "dense1")
    traces = apply(model, variables, spikes, names)[2]
    different = total = 0
    for name, layer in zip(names, exact, strict=True):
        assert 0.01 < layer.spikes.mean() < 0.9
        different += (np.asarray(traces[name].spikes) != layer.spikes).sum()
        total += layer.spikes.size
    assert total > 1_000_000
    assert different <= 1e-6 * total


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_gradients_of_cross_entropy_are_those_derived_by_hand(seed):
    random = np.random.default_rng(seed)
    weights = random_weights(random, SIZES)
    spikes = spike_trains(random, 20, B, SIZES[0], 0.3)
    labels = random.integers(0, SIZES[-1], B)
    # A spike that rounding could flip would be a difference in values, tested above.
    for layer in numpy_notebook.forward(doubled(weights), spikes, 0.9):
        assert np.abs(layer.charged - numpy_notebook.THRESHOLD).min() > 1e-5
    loss, gradient = numpy_notebook.loss_and_gradient(doubled(weights), spikes, labels, 0.9)
    model, variables = model_of(weights, 0.9)
    actual_loss, actual = loss_and_gradient(model, variables["params"], spikes, labels)
    np.testing.assert_allclose(actual_loss, loss, rtol=1e-5)
    for number, leaves in enumerate(gradient):
        for name, expected in zip(("kernel", "bias"), leaves, strict=True):
            tolerance = 1e-5 * np.abs(expected).max()
            assert tolerance > 0
            np.testing.assert_allclose(
                actual[f"dense{number}"][name], expected, rtol=0, atol=tolerance
            )

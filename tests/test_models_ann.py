"""Conventional networks to convert: what they compute, their statistics and their synapses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.activity import fan_out
from fastsnn_jax.models import AnnCNN, AnnMLP, TinyANN

B, T, N = 3, 5, 7
CNN, MAP = AnnCNN((2, 3), 4), (4, 8, 1)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def started(model, x):
    """Variables with biases, scales and statistics that are not their initial zeros and ones."""
    variables = jax.jit(model.init)(jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(variables)
    moved = [leaf + 0.1 * (1 + i) * np.abs(random(*leaf.shape, seed=i))
             for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, moved)


def dense(x, layer):
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def test_tiny_ann_is_dense_gelu_dense_relu_dense():
    model, x = TinyANN(hidden=6, out_dim=2), random(B, T, N)
    variables = started(model, x)
    layers = variables["params"]
    h = dense(x, layers["dense0"])
    h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    h = np.maximum(dense(h, layers["dense1"]), 0)
    y = model.apply(variables, x)
    assert y.shape == (B, T, 2)
    np.testing.assert_allclose(y, dense(h, layers["dense2"]), rtol=1e-4, atol=1e-5)


def test_the_mlp_is_dense_relu_twice_and_dense_on_flat_images():
    model, x = AnnMLP((6, 5), 4), random(B, 2, 3, 1)
    variables = started(model, x)
    layers = variables["params"]
    h = np.maximum(dense(x.reshape(B, 6), layers["dense0"]), 0)
    h = np.maximum(dense(h, layers["dense1"]), 0)
    np.testing.assert_allclose(
        model.apply(variables, x), dense(h, layers["dense"]), rtol=1e-4, atol=1e-5
    )
    assert list(variables) == ["params"]


@pytest.fixture(scope="module")
def traced():
    """The CNN's variables, an input, its logits, and what every layer of it gave."""
    x = random(B, *MAP)
    variables = started(CNN, x)
    logits, state = CNN.apply(variables, x, capture_intermediates=True)
    return variables, x, logits, {
        name: np.asarray(layer["__call__"][0])
        for name, layer in state["intermediates"].items() if name != "__call__"
    }


def test_the_cnn_normalises_fires_pools_by_the_mean_and_reads_out(traced):
    variables, _, logits, layers = traced
    params, statistics = variables["params"], variables["batch_stats"]
    signal = None
    for i in range(2):
        scale, bias = (np.asarray(params[f"norm{i}"][key]) for key in ("scale", "bias"))
        mean, var = (np.asarray(statistics[f"norm{i}"][key]) for key in ("mean", "var"))
        normal = (layers[f"conv{i}"] - mean) / np.sqrt(var + 1e-5) * scale + bias
        np.testing.assert_allclose(layers[f"norm{i}"], normal, rtol=1e-4, atol=1e-5)
        signal = np.maximum(normal, 0)
        batch, height, width, channels = signal.shape
        signal = signal.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    expected = dense(signal.reshape(B, -1), params["dense"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_synapses_of_the_cnn_are_its_layers_times_the_cells_of_a_pool(traced):
    variables, x, logits, layers = traced
    conv0, conv1, readout = CNN.synapses(variables, MAP).values()
    np.testing.assert_allclose(conv0(x[1]), layers["conv0"][1], rtol=1e-4, atol=1e-5)
    fired = [np.maximum(layers[f"norm{i}"][1], 0) for i in range(2)]
    np.testing.assert_allclose(conv1(fired[0]), 4 * layers["conv1"][1], rtol=1e-4, atol=1e-5)
    bias = np.asarray(variables["params"]["dense"]["bias"])
    np.testing.assert_allclose(readout(fired[1]), 4 * (logits[1] - bias), rtol=1e-4, atol=1e-4)


def test_a_spike_reaches_what_lies_around_its_own_pool_and_no_more():
    x = random(1, 8, 8, 1)
    ones = jax.tree.map(jnp.ones_like, jax.jit(CNN.init)(jax.random.key(0), x))
    fans = {
        key: np.asarray(fan_out(synapse, shape)) for (key, synapse), shape in zip(
            CNN.synapses(ones, (8, 8, 1)).items(), [(8, 8, 1), (8, 8, 2), (4, 4, 3)], strict=True
        )
    }
    # Of 8 x 8 pixels a corner reaches 4 places, of 4 x 4 pools a corner 4 and the middle 9.
    assert fans["conv0/kernel"][0, 0, 0] == 4 * 2 and fans["conv0/kernel"][3, 3, 0] == 9 * 2
    assert fans["conv1/kernel"][1, 1, 0] == 4 * 3 and fans["conv1/kernel"][2, 2, 1] == 9 * 3
    assert np.unique(fans["dense/kernel"]).tolist() == [4]


def test_the_keys_of_the_synapses_are_paths_of_kernels_in_order():
    for model, shape in ((CNN, MAP), (AnnMLP((6, 5), 4), (2, 3, 1)), (TinyANN(6, 2), (N,))):
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *shape)))
        for key, synapse in model.synapses(variables, shape).items():
            layer, kernel = key.split("/")
            outputs = jax.eval_shape(synapse, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
            assert outputs[-1] == variables["params"][layer][kernel].shape[-1]
            shape = outputs  # pooling keeps it: a synapse begins at the spikes


def test_in_training_the_cnn_normalises_by_the_batch_and_keeps_that_batch_alone():
    x = random(B, *MAP)
    variables = started(CNN, x)
    logits, state = CNN.apply(
        variables, x, train=True, mutable=["batch_stats", "intermediates"],
        capture_intermediates=True,
    )
    first = np.asarray(state["intermediates"]["conv0"]["__call__"][0])
    kept = state["batch_stats"]
    np.testing.assert_allclose(kept["norm0"]["mean"], first.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept["norm0"]["var"], first.var((0, 1, 2)), rtol=1e-3, atol=1e-6)
    # With those statistics the network gives in use what it gave in training.
    after = CNN.apply({**variables, "batch_stats": kept}, x)
    np.testing.assert_allclose(after, logits, rtol=1e-4, atol=1e-4)

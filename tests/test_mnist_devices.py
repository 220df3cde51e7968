"""The MNIST recipe on eight devices: alike on one, and only sums travel."""

import numpy as np
import pytest
from processes import on_eight_devices

SCRIPT = """
import json, re
import jax, jax.numpy as jnp, numpy as np, optax
from fastsnn_jax.data import Examples
from fastsnn_jax.recipes.mnist import network, preset
from fastsnn_jax.recipes.mnist.inputs import plan_inputs
from fastsnn_jax.sharding import data_mesh, fitting_mesh, replicate, shard_batch
from fastsnn_jax.train import init_state, make_train_step, rows_of
from fastsnn_jax.train.chunk import Chunk

random = np.random.default_rng(0)
images = random.integers(0, 256, (16, 6, 4, 1)) * (random.random((16, 6, 4, 1)) < 0.5)
examples = Examples(images.astype(np.uint8), random.integers(0, 10, 16).astype(np.int32))


def collectives(config, model, plan, params):
    tx = optax.adam(1e-3)
    source = rows_of(network.device_examples(examples))
    mesh = data_mesh()
    chunk = Chunk(make_train_step(network.make_loss(model, config, plan), tx), source.fetch, mesh)
    compiled = chunk.prepare(
        replicate(mesh, init_state(params, tx, jax.random.key(0))),
        replicate(mesh, source.data(0)), shard_batch(mesh, np.zeros((1, 16), np.int32), axis=1),
    )
    pattern = r"(all-[a-z]+|reduce-scatter|collective-[a-z]+)\\("
    return sorted(set(re.findall(pattern, compiled.as_text())))


def both(**fields):
    config = preset(max_rate_hz=200.0, shift=0.0, stretch=0.0, **fields)
    model = network.build_model(config)
    params = network.init_params(config, model, images.shape[1:], jax.random.key(1))
    plan = plan_inputs(config, examples.images)._replace(synapse=config.input_synapse)
    answers = []
    for network.fitting_mesh in (lambda size: None, fitting_mesh):
        loss = jax.jit(jax.value_and_grad(network.make_loss(model, config, plan), has_aux=True))
        (value, sums), gradient = loss(params, network.device_examples(examples), jax.random.key(2))
        answers.append({
            "loss": float(value), "sums": jax.tree.map(int, sums),
            "gradient": [leaf.tolist() for leaf in jax.tree.leaves(gradient)],
        })
    return {"answers": answers, "collectives": collectives(config, model, plan, params)}


print(json.dumps({
    "event": both(input_synapse="event"),
    "dense": both(input_synapse="dense"),
    "windows": both(input_synapse="event", num_steps=120),
    "few-events": both(protocol="few-events", input_synapse="dense"),
}))
"""
WAYS = ("event", "dense", "windows", "few-events")


@pytest.fixture(scope="module")
def ways():
    return on_eight_devices(SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_eight_devices_draw_the_spikes_and_give_the_gradient_of_one(way, ways):
    one, eight = ways[way]["answers"]
    assert eight["sums"] == one["sums"] and one["sums"]["spikes"]["hidden"] > 0
    assert eight["loss"] == pytest.approx(one["loss"], rel=1e-6)
    for expected, leaf in zip(one["gradient"], eight["gradient"], strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_only_gradients_and_sums_travel(way, ways):
    assert ways[way]["collectives"] == ["all-reduce"]

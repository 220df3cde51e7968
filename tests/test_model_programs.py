"""Programs compiled from whole models: without counts nobody reads, and alike on eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from processes import on_eight_devices

from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.neurons import lif
from fastsnn_jax.nn import SpikingConv, SpikingDense
from fastsnn_jax.spikes import SpikeTensor

T, B, N, HIDDEN, CLASSES = 7, 3, 11, 6, 4
MAP = (7, 6, 2)


def train_of(shape):
    """Random spikes [T, B, *shape]."""
    return jnp.asarray(np.random.default_rng(0).random((T, B, *shape)) < 0.4, jnp.float32)


class Uncounted(nn.Module):
    """The layers of a model by hand, without a count anywhere."""

    @nn.compact
    def __call__(self, x):
        if len(x.shape) == 5:
            x = SpikingConv(3, lif(), strides=(2, 2), name="conv0")(x)[1]
            x = x.reshape(*x.shape[:2], -1)
            x = SpikingDense(CLASSES, lif(), name="dense")(x)[1]
        else:
            x = SpikingDense(HIDDEN, lif(), name="dense0")(x)[1]
            x = SpikingDense(CLASSES, lif(), name="dense1")(x)[1]
        return 1.0 * jnp.sum(x, axis=0, dtype=jnp.float32)


def program(function, *arguments):
    """Optimised HLO, its instructions numbered in order and without the places in our source."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    text = re.sub(r"HloModule \S+|, metadata=\{[^{}]*\}", "", text)
    text = re.sub(r"^(FileNames|FunctionNames|FileLocations|StackFrames)\n(\d+ .*\n)*", "", text,
                  flags=re.MULTILINE)
    numbers: dict[str, str] = {}
    return re.sub(r"%[\w.\-]+", lambda name: numbers.setdefault(name[0], f"%{len(numbers)}"), text)


@pytest.mark.parametrize("form", ["dense", "event", "maps"])
@pytest.mark.parametrize("differentiate", [False, True])
def test_a_program_that_drops_activity_is_that_of_a_model_that_counts_nothing(form, differentiate):
    model = CNN((3,), CLASSES) if form == "maps" else MLP((HIDDEN, CLASSES))
    x = train_of(MAP if form == "maps" else (N,))
    x = SpikeTensor.from_dense(x).to_event(N) if form == "event" else x
    variables = jax.jit(model.init)(jax.random.key(0), x)
    counting, dropping, twin = (
        lambda variables, x: model.apply(variables, x),
        lambda variables, x: model.apply(variables, x)[0],
        lambda variables, x: Uncounted().apply(variables, x),
    )
    if differentiate:
        dropping, twin = (
            jax.grad(lambda v, x, f=f: (f(v, x) ** 2).sum()) for f in (dropping, twin)
        )
    expected = program(twin, variables, x)
    assert "ENTRY" in expected
    assert program(dropping, variables, x) == expected
    assert program(counting, variables, x) != expected


# Eight devices


EIGHT = """
import json, re
import jax, numpy as np
from fastsnn_jax.data import Examples
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan
from fastsnn_jax.sharding import data_mesh, replicate, shard_batch
from fastsnn_jax.train import LoopConfig, init_state, make_train_step, rows_of, train
from fastsnn_jax.train.chunk import Chunk

random = np.random.default_rng(0)
images = (255 * random.random((48, 28, 28, 1)) ** 4).astype(np.uint8)
examples = Examples(images, random.integers(0, 10, 48).astype(np.int32))
outcomes = {}
for name, synapse in (("mlp", "dense"), ("mlp", "event"), ("cnn", "dense")):
    config = preset(model=name, num_steps=6, batch_size=16, epochs=2, max_rate_hz=300.0)
    model = network.build_model(config)
    params = network.init_params(config, model, (28, 28, 1), jax.random.key(0))
    plan = InputPlan(synapse, 256, 0.1)
    tx = network.build_optimiser(config, 6).tx
    step = make_train_step(network.make_loss(model, config, plan), tx, ema_decay=0.9)
    source = rows_of(network.device_examples(examples))
    state = init_state(params, tx, jax.random.key(1), ema=True)
    runs = [
        train(step, source, state, LoopConfig(2, 16), mesh=data_mesh(jax.devices()[:n]))
        for n in (1, 8)
    ]
    mesh = data_mesh()
    compiled = Chunk(step, source.fetch, mesh).prepare(
        replicate(mesh, state), replicate(mesh, source.data(0)),
        shard_batch(mesh, np.zeros((6, 16), np.int32), axis=1),
    )
    leaves = [jax.tree.leaves(jax.device_get(run.params)) for run in runs]
    outcomes[f"{name} {synapse}"] = {
        "difference": max(float(abs(a - b).max()) for a, b in zip(*leaves)),
        "losses": [run.journal.history["losses"] for run in runs],
        "totals": [run.journal.totals for run in runs],
        "collectives": sorted(set(re.findall(
            r"(all-[a-z]+|reduce-scatter|collective-[a-z]+)(?:-start)?\\\\(", compiled.as_text()))),
        "devices": len(runs[1].state.step.sharding.device_set),
    }
print(json.dumps(outcomes))
""".replace("\\\\", "\\")


@pytest.fixture(scope="module")
def eight():
    return on_eight_devices(EIGHT)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp dense", "mlp event", "cnn dense"])
def test_eight_devices_train_a_network_as_one_does(eight, network):
    outcome = eight[network]
    assert outcome["devices"] == 8
    assert outcome["difference"] <= 1e-5
    np.testing.assert_allclose(*outcome["losses"], rtol=1e-5)
    one, other = outcome["totals"]
    assert one == other
    assert one["samples"] == 96 and min(one["spikes"][p] for p in ("input", "hidden")) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp dense", "cnn dense"])
def test_the_step_of_a_dense_network_gathers_no_activations(eight, network):
    assert eight[network]["collectives"] == ["all-reduce"]

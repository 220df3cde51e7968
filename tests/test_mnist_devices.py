"""The MNIST recipe on eight devices learns and counts as on one, and only sums travel."""

import jax
import numpy as np
import pytest
from processes import on_eight_devices

from fastsnn_jax.recipes import mnist
from fastsnn_jax.recipes.mnist import network, pipeline
from fastsnn_jax.sharding import data_mesh

EIGHT = """
import json, re
import jax, numpy as np, optax
from fastsnn_jax.data import Examples
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.inputs import plan_inputs
from fastsnn_jax.sharding import data_mesh, replicate, shard_batch
from fastsnn_jax.train import (
    LoopConfig, init_state, make_evaluate, make_train_step, rows_of, train,
)
from fastsnn_jax.train.chunk import Chunk

random = np.random.default_rng(0)
images = (255 * random.random((48, 28, 28, 1)) ** 2).astype(np.uint8)
examples = Examples(images, random.integers(0, 10, 48).astype(np.int32))
source = rows_of(network.device_examples(examples))
one, eight = data_mesh(jax.devices()[:1]), data_mesh()


def outcome_of(model, synapse, num_steps=6):
    config = preset(model=model, input_synapse=synapse, num_steps=num_steps,
                    batch_size=16, epochs=2, max_rate_hz=300.0)
    model = network.build_model(config)
    params = network.init_params(config, model, (28, 28, 1), jax.random.key(0))
    plan = plan_inputs(config, images)
    tx = optax.sgd(0.1)  # Adam would make a step of a gradient that is rounding and nothing else
    state = init_state(params, tx, jax.random.key(1), ema=True)

    def step(mesh):
        loss = network.make_loss(model, config, plan, mesh=mesh)
        return make_train_step(loss, tx, ema_decay=0.9)

    def counted(mesh):
        metrics = network.make_metrics(model, config, plan, True, mesh)
        return make_evaluate(metrics, source, 32, jax.random.key(2), mesh=mesh)(params)

    runs = [train(step(mesh), source, state, LoopConfig(2, 16), mesh=mesh) for mesh in (one, eight)]
    compiled = Chunk(step(eight), source.fetch, eight).prepare(
        replicate(eight, state), replicate(eight, source.data(0)),
        shard_batch(eight, np.zeros((6, 16), np.int32), axis=1),
    )
    leaves = [jax.tree.leaves(jax.device_get(run.params)) for run in runs]
    return {
        "difference": max(float(abs(a - b).max()) for a, b in zip(*leaves)),
        "losses": [run.journal.history["losses"] for run in runs],
        "totals": [run.journal.totals for run in runs],
        "evaluations": [counted(mesh) for mesh in (one, eight)],
        "collectives": re.findall(
            r"(all-[a-z]+|reduce-scatter|collective-[a-z]+)(?:-start)?\\\\(", compiled.as_text()),
        "devices": len(runs[1].state.step.sharding.device_set),
    }


print(json.dumps({
    "mlp dense": outcome_of("mlp", "dense"),
    "mlp event": outcome_of("mlp", "event"),
    "cnn dense": outcome_of("cnn", "dense"),
    "windows": outcome_of("mlp", "event", num_steps=60),
}))
""".replace("\\\\", "\\")
every_network = pytest.mark.parametrize(
    "network", ["mlp dense", "mlp event", "cnn dense", "windows"]
)


@pytest.fixture(scope="module")
def eight():
    return on_eight_devices(EIGHT)


@pytest.mark.slow
@every_network
def test_eight_devices_train_a_network_as_one_does(eight, network):
    outcome = eight[network]
    assert outcome["devices"] == 8
    assert outcome["difference"] <= 1e-5
    np.testing.assert_allclose(*outcome["losses"], rtol=1e-5)
    one, other = outcome["totals"]
    assert one == other
    assert one["samples"] == 96 and min(one["spikes"][p] for p in ("input", "hidden")) > 1000


@pytest.mark.slow
@every_network
def test_eight_devices_evaluate_a_network_as_one_does(eight, network):
    one, other = eight[network]["evaluations"]
    assert one.pop("loss") == pytest.approx(other.pop("loss"), rel=1e-5)
    assert one == other and one["samples"] == 48


@pytest.mark.slow
@every_network
def test_a_step_gathers_no_activations(eight, network):
    assert set(eight[network]["collectives"]) == {"all-reduce"}


@pytest.mark.slow
def test_windows_of_time_are_added_up_before_anything_travels(eight):
    assert eight["windows"]["collectives"] == eight["mlp event"]["collectives"]


def test_the_recipe_hands_its_mesh_to_the_loss_and_to_the_loop(monkeypatch, tmp_path):
    one, seen = data_mesh(jax.devices()[:1]), []

    class EnoughError(Exception):
        pass

    def stop(*arguments, mesh, **options):
        seen.append(mesh)
        raise EnoughError

    monkeypatch.setattr(pipeline, "fitting_mesh", lambda size: one)
    for name in ("make_loss", "make_metrics"):
        monkeypatch.setattr(network, name, lambda *arguments: seen.append(arguments[-1]))
    monkeypatch.setattr(pipeline, "make_evaluate", lambda *a, mesh: seen.append(mesh))
    monkeypatch.setattr(pipeline, "train", stop)
    with pytest.raises(EnoughError):
        mnist.run(mnist.preset(dataset="digits", smoke=True), tmp_path / "run")
    assert seen == [one] * 4

"""Splitting the batch over devices changes neither the result nor what has to travel."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import on_eight_devices

from fastsnn_jax.sharding import data_mesh, map_rows, replicate, shard_batch, use_cores

SCRIPT = """
import json, re
import jax, numpy as np, optax
import train_toy
from fastsnn_jax.sharding import data_mesh, fitting_mesh, replicate, shard_batch, use_cores
from fastsnn_jax.train import init_state, make_train_step, rows_of
from fastsnn_jax.train.chunk import Chunk

runs = [train_toy.run(epochs=2, mesh=data_mesh(jax.devices()[:n])) for n in (1, 8)]
mesh = data_mesh()
tx = optax.adam(0.01)
source = rows_of(train_toy.samples())
chunk = Chunk(make_train_step(train_toy.loss_fn, tx), source.fetch, mesh)
compiled = chunk.prepare(
    replicate(mesh, init_state(train_toy.params(), tx, jax.random.key(0))),
    replicate(mesh, source.data(0)),
    shard_batch(mesh, np.zeros((25, 8), np.int32), axis=1),
)
in_parts = Chunk(make_train_step(train_toy.loss_fn, tx, accumulate=2), source.fetch, mesh)
in_parts = in_parts.prepare(
    replicate(mesh, init_state(train_toy.params(), tx, jax.random.key(0))),
    replicate(mesh, source.data(0)),
    shard_batch(mesh, np.zeros((12, 16), np.int32), axis=1),
)


def collectives(compiled):
    return sorted(set(re.findall(
        r"(all-[a-z]+|reduce-scatter|collective-[a-z]+)\\(", compiled.as_text())))


print(json.dumps({
    "params": [[leaf.tolist() for leaf in jax.tree.leaves(run.params)] for run in runs],
    "losses": [run.journal.history["losses"] for run in runs],
    "totals": [run.journal.totals for run in runs],
    "validation": [run.journal.history["val_acc"] for run in runs],
    "collectives": [collectives(compiled), collectives(in_parts)],
    "devices": len(runs[1].state.step.sharding.device_set),
    "fitting": [getattr(fitting_mesh(size), "size", None) for size in (64, 12, 7)],
    "told": use_cores(64),
}))
"""
MAPPED = """
import json
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from fastsnn_jax.sharding import data_mesh, map_rows

rows = jnp.asarray(np.random.default_rng(0).standard_normal((16, 3)), jnp.float32)
whole = {"w": jnp.arange(6.0).reshape(3, 2), "key": jax.random.key(0)}


def function(whole, rows, first):
    number = first + jnp.arange(len(rows))
    noise = jax.vmap(lambda n: jax.random.uniform(jax.random.fold_in(whole["key"], n)))(number)
    return {"y": jnp.tanh(rows @ whole["w"]), "number": number, "noise": noise}


def loss(mesh, w, rows):
    out = map_rows(mesh, function, {**whole, "w": w}, rows)
    return (out["y"] ** 2 * out["noise"][:, None]).sum(), out


def of(mesh):
    differentiate = jax.jit(jax.value_and_grad(partial(loss, mesh), (0, 1), has_aux=True))
    (value, out), gradients = differentiate(whole["w"], rows)
    return [leaf.tolist() for leaf in jax.tree.leaves((value, out, gradients))]


print(json.dumps([of(None), of(data_mesh())]))
"""


@pytest.fixture(scope="module")
def eight():
    return on_eight_devices(SCRIPT)


@pytest.mark.slow
def test_eight_devices_train_as_one(eight):
    assert eight["devices"] == 8
    for one, other in zip(*eight["params"], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(*eight["losses"], rtol=1e-6)


@pytest.mark.slow
def test_eight_devices_count_as_one(eight):
    assert eight["totals"][0] == eight["totals"][1]
    assert eight["validation"][0] == eight["validation"][1]


@pytest.mark.slow
def test_a_step_gathers_nothing_only_gradients_and_sums_travel(eight):
    assert eight["collectives"] == [["all-reduce"]] * 2  # the second works in two parts


@pytest.mark.slow
def test_the_default_mesh_has_as_many_devices_as_divide_the_batch(eight):
    assert eight["fitting"] == [8, 4, None]


@pytest.mark.slow
def test_cores_leave_alone_what_xla_was_told(eight):
    assert eight["told"] == 8


@pytest.mark.slow
def test_rows_mapped_over_devices_give_values_and_gradients_of_the_plain_function():
    plain, mapped = on_eight_devices(MAPPED)
    for one, other in zip(plain, mapped, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def test_without_a_mesh_arrays_go_to_one_device():
    placed = shard_batch(None, {"x": np.arange(3)}), replicate(None, np.arange(2))
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(placed))


def test_an_axis_that_cannot_be_split_is_refused():
    mesh = data_mesh(jax.devices()[:1])
    with pytest.raises(ValueError, match="shard_batch: axis 1 must be a multiple of the 1 devices"):
        shard_batch(mesh, np.arange(3), axis=1)
    assert mesh.shape == {"data": 1}


@pytest.mark.parametrize(("batch_size", "cores", "devices"), [
    (64, 1, 1), (64, 2, 2), (64, 16, 2), (63, 4, 1), (128, 3, 2), (96, 3, 3), (96, 8, 3),
    (1024, 8, 8), (16, 8, 1),
])
def test_cores_share_a_batch_evenly_with_thirty_two_samples_each(
    batch_size, cores, devices, monkeypatch
):
    asked = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(type(jax.config), "update", lambda self, name, to: asked.update({name: to}))
    assert use_cores(batch_size) == jax.local_device_count()
    assert asked == {"jax_num_cpu_devices": devices}


def test_where_jax_has_its_devices_they_stay():
    before = jax.local_devices()
    assert use_cores(1024) == len(before) and jax.local_devices() == before
    with pytest.raises(ValueError, match="use_cores: batch_size must be >= 1"):
        use_cores(0)


def test_on_one_device_mapped_rows_are_the_function_called_once():
    def function(whole, rows, first):
        return {"y": whole * rows, "number": first + jnp.arange(len(rows))}

    for mesh in (None, data_mesh(jax.devices()[:1])):
        mapped = map_rows(mesh, function, 2.0, jnp.arange(3.0))
        assert jax.tree.map(np.ndarray.tolist, jax.device_get(mapped)) == {
            "y": [0.0, 2.0, 4.0], "number": [0, 1, 2]}

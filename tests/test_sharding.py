"""Splitting the batch over devices changes neither the result nor what has to travel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import on_eight_devices

from fastsnn_jax.sharding import data_mesh, map_rows, replicate, shard_batch

SCRIPT = """
import json, re
import jax, numpy as np, optax
import train_toy
from fastsnn_jax.sharding import data_mesh, fitting_mesh, replicate, shard_batch
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
    "fitting": [getattr(fitting_mesh(size), "size", None) for size in (64, 12, 7, 13)],
}))
"""
MAPPED = """
import json
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from fastsnn_jax.sharding import data_mesh, map_rows, shard_batch

rows = jnp.asarray(np.random.default_rng(0).standard_normal((16, 3)), jnp.float32)
whole = {"w": jnp.arange(6.0).reshape(3, 2), "key": jax.random.key(0)}


def function(whole, rows, first_row):
    number = first_row + jnp.arange(len(rows))
    noise = jax.vmap(lambda n: jax.random.uniform(jax.random.fold_in(whole["key"], n)))(number)
    return {"y": jnp.tanh(rows @ whole["w"]), "number": number, "noise": noise}


def loss(mesh, w, rows):
    out = map_rows(mesh, function, {**whole, "w": w}, rows)
    return (out["y"] ** 2 * out["noise"][:, None]).sum(), out


def of(mesh):
    differentiate = jax.jit(jax.value_and_grad(partial(loss, mesh), (0, 1), has_aux=True))
    (value, out), gradients = differentiate(whole["w"], rows)
    return [leaf.tolist() for leaf in jax.tree.leaves((value, out, gradients))]


def refused(place):
    try:
        place(data_mesh(), jnp.zeros((12, 3)))
    except ValueError as error:
        return str(error)


print(json.dumps([of(None), of(data_mesh()), [
    refused(lambda mesh, rows: map_rows(mesh, function, whole, rows)),
    refused(shard_batch),
]]))
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
def test_the_default_mesh_has_the_most_devices_that_divide_batch_and_devices(eight):
    assert eight["fitting"] == [8, 4, None, None]


@pytest.fixture(scope="module")
def mapped_rows():
    return on_eight_devices(MAPPED)


@pytest.mark.slow
def test_rows_that_eight_devices_cannot_share_are_refused(mapped_rows):
    for function, message in zip(("map_rows", "shard_batch"), mapped_rows[2], strict=True):
        expected = f"{function}: axis 0 must be a multiple of the 8 devices, got (12, 3)"
        assert message.startswith(expected)


@pytest.mark.slow
def test_rows_mapped_over_devices_give_values_and_gradients_of_the_plain_function(mapped_rows):
    plain, mapped, _ = mapped_rows
    for one, other in zip(plain, mapped, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def test_without_a_mesh_arrays_go_to_one_device():
    placed = shard_batch(None, {"x": np.arange(3)}), replicate(None, np.arange(2))
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(placed))


def test_an_axis_that_cannot_be_split_is_refused():
    mesh = data_mesh(jax.devices()[:1])
    with pytest.raises(ValueError, match="shard_batch: axis 1 must be a multiple of the 1 devices"):
        shard_batch(mesh, np.arange(3), axis=1)
    with pytest.raises(ValueError, match="map_rows: axis 0 must be a multiple of the 1 devices"):
        map_rows(mesh, lambda whole, rows, first_row: rows, None, np.float32(1))
    assert mesh.shape == {"data": 1}


def test_on_one_device_mapped_rows_are_the_function_called_once():
    def function(whole, rows, first_row):
        return {"y": whole * rows, "number": first_row + jnp.arange(len(rows))}

    for mesh in (None, data_mesh(jax.devices()[:1])):
        mapped = map_rows(mesh, function, 2.0, jnp.arange(3.0))
        assert jax.tree.map(np.ndarray.tolist, jax.device_get(mapped)) == {
            "y": [0.0, 2.0, 4.0], "number": [0, 1, 2]}

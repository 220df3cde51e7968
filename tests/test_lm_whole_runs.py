"""Whole runs of the language-model recipe: other configurations, interruptions, eight devices."""

import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lm_runs import (
    STEPS,
    TEXT,
    Finished,
    config_of,
    held_out_windows,
    loss_by_hand,
    outcome,
    run,
)
from processes import on_eight_devices

from fastsnn_jax import load_run
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.recipes.lm import network
from fastsnn_jax.record import load_record
from fastsnn_jax.train import Interrupted, TrainingError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run beside its twin, shared by the tests that only look."""
    return Finished(tmp_path_factory.mktemp("runs"), compare_ann=True)


@pytest.mark.slow
def test_training_that_diverges_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch
):
    whole = network.build_optimiser
    monkeypatch.setattr(network, "build_optimiser", lambda config: optax.chain(
        whole(config), optax.scale_by_schedule(lambda count: jnp.where(count < 2, 1.0, jnp.nan))
    ))
    out = tmp_path / "run"
    kept = out / "checkpoints" / "00000000"
    with pytest.raises(TrainingError, match=f"nan at step 4; the last good checkpoint is {kept}"):
        run(config_of(tmp_path), out)
    checkpoint = Checkpoints(out / "checkpoints").restore()
    assert checkpoint.path == kept and checkpoint.journal["epoch"] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpoint.items))
    assert not (out / "record.json").exists()


# Other configurations


@pytest.mark.slow
def test_a_model_without_spikes_has_none_on_record_and_no_twin(tmp_path):
    plain = Finished(tmp_path, model={"spiking": False}, compare_ann=True, tokenizer="byte")
    record = plain.record
    assert record["spikes"] is None and record["twin"] is None and record["activity"] == {}
    assert record["training_history"]["spikes_per_channel"] is None
    assert record["metrics"]["spikes_per_channel"] is None and record["parameters"] > 0
    assert {path.name for path in plain.directory.iterdir()} == {
        "record.json", "config.json", "tokenizer.json", "checkpoints", "losses.png", "scope.html",
        "traces.npz"}
    assert record["tokenizer"] == {"kind": "byte", "vocab_size": 256}
    tokens, known = held_out_windows()
    letters = np.frombuffer("".join(sorted(set(TEXT))).encode(), np.uint8)
    model, variables, _ = load_run(plain.directory)
    logits = jax.jit(model.apply)(variables, letters[tokens[:, :-1]].astype(np.int32))[0]
    loss = loss_by_hand(logits, letters[tokens].astype(int), known)
    assert record["evaluation"]["val_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_parts_of_a_batch_train_as_the_whole(finished, tmp_path):
    config = config_of(tmp_path, accumulate=2, compare_ann=True)
    record = run(config, tmp_path / "run")
    history, expected = record["training_history"], finished.record["training_history"]
    np.testing.assert_allclose(history["train_loss"], expected["train_loss"], rtol=1e-3)
    np.testing.assert_allclose(history["val_loss"], expected["val_loss"], rtol=1e-3)
    # Without roundings there is nothing that small differences could tip.
    losses = [each["twin"]["val_loss"] for each in (record, finished.record)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_the_average_of_the_parameters_is_what_is_evaluated_and_loaded(tmp_path):
    averaged = Finished(tmp_path, ema_decay=0.9, spike_weight=0.1)
    model, variables, record = load_run(averaged.directory)
    state = Checkpoints(averaged.directory / "checkpoints").restore().items["state"]
    for leaf, average in zip(*map(jax.tree.leaves, (variables, state["average"])), strict=True):
        np.testing.assert_array_equal(leaf, average)
    tokens, known = held_out_windows()
    loss, last = (
        loss_by_hand(jax.jit(model.apply)(params, tokens[:, :-1])[0], tokens, known)
        for params in (variables, state["params"])
    )
    assert record["evaluation"]["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert abs(last - loss) > 1e-3 * loss


# Interruptions


@pytest.mark.slow
def test_a_run_interrupted_twice_and_once_in_its_twin_ends_bit_identical(finished, tmp_path):
    # One corpus for both: its path is part of the configuration.
    config, out, steps = finished.config, tmp_path / "run", []

    def press_ctrl_c(event):
        steps.extend([event.step] * (event.kind == "chunk"))
        if event.kind == "chunk" and len(steps) in (3, 3 + STEPS):
            os.kill(os.getpid(), signal.SIGINT)

    for resume in (False, True):
        with pytest.raises(Interrupted, match=f"continue with --resume {re.escape(str(out))}"):
            run(config, out, resume=resume, progress=press_ctrl_c)
        assert not (out / "record.json").exists()
    assert (out / "twin").exists() and len(steps) == 3 + STEPS
    run(config, out, resume=True, progress=press_ctrl_c)
    assert len(steps) == 2 * STEPS  # none was done twice
    assert outcome(out, "twin") == outcome(finished.directory, "twin")
    assert load_record(out)["training_results"]["steps_trained"] == STEPS


# Eight devices


EIGHT = """
import json, re
import jax, numpy as np
from fastsnn_jax.recipes.lm import network, preset
from fastsnn_jax.sharding import data_mesh, replicate, shard_batch
from fastsnn_jax.train import LoopConfig, init_state, make_train_step, rows_of, train
from fastsnn_jax.train.chunk import Chunk

tokens = np.random.default_rng(0).integers(0, 13, (48, 17)).astype(np.int32)
outcomes = {}
for spiking in (True, False):
    config = preset("smoke", vocab_size=13, batch_size=16, steps=6, learning_rate=1e-3)
    model = network.build_model(config, spiking)
    params = jax.jit(model.init)(jax.random.key(0), tokens[:1, :-1])
    tx = network.build_optimiser(config)
    step = make_train_step(network.make_loss(model, config), tx)
    source, state = rows_of(tokens), init_state(params, tx, jax.random.key(1))
    runs = [train(step, source, state, LoopConfig(2, 16), mesh=data_mesh(jax.devices()[:n]))
            for n in (1, 8)]
    mesh = data_mesh()
    compiled = Chunk(step, source.fetch, mesh).prepare(
        replicate(mesh, state), replicate(mesh, source.data(0)),
        shard_batch(mesh, np.zeros((3, 16), np.int32), axis=1),
    )
    leaves = [jax.tree.leaves(jax.device_get(run.params)) for run in runs]
    outcomes["spiking" if spiking else "twin"] = {
        "difference": max(float(abs(a - b).max()) for a, b in zip(*leaves)),
        "losses": [run.journal.history["losses"] for run in runs],
        "totals": [run.journal.totals for run in runs],
        "collectives": sorted(set(re.findall(
            r"(all-[a-z]+|reduce-scatter|collective-[a-z]+)(?:-start)?\\\\(",
            compiled.as_text()))),
        "devices": len(runs[1].state.step.sharding.device_set),
    }
print(json.dumps(outcomes))
""".replace("\\\\", "\\")


@pytest.fixture(scope="module")
def eight():
    return on_eight_devices(EIGHT)


@pytest.mark.slow
def test_eight_devices_train_as_one_does(eight):
    twin, spiking = eight["twin"], eight["spiking"]
    assert twin["devices"] == spiking["devices"] == 8
    assert twin["difference"] <= 1e-5
    np.testing.assert_allclose(*twin["losses"], rtol=1e-5)
    # Sums in another order may tip a count that hangs on a rounding.
    np.testing.assert_allclose(*spiking["losses"], rtol=1e-3)
    one, other = spiking["totals"]
    assert one["samples"] == other["samples"] == 96 * 16
    for key, counts in one["spikes"].items():
        assert other["spikes"][key]["bit_plane"] == pytest.approx(counts["bit_plane"], rel=1e-2)
        assert counts["bit_plane"] > 1000


@pytest.mark.slow
@pytest.mark.parametrize("model", ["spiking", "twin"])
def test_the_step_gathers_no_activations(eight, model):
    assert eight[model]["collectives"] == ["all-reduce"]

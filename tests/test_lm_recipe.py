"""Runs of the language-model recipe on a little text, and what they leave."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fastsnn_jax import load_run
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.data import DataError, char_tokenizer, load_tokenizer, windows
from fastsnn_jax.nn import Coding
from fastsnn_jax.nn.projection import Coded
from fastsnn_jax.recipes import lm, run_directory
from fastsnn_jax.recipes.lm import network, pipeline, preset
from fastsnn_jax.record import load_record
from fastsnn_jax.train import Interrupted, TrainingError
from fastsnn_jax.train.chunk import Pace

WORDS = "To be, or not to be: that is the question. "
TEXT = "".join(WORDS[i % 7:] for i in range(24))
LETTERS, HELD_OUT = len(set(TEXT)), len(TEXT) - len(TEXT) * 9 // 10
CONTEXT, STEPS, EVALUATIONS = 16, 6, 3


def config_of(folder, **fields):
    """Six steps of the smoke preset on a text of our own, in characters."""
    path = folder / "hamlet.txt"
    path.write_text(TEXT)
    return preset("smoke", **{
        "corpus": str(path), "tokenizer": "char", "context": CONTEXT, "steps": STEPS, **fields,
    })


def run(config, out, pictures=False, **options):
    """A run of three evaluations, one step a dispatch; pictures cost more than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "EVALUATIONS", EVALUATIONS)
        patch.setattr(Pace, "length", lambda pace, remaining: 1)
        if not pictures:
            patch.setattr(pipeline, "draw_all", lambda *_: [])
        return lm.run(config, out, **options)


class Finished:
    """A finished run: its configuration, directory, record and what it said."""

    def __init__(self, folder, **fields):
        self.config = config_of(folder, **fields)
        self.directory, self.said = folder / "run", []
        self.record = run(self.config, self.directory, pictures=True, say=self.said.append)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run beside its twin, shared by the tests that only look."""
    return Finished(tmp_path_factory.mktemp("runs"), compare_ann=True)


def test_a_run_leaves_a_valid_record_checkpoints_configuration_tokenizer_and_pictures(finished):
    assert load_record(finished.directory) == finished.record
    assert finished.record["kind"] == "lm"
    names = {path.name for path in finished.directory.iterdir()}
    pictures = {"losses.png", "spike_rates.png", "counts.png"}
    files = {"record.json", "config.json", "tokenizer.json", "checkpoints", "twin"}
    assert names == files | pictures
    assert lm.saved_config(finished.directory) == finished.config
    settled = dataclasses.replace(finished.config, vocab_size=LETTERS)
    assert preset(**finished.record["config"]) == settled
    tokenizer = load_tokenizer(finished.directory / lm.TOKENIZER_FILE)
    assert tokenizer == char_tokenizer(TEXT)


def test_the_record_describes_the_text_and_the_training(finished):
    record = finished.record
    assert record["dataset"]["name"] == "hamlet.txt"
    assert record["dataset"]["sizes"] == {"train": len(TEXT) - HELD_OUT, "validation": HELD_OUT}
    assert record["tokenizer"] == {"kind": "char", "vocab_size": LETTERS}
    results, history = record["training_results"], record["training_history"]
    assert results["steps_trained"] == STEPS and results["tokens_per_s"] > 0
    assert results["tokens_seen"] == STEPS * finished.config.batch_size * CONTEXT
    assert history["steps"] == [2, 4, 6] and list(history["spikes_per_channel"]) == [
        "blocks_0", "blocks_1"]
    assert history["val_loss"][-1] == record["evaluation"]["val_loss"]
    parameters = load_run(finished.directory).variables
    assert record["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(parameters))


def test_a_run_says_what_it_does(finished):
    assert finished.said == [
        f"text: hamlet.txt, {len(TEXT) - HELD_OUT} training and {HELD_OUT} held-out tokens from "
        f"text file {finished.config.corpus}",
        "the twin without spikes, with the same recipe",
        "evaluating on all of the held-out text",
    ]


def held_out_windows():
    """Windows of the held-out text [n, CONTEXT + 1], and which targets are not padding."""
    return windows(char_tokenizer(TEXT).encode(TEXT[-HELD_OUT:]), CONTEXT)


def loss_by_hand(logits, tokens, known):
    """Mean cross-entropy of the known targets, in float64."""
    logits = np.asarray(logits, np.float64)
    logits -= logits.max(-1, keepdims=True)
    chance = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(chance, tokens[:, 1:, None], -1)[..., 0][known].mean()


class Examined(NamedTuple):
    """What the model of a loaded run answers to the held-out windows, and what it codes."""

    logits: np.ndarray
    activity: dict
    counts: list  # of each coding [known tokens, channels]


@pytest.fixture(scope="module")
def examined(finished):
    model, variables, _ = load_run(finished.directory)
    tokens, known = held_out_windows()

    def capture(tokens):
        return model.apply(
            variables, tokens, mutable=["intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, Coding) and module.neuron,
        )

    (logits, activity), state = jax.jit(capture)(tokens[:, :-1])
    codings = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Coded))
    counts = [np.abs(np.asarray(coded.spikes.data)[known]).astype(int) for coded in codings]
    return Examined(np.asarray(logits), activity, counts)


def test_a_loaded_run_has_the_loss_of_the_record_over_the_held_out_text(finished, examined):
    tokens, known = held_out_windows()
    scored, loss = finished.record["evaluation"], loss_by_hand(examined.logits, tokens, known)
    assert known.sum() == scored["tokens"] == HELD_OUT - 1
    assert scored["val_loss"] == pytest.approx(loss, rel=1e-4)
    hits = (examined.logits.argmax(-1) == tokens[:, 1:])[known].mean()
    assert scored["accuracy"] == pytest.approx(100 * hits, abs=2.5)


def test_the_twin_has_the_loss_of_its_own_parameters(finished):
    items = Checkpoints(finished.directory / "twin" / "checkpoints").restore().items
    settled = dataclasses.replace(finished.config, vocab_size=LETTERS)
    twin = network.build_model(settled, spiking=False)
    tokens, known = held_out_windows()
    logits, activity = jax.jit(twin.apply)(items["state"]["params"], tokens[:, :-1])
    loss = loss_by_hand(logits, tokens, known)
    record = finished.record
    assert record["twin"]["val_loss"] == pytest.approx(loss, rel=1e-5) and activity == {}
    assert record["metrics"]["ann_val_loss"] == record["twin"]["val_loss"]
    assert record["twin"]["val_loss"] != record["evaluation"]["val_loss"]


def kernels_of(tree, path=()):
    """(path, kernel) of every projection below a tree of parameters."""
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            yield from kernels_of(leaf, (*path, name))
        elif name == "kernel":
            yield "/".join((*path, name)), leaf


def test_the_spikes_of_the_record_are_those_of_a_recount(finished, examined):
    model, variables, record = load_run(finished.directory)
    known = held_out_windows().mask
    _, activity, counts = examined
    bits = sum(((c[..., None] >> np.arange(7)) & 1).sum() for c in counts)
    places = sum(c.size for c in counts)
    # The very same program: not one spike may be missing.
    groups = [group[0] for group in model.input_groups()]
    assert len(counts) == len(groups)
    assert sum(np.asarray(activity[key].bit_plane)[known].sum() for key in groups) == bits
    assert sum(np.asarray(activity[key].unary)[known].sum() for key in groups) == sum(
        c.sum() for c in counts)
    # Another program, that of the run: a count that hangs on a rounding may fall elsewhere.
    spikes, kernels = record["spikes"], dict(kernels_of(variables["params"]))
    close = {"rel": 2e-3}
    assert spikes["tokens"] == known.sum() and spikes["bits"] == 7
    assert spikes["spikes_per_channel"] == pytest.approx(bits / places, **close)
    assert spikes["sparsity"] == pytest.approx(1 - bits / places / 7, **close)
    assert spikes["unary_per_channel"] == pytest.approx(
        sum(c.sum() for c in counts) / places, **close)
    assert spikes["active_fraction"] == pytest.approx(
        sum((c > 0).sum() for c in counts) / places, **close)
    assert spikes["saturated_fraction"] == 0 and max(c.max() for c in counts) < 127
    # Every projection is on record with its own synapses.
    assert set(record["activity"]) == set(kernels)
    assert spikes["dense_macs_per_token"] == sum(kernel.size for kernel in kernels.values())
    events = sum(np.asarray(activity[key].bit_plane)[known].sum() * kernels[key].shape[1]
                 for key in kernels)
    assert spikes["synaptic_events_per_token"] == pytest.approx(events / known.sum(), **close)


def test_the_sample_goes_on_from_the_held_out_text(finished):
    sample, size = finished.record["sample"], finished.config.sample_tokens
    start = TEXT[-HELD_OUT:][:32]
    assert sample.startswith(start) and len(sample) == len(start) + size
    model, variables, _ = load_run(finished.directory)
    tokenizer = char_tokenizer(TEXT)
    assert lm.sample_text(model, variables, tokenizer, start, size, seed=0) == sample
    with pytest.raises(ValueError, match="text must consist of its .* characters, got 'ß' at 1"):
        lm.sample_text(model, variables, tokenizer, "Tß", size, seed=0)
    with pytest.raises(ValueError, match="the prompt must not be empty"):
        lm.sample_text(model, variables, tokenizer, "", size, seed=0)


def test_a_sample_of_a_model_with_more_ids_than_the_tokenizer_has_stays_text(finished):
    model, variables, _ = load_run(finished.directory)
    text = lm.sample_text(model, variables, char_tokenizer("ab"), 16 * "ab", 16, seed=0)
    assert text.startswith(16 * "ab") and len(text) == 48 and set(text) == {"a", "b"}


def test_a_prompt_that_ends_inside_a_character_is_decoded_with_what_follows(finished):
    class Bytes:
        """Bytes of which the model writes the last of an é."""

        vocab_size = 256

        def decode(self, ids):
            return bytes(np.where(ids < 5, 0xA9, ids).astype(np.uint8)).decode(errors="replace")

    model, variables, _ = load_run(finished.directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "generate", lambda model, params, prompt, *_, **__: (
            type("Drawn", (), {"tokens": np.array([[3]])})))
        half = np.frombuffer(b"n\xc3", np.uint8)
        text = pipeline._continued(model, variables, Bytes(), half, 1, 0)
    assert text == "né"


def test_the_headline_names_the_figures_of_the_record(finished):
    headline = lm.headline(finished.record, "here")
    assert headline["corpus"] == "hamlet.txt" and headline["out"] == "here"
    assert headline | finished.record["metrics"] == headline
    assert {"val_loss", "perplexity", "bits_per_byte", "ann_val_loss", "tokens_per_s",
            "spikes_per_channel", "sparsity", "saturated_fraction", "synaptic_events_per_token",
            "dense_macs_per_token"} <= headline.keys()
    assert headline["bits_per_byte"] == pytest.approx(headline["val_loss"] / np.log(2))  # ASCII


def test_a_finished_run_is_not_repeated(finished):
    said = []
    record = lm.run(finished.config, finished.directory, resume=True, say=said.append)
    assert record == finished.record
    assert said == [f"{finished.directory} is finished; nothing to resume"]


# Refusals, all before anything is written


@pytest.mark.parametrize(("message", "fields"), [
    (f"vocab_size must be >= {LETTERS}, the tokenizer's, got 9", {"vocab_size": 9}),
    (f"held-out text must have more tokens than context {HELD_OUT}, got", {"context": HELD_OUT}),
    ("the prompt must not be empty", {"generate": ""}),
    ("text must consist of its .* characters, got 'ß' at 2", {"generate": "Toß"}),
    ("attention: name must be one of .*, got 'global'", {"model": {"attn_kind": "global"}}),
    ("the head size D must be even, got 5", {"model": {"d_model": 10}}),
    ("rope_type must be one of", {"model": {"rope_scaling": {"rope_type": "odd"}}}),
], ids=str)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, message, fields):
    said = []
    with pytest.raises(ValueError, match=message):
        lm.run(config_of(tmp_path, **fields), tmp_path / "run", say=said.append)
    assert not said and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("message", "content", "tokenizer"), [
    ("expected a text, got an empty file", b"", "byte"),
    ("expected at least one token", b"x", "byte"),
    ("held-out text must have more tokens than context 16, got 16", b"x" * 160, "byte"),
    ("expected UTF-8", b"\xff" * 2000, "char"),
])
def test_a_text_that_cannot_be_split_or_read_is_refused(tmp_path, message, content, tokenizer):
    config = config_of(tmp_path, tokenizer=tokenizer)
    Path(config.corpus).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        lm.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere.txt: expected .* got no such file"):
        lm.run(preset("smoke", corpus=str(tmp_path / "nowhere.txt")), tmp_path / "run")
    with pytest.raises(DataError, match="tiny_shakespeare"):
        lm.run(preset("smoke", corpus="tiny_shakespeare"), tmp_path / "run", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_directory_of_another_run_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="out must be a directory without a run"):
        lm.run(config_of(tmp_path), finished.directory)


def test_resume_refuses_other_text_and_another_configuration(tmp_path):
    config = config_of(tmp_path)
    corpus = pipeline.load_corpus(config.corpus, tokenizer="char")
    out = tmp_path / "run"
    run_directory.begin(out, config.to_json(), corpus.sha256)
    with pytest.raises(CheckpointError, match="begun with another configuration"):
        lm.run(dataclasses.replace(config, seed=1), out, resume=True)
    Path(config.corpus).write_text(TEXT.replace("T", "t"))
    with pytest.raises(CheckpointError, match="trained on other data"):
        lm.run(config, out, resume=True)
    with pytest.raises(CheckpointError, match="expected a run with config.json"):
        lm.run(config, tmp_path / "nothing", resume=True)
    assert [path.name for path in out.iterdir()] == ["config.json"]


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
        "record.json", "config.json", "tokenizer.json", "checkpoints", "losses.png"}
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


def outcome(out):
    """Everything of a finished run that must not depend on when it was interrupted."""
    record = load_record(out)
    parts = ("training_history", "evaluation", "twin", "spikes", "activity", "sample")
    items = [Checkpoints(path).restore().items for path in (out / "checkpoints",
                                                            out / "twin" / "checkpoints")]
    return {name: record[name] for name in parts}, items


def assert_same_outcome(out, expected_out):
    (record, items), (expected_record, expected_items) = outcome(out), outcome(expected_out)
    assert record == expected_record
    leaves, expected = (dict(jax.tree_util.tree_leaves_with_path(tree))
                        for tree in (items, expected_items))
    assert leaves.keys() == expected.keys()
    for path, leaf in leaves.items():
        assert np.asarray(leaf).tobytes() == np.asarray(expected[path]).tobytes(), path


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
    assert_same_outcome(out, finished.directory)
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
    params = model.init(jax.random.key(0), tokens[:1, :-1])
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
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run([sys.executable, "-c", EIGHT], env=environment, text=True,
                          capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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

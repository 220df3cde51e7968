"""Runs of the language-model recipe on a little text, and what they leave."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from lm_runs import (
    CONTEXT,
    HELD_OUT,
    LETTERS,
    STEPS,
    TEXT,
    Examined,
    Finished,
    config_of,
    held_out_windows,
    loss_by_hand,
)

from fastsnn_jax import load_run
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.data import DataError, char_tokenizer, load_tokenizer
from fastsnn_jax.nn import Coding
from fastsnn_jax.nn.projection import Coded
from fastsnn_jax.recipes import lm, run_directory
from fastsnn_jax.recipes.lm import network, pipeline, preset
from fastsnn_jax.record import load_record
from fastsnn_jax.scope import load_traces


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run beside its twin, shared by the tests that only look."""
    return Finished(tmp_path_factory.mktemp("runs"), compare_ann=True)


@pytest.mark.slow
def test_a_run_leaves_a_valid_record_checkpoints_configuration_tokenizer_and_pictures(finished):
    assert load_record(finished.directory) == finished.record
    assert finished.record["kind"] == "lm"
    names = {path.name for path in finished.directory.iterdir()}
    pictures = {"losses.png", "spike_rates.png", "counts.png"}
    files = {"record.json", "config.json", "tokenizer.json", "checkpoints", "twin"}
    assert names == files | pictures | {"energy.json", "energy.txt", "scope.html", "traces.npz"}
    assert lm.saved_config(finished.directory) == finished.config
    settled = dataclasses.replace(finished.config, vocab_size=LETTERS)
    assert preset(**finished.record["config"]) == settled
    tokenizer = load_tokenizer(finished.directory / lm.TOKENIZER_FILE)
    assert tokenizer == char_tokenizer(TEXT)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_says_what_it_does(finished):
    assert finished.said == [
        f"text: hamlet.txt, {len(TEXT) - HELD_OUT} training and {HELD_OUT} held-out tokens from "
        f"text file {finished.config.corpus}",
        "the twin without spikes, with the same recipe",
        "evaluating on all of the held-out text",
    ]


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


@pytest.mark.slow
def test_the_traces_are_of_the_first_held_out_window(finished, examined):
    tokens, _ = held_out_windows()
    traces = load_traces(finished.directory)
    letters = sorted(set(TEXT))
    assert traces["tokens"] == [letters[token] for token in tokens[0, :-1]]
    assert set(traces["token_spikes"]) == set(examined.activity)
    for key, planes in traces["token_spikes"].items():
        np.testing.assert_array_equal(planes, examined.activity[key].bit_plane[0])
    for name, rates in traces["rates"].items():  # of the window, and all codings of the layer
        spikes = sum(
            np.asarray(count.unary[0]).sum() for key, count in examined.activity.items()
            if key.startswith(name) and finished.record["activity"][key]["input"] == key
        )
        np.testing.assert_allclose(rates.sum() * len(traces["tokens"]), spikes, rtol=1e-5)
        assert traces["raster"][name].max() <= 127 and traces["raster"][name].any()
        potential = traces["membrane"][name]
        counts = traces["raster"][name][:, :potential.shape[1]]
        np.testing.assert_array_equal(np.minimum(np.abs(np.rint(potential)), 127), counts)
        assert traces["threshold"][name] == 0.5 and (potential < 0).any()


@pytest.mark.slow
def test_a_loaded_run_has_the_loss_of_the_record_over_the_held_out_text(finished, examined):
    tokens, known = held_out_windows()
    scored, loss = finished.record["evaluation"], loss_by_hand(examined.logits, tokens, known)
    assert known.sum() == scored["tokens"] == HELD_OUT - 1
    assert scored["val_loss"] == pytest.approx(loss, rel=1e-4)
    hits = (examined.logits.argmax(-1) == tokens[:, 1:])[known].mean()
    assert scored["accuracy"] == pytest.approx(100 * hits, abs=2.5)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_sample_of_a_model_with_more_ids_than_the_tokenizer_has_stays_text(finished):
    model, variables, _ = load_run(finished.directory)
    text = lm.sample_text(model, variables, char_tokenizer("ab"), 16 * "ab", 16, seed=0)
    assert text.startswith(16 * "ab") and len(text) == 48 and set(text) == {"a", "b"}


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_headline_names_the_figures_of_the_record(finished):
    headline = lm.headline(finished.record, "here")
    assert headline["corpus"] == "hamlet.txt" and headline["out"] == "here"
    assert headline | finished.record["metrics"] == headline
    assert {"val_loss", "perplexity", "bits_per_byte", "ann_val_loss", "tokens_per_s",
            "spikes_per_channel", "sparsity", "saturated_fraction", "synaptic_events_per_token",
            "dense_macs_per_token"} <= headline.keys()
    assert headline["bits_per_byte"] == pytest.approx(headline["val_loss"] / np.log(2))  # ASCII


@pytest.mark.slow
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


@pytest.mark.slow
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

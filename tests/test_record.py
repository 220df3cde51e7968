"""Laws of the record: key for key, exact, consistent, whole on disk."""

import copy
import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from fastsnn_jax.record import (
    Architecture,
    History,
    RecordError,
    SpikeTotals,
    build_mnist_record,
    format_record,
    load_record,
    validate_record,
    write_record,
)

# The keys of the notebook's checkpoint, as the issue of this record lists them.
CONNECTIVITY = {
    "n_syn_input_hidden", "n_syn_hidden_output", "n_synapses_total", "fanout_input_to_hidden",
    "fanout_hidden_to_output",
}
NOTEBOOK_KEYS = {
    "schema_version": None, "timestamp": None, "model_class": None,
    "n_input": None, "n_hidden": None, "n_output": None,
    "architecture": {"n_input", "n_hidden", "n_output", "threshold", "decay"} | CONNECTIVITY,
    "encoding": {"type", "time_window", "max_rate_hz", "spike_prob_formula"},
    "training_config": {"batch_size", "max_epochs", "learning_rate", "weight_decay", "optimizer",
                        "patience", "grad_clip_max_norm"},
    "training_results": {"epochs_trained", "total_samples", "training_time_seconds",
                         "best_val_accuracy", "final_train_accuracy"},
    "training_history": {"losses", "train_acc", "val_acc", "epoch_times"},
    "test_accuracy": None,
    "training_spikes": {"total_input", "total_hidden", "total_output", "input_per_sample",
                        "hidden_per_sample", "output_per_sample", "total_samples"},
    "inference_spikes": {"n_samples", "total_input", "total_hidden", "total_output",
                         "input_per_inference", "hidden_per_inference", "output_per_inference",
                         "measurement_time_seconds"},
    "connectivity": CONNECTIVITY,
    "energy_proxies": {"dense_ops_per_inference", "event_syn_per_inference", "sparsity_ratio",
                       "formula_event_syn", "formula_dense"},
}
ENVELOPE_KEYS = {
    "schema", "kind", "config", "dataset", "versions", "device", "git_hash", "seed", "metrics",
    "activity", "per_class_accuracy", "confusion_matrix",
}

MLP = Architecture(
    n_input=784, n_hidden=400, n_output=10, threshold=1.0, decay=0.9,
    n_syn_input_hidden=313_600, n_syn_hidden_output=4_000,
    fanout_input_to_hidden=400, fanout_hidden_to_output=10,
)
CNN = Architecture(n_input=784, n_hidden=None, n_output=10)


@dataclasses.dataclass(frozen=True)
class Config:
    features: tuple[int, ...] = (400, 10)
    data_dir: Path | None = Path("data")
    learning_rate: float = 0.003


def confusion():
    """20 test digits: all zeros right, one of four ones taken for a seven, twos absent."""
    matrix = np.diag([6, 3, 0, 2, 2, 2, 1, 1, 1, 1])
    matrix[1, 7] = 1
    return matrix


def arguments(**changes):
    return {
        "config": Config(),
        "dataset": {"name": "mnist", "source": "by hand", "sha256": "0" * 64,
                    "sizes": {"train": 100, "validation": 10, "test": 20}},
        "environment": {"versions": {"jax": "0.7.2", "git": None},
                        "device": {"kind": "cpu"}, "git_hash": None},
        "seed": 0,
        "model_class": "MLP",
        "architecture": MLP,
        "encoding": {"type": "poisson", "time_window": 50, "max_rate_hz": 80.0,
                     "spike_prob_formula": "pixel * max_rate_hz * dt"},
        "training_config": {"batch_size": 64, "max_epochs": 20, "learning_rate": 3e-3,
                            "weight_decay": 0.0, "optimizer": "adam", "patience": None,
                            "grad_clip_max_norm": 1.0},
        "history": History([0.5, 0.25], [80.0, 92.5], [90.0, 85.0], [1.5, 1.25]),
        "training_spikes": SpikeTotals(80_000, 40_000, 900, samples=200),
        "training_time_seconds": 3.0,
        "inference_spikes": SpikeTotals(1_640, 1_000, 33, samples=4),
        "measurement_time_seconds": 0.125,
        "confusion_matrix": confusion(),
        "activity": {"dense0/kernel": {"events": np.int64(1_640), "nonzero": 900, "saturated": 0,
                                       "rate": np.float32(0.25)},
                     "output": {"events": 33, "nonzero": 12, "saturated": 0}},
        "metrics": {"selected_on": "validation", "train_samples_per_s": 9000.5},
        "timestamp": "2020-02-02T02:02:02+00:00",
    } | changes


def build(**changes):
    return build_mnist_record(**arguments(**changes))


# Schema and figures


def test_the_record_has_the_notebooks_schema_key_for_key():
    record = build()
    assert record["schema_version"] == "surrogate_complete_v1"
    assert record["schema"] == "fastsnn-run/1" and record["kind"] == "mnist"
    for key, inner in NOTEBOOK_KEYS.items():
        if inner is not None:
            assert set(record[key]) == inner, key
    assert set(record) == set(NOTEBOOK_KEYS) | ENVELOPE_KEYS


def test_energy_proxies_follow_from_spikes_per_inference():
    # By hand: 1640 / 4 = 410 input and 1000 / 4 = 250 hidden spikes; 317,600 synapses, 50 steps.
    proxies = build()["energy_proxies"]
    assert proxies["dense_ops_per_inference"] == 15_880_000
    assert proxies["event_syn_per_inference"] == 410 * 400 + 250 * 10
    assert proxies["sparsity_ratio"] == 166_500 / 15_880_000
    assert build()["connectivity"]["n_synapses_total"] == 317_600


def test_rates_per_example_divide_the_exact_totals():
    record = build()
    training, inference = record["training_spikes"], record["inference_spikes"]
    assert (training["input_per_sample"], training["output_per_sample"]) == (400.0, 4.5)
    assert inference["output_per_inference"] == 8.25
    assert training["total_samples"] == record["training_results"]["total_samples"] == 200


def test_accuracies_follow_from_the_confusion_matrix():
    record = build()
    assert record["test_accuracy"] == 95.0
    assert record["per_class_accuracy"] == [100, 75, None, 100, 100, 100, 100, 100, 100, 100]
    assert record["confusion_matrix"][1] == [0, 3, 0, 0, 0, 0, 0, 1, 0, 0]


def test_best_and_last_accuracies_follow_from_the_history():
    results = build()["training_results"]
    assert results["epochs_trained"] == 2
    assert results["best_val_accuracy"] == 90.0 and results["final_train_accuracy"] == 92.5


def test_metrics_carry_the_headline_figures_and_cannot_overrule_them():
    metrics = build(metrics={"selected_on": "test", "test_accuracy": 100.0})["metrics"]
    assert metrics["selected_on"] == "test"
    assert metrics["test_accuracy"] == 95.0 and metrics["input_per_inference"] == 410.0


def test_spike_totals_beyond_float_precision_stay_exact(tmp_path):
    total = 2**53 + 1  # the first integer that a double cannot hold
    spikes = SpikeTotals(total, total, total, samples=200)
    record = load_record(write_record(tmp_path, build(training_spikes=spikes)))
    assert record["training_spikes"]["total_input"] == 9_007_199_254_740_993


def test_what_a_model_does_not_have_is_null():
    spikes = SpikeTotals(1_640, None, 33, samples=4)
    record = build(architecture=CNN, inference_spikes=spikes)
    proxies = record["energy_proxies"]
    assert record["n_hidden"] is None and record["connectivity"]["fanout_input_to_hidden"] is None
    assert proxies["event_syn_per_inference"] is None and proxies["sparsity_ratio"] is None
    assert proxies["dense_ops_per_inference"] is None
    assert record["inference_spikes"]["hidden_per_inference"] is None
    assert record["activity"]["dense0/kernel"]["events"] == 1_640


def test_a_run_of_no_epochs_is_a_valid_record():
    nothing = SpikeTotals(0, 0, 0, samples=0)
    record = build(history=History([], [], [], []), training_spikes=nothing)
    results = record["training_results"]
    assert results["epochs_trained"] == 0 and results["best_val_accuracy"] is None
    assert record["training_spikes"]["input_per_sample"] is None


def test_epochs_without_validation_are_null_and_skipped():
    history = History([0.5, 0.25], [80.0, None], [None, 85.0], [1.5, 1.25])
    results = build(history=history)["training_results"]
    assert results["best_val_accuracy"] == 85.0 and results["final_train_accuracy"] is None


def test_dataclasses_arrays_and_paths_become_json():
    record = build()
    assert record["config"] == {"features": [400, 10], "data_dir": "data", "learning_rate": 0.003}
    assert type(record["activity"]["dense0/kernel"]["events"]) is int
    assert json.loads(json.dumps(record)) == record


def test_the_timestamp_defaults_to_now_in_utc():
    assert build(timestamp=None)["timestamp"].endswith("+00:00")


@pytest.mark.parametrize("changes, message", [
    ({"encoding": {"type": "poisson"}}, "record.encoding: expected key 'time_window'"),
    ({"training_config": {**arguments()["training_config"], "momentum": 0.9}},
     "record.training_config: expected no key 'momentum'"),
    ({"inference_spikes": SpikeTotals(1640.0, 1000, 33, samples=4)},
     "total_input: expected an integer >= 0 or null, got 1640.0"),
    ({"training_spikes": SpikeTotals(True, 1, 1, samples=4)}, "total_input: expected an integer"),
    ({"training_spikes": SpikeTotals(-1, 1, 1, samples=4)}, "total_input: expected an integer"),
    ({"history": History([0.5], [80.0, 92.5], [90.0, 85.0], [1.5, 1.25])},
     "training_history.train_acc: expected 1 entries, got 2"),
    ({"history": History([math.nan], [80.0], [90.0], [1.0])}, "training_history.losses"),
    ({"history": History([0.5], [0.8], [101.0], [1.0])}, "val_acc: expected a list, each item"),
    ({"metrics": {"speed": math.inf}}, "metrics.speed: expected text, a finite number or null"),
    ({"metrics": {"object": object()}}, "metrics.object"),
    ({"config": {3: "three"}}, "config: expected keys of text, got 3"),
    ({"config": {"nested": [{"rate": math.nan}]}}, "config.nested[0].rate"),
    ({"confusion_matrix": np.eye(3, dtype=int)}, "confusion_matrix: expected 10 entries, got 3"),
    ({"confusion_matrix": [[2] * 10] * 9 + [[2]]}, "confusion_matrix[9]: expected 10 entries"),
    ({"confusion_matrix": confusion() * 2}, "expected a sum of 20, the test examples, got 40"),
    ({"confusion_matrix": confusion().astype(float)}, "confusion_matrix: expected a list"),
    ({"activity": {"output": {"events": 3}}}, "activity.output: expected key 'nonzero'"),
    ({"activity": {"output": {"events": 3, "nonzero": 3, "saturated": 0, "neurons": 0}}},
     "activity.output.neurons: expected a number > 0"),
    ({"metrics": {"neuron": None}}, "metrics.neuron: expected"),
    ({"metrics": {"neuron": {"update_ops": {}}}}, "metrics.neuron: expected key 'state_words'"),
    ({"environment": {"versions": {}, "device": {}}}, "record: expected key 'git_hash'"),
    ({"seed": -1}, "record.seed: expected an integer >= 0, got -1"),
    ({"seed": 2**63}, "record.seed"),
])
def test_wrong_figures_are_refused_in_one_line_with_their_path(changes, message):
    with pytest.raises(RecordError) as error:
        build(**changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_missing_key_is_found():
    record = build()
    paths = [(key,) for key in record]
    paths += [(key, inner) for key in NOTEBOOK_KEYS for inner in NOTEBOOK_KEYS[key] or ()]
    for *outer, key in paths:
        broken = copy.deepcopy(record)
        del (broken[outer[0]] if outer else broken)[key]
        with pytest.raises(RecordError, match=key):
            validate_record(broken)


@pytest.mark.parametrize("path, value", [
    (("n_hidden",), 401),
    (("schema",), "fastsnn-run/2"),
    (("kind",), "lm"),
    (("schema_version",), "surrogate_complete_v2"),
    (("architecture", "n_synapses_total"), 317_601),
    (("connectivity", "fanout_input_to_hidden"), 401),
    (("training_results", "epochs_trained"), 3),
    (("training_results", "total_samples"), 199),
    (("training_results", "best_val_accuracy"), 90.001),
    (("training_results", "final_train_accuracy"), None),
    (("training_spikes", "total_hidden"), 40_001),
    (("inference_spikes", "total_input"), None),
    (("inference_spikes", "n_samples"), 5),
    (("encoding", "time_window"), 51),
    (("energy_proxies", "dense_ops_per_inference"), 15_880_001),
    (("energy_proxies", "event_syn_per_inference"), 166_500.5),
    (("energy_proxies", "sparsity_ratio"), 0.0105),
    (("energy_proxies", "formula_dense"), "a guess"),
    (("test_accuracy",), 95.1),
    (("test_accuracy",), 101),
    (("per_class_accuracy",), [100.0] * 10),
    (("per_class_accuracy",), [100.0]),
    (("dataset", "sizes"), {"train": 100}),
    (("metrics", "test_accuracy"), 96.0),
])
def test_every_contradiction_is_found(path, value):
    record = build()
    *outer, key = path
    (record[outer[0]] if outer else record)[key] = value
    with pytest.raises(RecordError):
        validate_record(record)


def test_figures_may_differ_in_the_last_bits():
    record = build()
    ratio = record["energy_proxies"]["sparsity_ratio"] * (1 + 1e-15)
    record["energy_proxies"]["sparsity_ratio"] = ratio
    validate_record(record)


# Files


def test_what_was_written_is_read_back_from_file_or_directory(tmp_path):
    record = build()
    path = write_record(tmp_path, record)
    assert path == tmp_path / "record.json"
    assert load_record(path) == load_record(tmp_path) == record
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_record_read_and_written_again_is_the_same_bytes(tmp_path):
    first = write_record(tmp_path / "first.json", build())
    second = write_record(tmp_path / "second.json", load_record(first))
    assert first.read_bytes() == second.read_bytes()
    assert "  [0, 3, 0, 0, 0, 0, 0, 1, 0, 0],\n" in first.read_text()


def test_an_invalid_record_does_not_touch_the_disk(tmp_path):
    path = write_record(tmp_path, build())
    before = path.read_bytes()
    with pytest.raises(RecordError):
        write_record(tmp_path, build() | {"test_accuracy": math.nan})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["record.json"]


def test_a_write_that_fails_leaves_the_old_record_alone(tmp_path, monkeypatch):
    path = write_record(tmp_path, build())
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_record(tmp_path, build(seed=1))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"3", b'{"schema": "fastsnn-run/1"}', b"\xff\xfe", b"[" * 100_000,
    b'{"schema": NaN, "kind": "mnist"}', b'{"schema": ' + b"9" * 5000 + b"}",
], ids=["empty", "cut", "list", "number", "no kind", "no text", "deep", "nan", "long number"])
def test_a_spoiled_file_is_one_line_naming_it(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        load_record(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "nothing", "nothing/record.json"])
def test_a_missing_record_is_a_record_error(tmp_path, name):
    with pytest.raises(RecordError, match="No such file"):
        load_record(tmp_path / name)


# Text


def test_the_text_shows_every_figure_of_the_run():
    text = format_record(build())
    for shown in ("MLP 784-400-10", "by hand", "95 %", "1: 75", "2: -", "15,880,000", "166,500",
                  "317,600", "80,000", "dense0/kernel", "selected_on", "0.003", "poisson, 50 steps",
                  "2020-02-02"):
        assert shown in text, shown
    assert "None" not in text and "nan" not in text
    assert max(map(len, text.splitlines())) <= 160


def test_the_text_of_a_record_full_of_nulls_still_prints():
    nothing = SpikeTotals(None, None, None, samples=0)
    record = build(architecture=CNN, history=History([], [], [], []), training_spikes=nothing,
                   inference_spikes=nothing, activity={}, metrics={}, config={})
    text = format_record(record)
    assert "784---10" in text and "None" not in text

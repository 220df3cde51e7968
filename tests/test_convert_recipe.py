"""The conversion recipe: configuration, statistics, work in integers, record, and whole runs."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.checkpoint import CheckpointError
from fastsnn_jax.conversion import convert as to_spikes
from fastsnn_jax.data import Examples
from fastsnn_jax.energy.report import report
from fastsnn_jax.models import AnnCNN, AnnMLP
from fastsnn_jax.recipes import convert, load_run
from fastsnn_jax.recipes.convert import network, pipeline, spiking
from fastsnn_jax.recipes.convert.work import Signal, count_work, dense_macs, spikes_per_inference
from fastsnn_jax.recipes.images import load_dataset
from fastsnn_jax.record import (
    Anytime,
    Conventional,
    Conversion,
    RecordError,
    build_convert_record,
    chosen,
    conversion_table,
    energy_report,
    format_record,
    load_record,
    validate_record,
    write_record,
)
from fastsnn_jax.scope import conversion_curves

# Configuration


def test_a_configuration_comes_back_from_json():
    config = convert.preset(model="cnn", num_steps=[4, 2], methods=["max"], seed=3)
    assert config.num_steps == (4, 2) and config.methods == ("max",)
    data = json.loads(json.dumps(config.to_json()))
    assert convert.ConvertConfig.from_json(data) == config


BAD = [
    ({"dataset": "cifar"}, "dataset must be one of auto, mnist, digits"),
    ({"model": "vit"}, "model must be one of mlp, cnn, both"),
    ({"methods": ["magic"]}, "methods must be one of dynamic_mean, max"),
    ({"methods": []}, "methods must not be empty"),
    ({"methods": ["max", "max"]}, "methods must differ"),
    ({"methods": "max"}, "methods must be a list"),
    ({"methods": [["max"]]}, "methods must hold words or numbers"),
    ({"num_steps": [0]}, "num_steps must be >= 1"),
    ({"num_steps": [128]}, "num_steps must be <= 127"),
    ({"num_steps": [2.5]}, "num_steps must be an int"),
    ({"num_steps": 2}, "num_steps must be a list"),
    ({"fine_tune_steps": 0}, "num_steps must be >= 1"),
    ({"calibration_samples": 0}, "calibration_samples must be >= 1"),
    ({"epochs": 0}, "epochs must be >= 1"),
    ({"fine_tune_epochs": -1}, "fine_tune_epochs must be >= 0"),
    ({"learning_rate": 0}, "learning_rate must be > 0"),
    ({"ema_decay": 1.0}, "ema_decay must be > 0 and <= 0.999999"),
    ({"seed": -1}, "seed must be >= 0"),
    ({"seed": 2**31}, "seed must be < 2**31"),
    ({"smoke": 1}, "smoke must be true or false"),
    ({"recalibrate": "yes"}, "recalibrate must be true or false"),
    ({"dynamic_range": 0}, "dynamic_range must be > 0"),
    ({"step": 2}, "fields must be among"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=lambda part: str(part)[:40])
def test_a_bad_configuration_is_refused(fields, message):
    with pytest.raises((ValueError, TypeError), match=message.replace("*", r"\*")):
        convert.ConvertConfig.from_json(fields)


# Statistics of BatchNorm


def test_statistics_are_the_means_over_equal_batches(monkeypatch):
    monkeypatch.setattr(network, "EVAL_BATCH", 2)
    model = AnnCNN((3,), 4)
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"]
    variables = network.make_statistics(model, images)(params)
    kernel = params["conv0"]["kernel"]
    x = np.float32(images[:4]) / 255  # the fifth fills no batch
    maps = np.asarray(jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )).reshape(2, 2, 4, 4, 3)
    kept = variables["batch_stats"]["norm0"]
    np.testing.assert_allclose(kept["mean"], maps.mean((0, 1, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept["var"], maps.var((1, 2, 3)).mean(0), rtol=1e-3, atol=1e-6)
    plain = AnnMLP((3,), 4)
    params = jax.jit(plain.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"]
    assert list(network.make_statistics(plain, images)(params)) == ["params"]


def test_the_evaluator_counts_every_example_once():
    labels = np.array([1, 0, 1, 1, 0], np.int32)
    images = np.zeros((5, 1, 1, 1), np.uint8)
    images[:, 0, 0, 0] = [255, 0, 255, 0, 255]

    def forward(variables, x):
        return jnp.concatenate([1 - x.reshape(-1, 1), x.reshape(-1, 1)], 1) * variables

    scored = network.evaluator(forward, Examples(images, labels))(jnp.float32(3.0))
    assert scored["accuracy"] == 60.0 and scored["samples"] == 5


# Work


def two_layers():
    """3 inputs, 4 hidden neurons with 5 of 6 connections to 2 outputs, and what it did on 10."""
    def synapses(variables, shape):
        del shape
        return {f"{name}/kernel": lambda x, k=variables["params"][name]["kernel"]: x @ k
                for name in ("a", "b")}

    kernel = np.ones((4, 2), np.float32)
    kernel[3] = [1.0, 0.0]
    variables = {"params": {"a": {"kernel": np.ones((3, 4), np.float32)}, "b": {"kernel": kernel}}}
    signals = [Signal(np.array([20, 3, 0, 7]), 2)]
    counts = count_work(
        SimpleNamespace(synapses=synapses), variables, signals, num_steps=2, samples=10, active=25,
        input_shape=(3,), macs=[12, 7],
    )
    return signals, counts


def test_the_work_of_a_converted_network_is_counted_by_hand():
    signals, counts = two_layers()
    first, second = counts.values()
    # Values: one product an inference, whose result is added at each of 2 steps.
    assert (first.drive, first.mac, first.ac) == ("analog", 10 * 3 * 4, 0)
    assert (first.updates, first.bias_add) == (10 * 2 * 4, 10 * 2 * 4)
    assert (first.emitted, first.activation_words) == (30, 10 * 3)
    assert dict(first.update_ops) == {"add": 1, "compare": 1, "reset": 1}
    # Spikes: 20, 3 and 0 with 2 synapses each, 7 with 1; the readout only adds.
    assert (second.drive, second.ac, second.mac) == ("spikes", 46 + 7, 0)
    assert (second.connections, second.events, second.saturated) == (7, 30, 2)
    assert second.update_ops == (("add", 1),) and second.emitted == 0
    assert spikes_per_inference(signals, 10) == 3.0


def test_the_multiply_adds_of_the_cnn_are_those_behind_its_pools():
    model, x = AnnCNN((2, 3), 4), jnp.ones((1, 4, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    # Of 3 by 3 windows, those inside the map: 10 x 22 of 4 x 8 pixels, 4 x 10 of 2 x 4.
    assert dense_macs(model, variables, x) == [220 * 2, 40 * 2 * 3, 1 * 2 * 3 * 4]


# Recalibration


@pytest.mark.slow
def test_recalibrated_statistics_are_those_of_the_spikes_layer_by_layer():
    model, shape = AnnCNN((2, 3), 4), (4, 8, 1)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, *shape), np.uint8)
    learn = Examples(images, np.zeros(6, np.int32))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    variables = network.make_statistics(model, images)(params)
    config = convert.preset(model="cnn", calibration_samples=6)
    converted, calibrated = spiking.convert_network(config, model, variables, learn, "max", 2)
    x = jnp.float32(images) / 255
    _, activity = converted.apply(calibrated, x)
    first, second = (site.name for site in converted.sites)
    synapses = list(model.synapses(variables, shape).values())
    values = activity[first].events * converted.variables["sites"][first]["threshold"]
    before, behind = jax.jit(
        lambda x, values: (jax.vmap(synapses[0])(x), jax.vmap(synapses[1])(values) / 4)
    )(x, values)
    kept, old = calibrated["model"]["batch_stats"], variables["batch_stats"]
    for name, maps in (("norm0", before), ("norm1", behind)):
        np.testing.assert_allclose(kept[name]["mean"], maps.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(kept[name]["var"], maps.var((0, 1, 2)), rtol=1e-3, atol=1e-5)
    assert np.abs(kept["norm1"]["mean"] - old["norm1"]["mean"]).max() > 1e-3
    assert second in activity and calibrated["sites"] is converted.variables["sites"]


# Record


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = "mlp"
    seed: int = 3


def arguments(**changes):
    _, counts = two_layers()
    made = report(counts)["total"]
    return {
        "config": Config(),
        "dataset": {"name": "digits", "source": "by hand", "sha256": "0" * 64,
                    "sizes": {"train": 40, "validation": 4, "test": 10}},
        "environment": {"versions": {"jax": "0.7.2"}, "device": {"kind": "cpu"}, "git_hash": None},
        "seed": 3,
        "model_class": "AnnMLP",
        "parameters": np.int64(19),
        "training_config": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3,
                            "optimizer": "adam"},
        "history": {"losses": [2.0, 1.0], "train_acc": [40.0, 75.0], "val_acc": [50.0, 75.0],
                    "epoch_times": [1.5, 0.5]},
        "training_time_seconds": 2.0,
        "samples_per_s": None,
        "conventional": Conventional(90.0, 75.0, 19, {"ann_int8": [1e6, 2e6, 3e6]}),
        "conversions": [
            Conversion("max", 4, 0, 71.0, 70.0, 8.0, 12.5, [1e6, 2e6, 3e6]),
            Conversion("max", 2, 0, 61.0, 60.0, 5.0, 9.5, [1e5, 2e5, 3e5]),
            Conversion("qcfs", 2, 1, 91.0, 92.5, 3.0, 5.3, made["energy_pj"]["total"]),
        ],
        "anytime": Anytime("max", 4, 3, 1.25, 0),
        "shown": 2,
        "counts": counts,
        "report": {"sites": []},
        "timestamp": "2020-02-02T02:02:02+00:00",
    } | changes


def build(**changes):
    return build_convert_record(**arguments(**changes))


def test_drops_and_headline_follow_from_the_accuracies():
    record = build()
    assert [row["drop"] for row in record["conversions"]] == [20.0, 30.0, -2.5]
    assert record["metrics"] == {
        "ann_test_accuracy": 90.0, "test_accuracy": 92.5, "drop": -2.5, "method": "qcfs",
        "num_steps": 2, "fine_tune_epochs": 1, "event_syn_per_inference": 5.3,
        "dense_ops_per_inference": 19,
    }


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    record = build()
    write_record(tmp_path, record)
    assert load_record(tmp_path) == record


def test_the_energy_of_a_record_is_that_of_its_counts():
    assert energy_report(build()) == report(two_layers()[1])


def test_text_and_table_hold_every_conversion():
    record = build()
    shown = format_record(record)
    for words in ("AnnMLP, 19 parameters", "max", "92.50", "-2.50", "1 epoch", "b/kernel"):
        assert words in shown
    table = conversion_table(record).splitlines()
    assert table[2] == "| method | N = 2 | N = 4 |"
    assert table[4] == "| max | 60.00, 0.2 | 70.00, 2 |"
    assert table[5].startswith("| qcfs, fine-tuned 1 epoch | 92.50, ") and table[5].endswith("|  |")
    assert table[6] == "| chosen by held-out images | 60.00, max | 70.00, max |"


def test_for_each_n_the_held_out_images_choose_among_what_was_not_trained():
    rows = [Conversion(method, steps, tuned, held_out, test, 1.0, 1.0, [1.0, 1.0, 1.0])
            for method, steps, tuned, held_out, test in (
                ("max", 4, 0, 80.0, 99.0), ("ltb", 4, 0, 81.0, 70.0), ("max", 2, 0, 60.0, 60.0),
                ("qcfs", 2, 1, 99.0, 99.0), ("qcfs", 8, 1, 99.0, 99.0))]
    assert chosen([row._asdict() for row in rows]) == [2, 1]


def changed(path, value):
    record = copy.deepcopy(build())
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


@pytest.mark.parametrize(("path", "value", "message"), [
    (("conversions", 1, "drop"), 29.0, "conversions[1].drop: expected 30.0, got 29.0"),
    (("conversions", 0, "test_accuracy"), 101.0, "expected a number in 0..100"),
    (("conversions", 0, "energy_pj"), [1.0], "expected 3 entries"),
    (("metrics", "test_accuracy"), 91.0, "metrics.test_accuracy: expected 92.5"),
    (("shown",), 3, "shown: expected an entry of 3"),
    (("training_history", "val_acc"), [50.0], "expected 2 entries, got 1"),
    (("activity", "b/kernel", "ac"), 54, "additions per inference"),
    (("activity", "b/kernel", "coding"), "morse", "coding must be one of"),
    (("activity",), {}, "expected the work of a layer, got none"),
    (("chosen",), [0], "record.chosen: expected"),
    (("ann", "energy_pj"), {"ann_int8": "cheap"}, "expected an object, each value a list"),
])
def test_a_record_that_contradicts_itself_is_refused(path, value, message):
    with pytest.raises(RecordError) as error:
        validate_record(changed(path, value))
    assert message in str(error.value)


# Pictures


def test_the_curves_hold_every_point_and_the_network_before():
    curve = {"num_steps": [2, 8], "accuracy": [60.0, 80.0], "energy_pj": [1e6, 4e6]}
    figure = conversion_curves({"max": curve, "mse": curve}, ann_accuracy=90.0,
                               ann_energy_pj={"ann_int8": 3e6})
    left, right = figure.axes
    assert left.lines[0].get_xydata().tolist() == [[2, 60], [8, 80]]
    assert right.lines[1].get_xydata().tolist() == [[2, 1], [8, 4]]
    assert left.lines[2].get_ydata()[0] == 90 and right.lines[2].get_ydata()[0] == 3
    assert [label.get_text() for label in left.get_xticklabels()] == ["2", "8"]


@pytest.mark.parametrize(("methods", "message"), [
    ({}, "at least one"),
    ({"max": {"num_steps": [2], "accuracy": [1.0]}}, "none of"),
    ({"max": {"num_steps": [2], "accuracy": [1.0, 2.0], "energy_pj": [1.0]}}, "one length"),
    ({"max": {"num_steps": [0], "accuracy": [1.0], "energy_pj": [1.0]}}, "num_steps must be >= 1"),
    ({"max": {"num_steps": [2], "accuracy": [1.0], "energy_pj": [0.0]}}, "energy_pj must be > 0"),
])
def test_curves_of_nothing_are_refused(methods, message):
    with pytest.raises(ValueError, match=message):
        conversion_curves(methods, ann_accuracy=90.0)


# Whole runs

SMALL = {"dataset": "digits", "smoke": True, "methods": ("max",), "num_steps": (4,)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory, records, what was said) of a quick run of both networks on the digits."""
    out, said = tmp_path_factory.mktemp("convert") / "run", []
    records = convert.run(convert.preset(**SMALL), out, say=said.append)
    return out, records, said


@pytest.mark.slow
def test_a_run_leaves_a_record_a_table_pictures_and_a_page_for_each_network(finished):
    out, records, said = finished
    assert list(records) == ["mlp", "cnn"] and said[0].startswith("data: digits, 640 training")
    for name, record in records.items():
        assert load_record(out / name) == record
        methods = [(row["method"], row["num_steps"], row["fine_tune_epochs"])
                   for row in record["conversions"]]
        assert methods == [("max", 4, 0), ("qcfs", 2, 1)]
        assert record["chosen"] == [0] and record["anytime"]["changed"] == 0
        assert 1 <= record["anytime"]["mean_planes"] <= record["anytime"]["planes"] == 3
        for row in record["conversions"]:
            assert row["spikes_per_inference"] > 0 and row["energy_pj"][1] > 0
        for file in ("conversion.png", "curves.png", "conversions.md", "scope.html", "energy.json"):
            assert (out / name / file).stat().st_size > 100


@pytest.mark.slow
def test_a_finished_run_is_not_repeated_and_another_configuration_is_refused(finished):
    out, records, _ = finished
    said = []
    config = convert.saved_config(out)
    assert convert.run(config, out, resume=True, say=said.append) == records
    assert said == [f"{out} is finished; nothing to resume"]
    with pytest.raises(CheckpointError, match="another configuration"):
        convert.run(dataclasses.replace(config, seed=4), out, resume=True)
    with pytest.raises(ValueError, match="without a run"):
        convert.run(config, out)


@pytest.mark.slow
def test_a_loaded_run_is_the_network_before_conversion(finished):
    out, records, _ = finished
    model, variables, record = load_run(out / "cnn")
    config = convert.saved_config(out)
    test = load_dataset(config.dataset, config.smoke).test
    scored = network.evaluator(model.apply, test)(variables)
    assert scored["accuracy"] == record["ann"]["test_accuracy"]
    snn = to_spikes(model.apply, variables, network.scaled(jnp.asarray(test.images[:4])))
    assert len([site for site in snn.sites if site.converted]) == 3


@pytest.mark.slow
def test_a_run_cut_short_goes_on_to_the_same_record(finished, tmp_path, monkeypatch):
    _, records, _ = finished
    config, out = dataclasses.replace(convert.preset(**SMALL), model="mlp"), tmp_path / "run"

    def cut(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline.spiking, "fine_tune", cut)
        with pytest.raises(KeyboardInterrupt):
            convert.run(config, out)
    record = convert.run(config, out, resume=True)["mlp"]
    assert record["conversions"] == records["mlp"]["conversions"]
    assert record["activity"] == records["mlp"]["activity"]

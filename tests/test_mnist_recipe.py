"""Runs of the MNIST recipe on a small data set, and what they leave."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax import load_run
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.data import DataError, Dataset, load_images, split_validation
from fastsnn_jax.recipes import images, mnist, run_directory
from fastsnn_jax.recipes.mnist import network, pipeline
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan, encode, plan_inputs
from fastsnn_jax.recipes.mnist.traces import show_digits
from fastsnn_jax.record import RecordError, energy_report, load_record
from fastsnn_jax.scope import load_traces
from fastsnn_jax.surrogate import straight_through
from fastsnn_jax.train import Plateau
from fastsnn_jax.train.chunk import Pace


def tiny_dataset():
    """Ten classes, each a bright column of its own in noise: learned in no time."""
    random = np.random.default_rng(0)
    labels = (np.arange(180) % 10).astype(np.int32)
    images = random.integers(0, 40, (180, 12, 20, 1)).astype(np.uint8)
    images[np.arange(180), :, 2 * labels] = 250
    return Dataset("mnist", images[:120], labels[:120], images[120:], labels[120:], "by hand")


class Finished:
    """A finished run: its configuration, record, directory, what it said, and its loop's rule.

    Most do without pictures, which cost more than the run.
    """

    def __init__(self, directory, pictures=False, **fields):
        self.config = preset(**{
            "dataset": "mnist", "num_steps": 6, "latency_window": 5, "batch_size": 16,
            "epochs": 2, "max_rate_hz": 500.0, "inference_samples": 37, **fields,
        })
        self.directory, self.said, self.rules = directory, [], []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "load_images", lambda *_, **__: tiny_dataset())
            if not pictures:
                patch.setattr(pipeline, "draw_all", lambda *_: [])
                patch.setattr(pipeline, "show_digits", lambda *_: None)
                patch.setattr(pipeline, "peak_events", lambda _: 0)
            inner = pipeline.train
            patch.setattr(pipeline, "train", lambda step, source, state, rule, **options: (
                self.rules.append(rule), inner(step, source, state, rule, **options))[1])
            # One step a dispatch measures a speed even in a run this short.
            patch.setattr(Pace, "length", lambda pace, remaining: 1)
            self.record = mnist.run(self.config, directory, say=self.said.append)
        self.rule = self.rules[0]


every_run = pytest.mark.parametrize(
    "name", ["finished", *(pytest.param(n, marks=pytest.mark.slow) for n in ("notebook", "cnn"))]
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The default protocol's run, shared by the tests that only look."""
    return Finished(tmp_path_factory.mktemp("runs") / "default", pictures=True, learning_rate=0.01)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("runs") / "notebook", protocol="notebook", epochs=3)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("runs") / "cnn", pictures=True, model="cnn", epochs=1)


def test_a_run_leaves_a_valid_record_checkpoints_configuration_and_pictures(finished):
    assert load_record(finished.directory) == finished.record
    names = {path.name for path in finished.directory.iterdir()}
    pictures = {f"{name}.png" for name in ("confusion", "curves", "rates", "raster", "membrane")}
    page = {"energy.json", "energy.txt", "scope.html", "traces.npz"}
    assert names == {"record.json", "config.json", "checkpoints", *pictures, *page}
    assert mnist.saved_config(finished.directory) == finished.config
    assert preset(**finished.record["config"]) == finished.config


def test_a_run_learns_and_says_what_it_does(finished):
    record = finished.record
    assert record["test_accuracy"] > 30  # chance is 10, five sigma of 60 answers 19
    assert record["dataset"]["sizes"] == {"train": 110, "validation": 10, "test": 60}
    assert finished.said[0].startswith("data: mnist, 120 training and 60 test images from by hand")
    assert "dense synapse" in finished.said[1] or "event synapse" in finished.said[1]
    devices = record["metrics"]["devices"]
    assert finished.said[2].startswith(f"devices that share a batch: {devices}")
    assert finished.said[3] == "testing, once"


def test_the_headline_names_the_figures_of_the_record(finished):
    headline = mnist.headline(finished.record, "here")
    assert list(headline) == [
        "dataset", "selected_on", "test_accuracy", "best_val_accuracy", "epochs_trained",
        "train_samples_per_s", "event_syn_per_inference", "sparsity_ratio", "input_per_inference",
        "hidden_per_inference", "output_per_inference", "out",
    ]
    inference = finished.record["inference_spikes"]
    assert headline["out"] == "here" and headline["dataset"] == "mnist"
    assert headline["hidden_per_inference"] == inference["total_hidden"] / 37
    assert headline["event_syn_per_inference"] == pytest.approx(
        inference["total_input"] / 37 * 400 + inference["total_hidden"] / 37 * 10)
    assert headline["train_samples_per_s"] > 0 and headline["epochs_trained"] == 2


@functools.partial(jax.jit, static_argnums=(0, 1))
def answered(config, model, variables, images, key):
    """Logits of images and the dense trains of input and layers, in one program."""
    signal = encode(config, InputPlan("dense", 1, 0.0), key, jnp.float32(images) / 255)
    logits, _, traces = model.apply(variables, signal, model.layer_names)
    return logits, [signal, *(traces[name].spikes for name in model.layer_names)]


def spikes_by_hand(config, variables, model, images, key):
    """Input, hidden and output spikes of images by summing dense trains, on the host."""
    trains = answered(config, model, variables, images, key)[1]
    return [int(np.asarray(train, np.int64).sum()) for train in trains]


@every_run
def test_inference_spikes_are_those_of_an_independent_recount(name, request):
    run = request.getfixturevalue(name)
    model, variables, record = load_run(run.directory)
    # One batch of all 37 images, padding none: the key of batch 0.
    key = jax.random.fold_in(jax.random.split(jax.random.key(run.config.seed + 2), 2)[1], 0)
    counted = spikes_by_hand(
        run.config, variables, model, tiny_dataset().test_images[:37], key)
    inference = record["inference_spikes"]
    expected = (counted[0], sum(counted[1:-1]), counted[-1])
    assert tuple(inference[f"total_{n}"] for n in ("input", "hidden", "output")) == expected
    assert inference["n_samples"] == 37 and min(expected) > 0
    events = [entry["events"] for entry in record["activity"].values()]
    assert events == counted


def test_training_spikes_of_the_first_step_are_those_of_an_independent_recount(finished):
    config = dataclasses.replace(finished.config, shift=0.0, stretch=0.0)
    learn, _ = split_validation(tiny_dataset(), seed=0)
    model = network.build_model(config)
    params = network.init_params(config, model, (12, 20, 1), jax.random.key(0))
    key = jax.random.key(5)
    loss = network.make_loss(model, config, plan_inputs(config, learn.images))
    batch = learn.images[:16], learn.labels[:16]
    _, sums = jax.jit(loss)(params, jax.tree.map(jnp.asarray, batch), key)
    by_hand = spikes_by_hand(config, {"params": params}, model, batch[0], jax.random.split(key)[1])
    assert [int(sums["spikes"][n]) for n in ("input", "hidden", "output")] == by_hand
    assert int(sums["samples"]) == 16 and int(sums["spikes"]["saturated"]) == 0


def test_training_totals_are_integers_over_every_sample_seen(finished):
    spikes = finished.record["training_spikes"]
    assert spikes["total_samples"] == 2 * (110 // 16) * 16
    for name in ("input", "hidden", "output"):
        assert type(spikes[f"total_{name}"]) is int and spikes[f"total_{name}"] > 0
        assert spikes[f"{name}_per_sample"] == spikes[f"total_{name}"] / 192


@every_run
def test_a_loaded_run_reproduces_its_test_accuracy_and_confusion(name, request):
    run = request.getfixturevalue(name)
    model, variables, record = load_run(run.directory)
    test = tiny_dataset().test
    key = jax.random.split(jax.random.key(run.config.seed + 2), 2)[0]
    logits, _ = answered(run.config, model, variables, test.images, jax.random.fold_in(key, 0))
    answers = np.asarray(logits).argmax(-1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test.labels, answers), 1)
    assert record["confusion_matrix"] == confusion.tolist()
    assert record["test_accuracy"] == pytest.approx(100 * (answers == test.labels).mean())


def test_selected_parameters_are_those_of_the_best_epoch(finished):
    journal = Checkpoints(finished.directory / "checkpoints").restore().journal
    history = finished.record["training_history"]["val_acc"]
    assert journal["best_epoch"] == 1 + int(np.argmax(history))
    assert finished.record["training_results"]["best_val_accuracy"] == max(history)


def test_a_finished_run_is_not_repeated(finished):
    said = []
    record = mnist.run(finished.config, finished.directory, resume=True, say=said.append)
    assert record == finished.record
    assert said == [f"{finished.directory} is finished; nothing to resume"]


def test_the_directory_of_another_run_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match="out must be a directory without a run"):
        mnist.run(preset(dataset="digits", smoke=True), finished.directory)
    Checkpoints(tmp_path / "checkpoints").save({"params": {"w": np.zeros(1)}}, {})
    with pytest.raises(ValueError, match="out must be a directory without a run"):
        mnist.run(preset(dataset="digits", smoke=True), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_resume_refuses_other_data_and_another_configuration(tmp_path):
    config = preset(dataset="digits", smoke=True)
    digits = images.load_dataset(config.dataset, config.smoke)
    run_directory.begin(tmp_path, config.to_json(), digits.sha256)
    with pytest.raises(CheckpointError, match="begun with another configuration"):
        mnist.run(dataclasses.replace(config, seed=1), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="trained on other data"):
        mnist.run(dataclasses.replace(config, smoke=False), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="expected a run with config.json"):
        mnist.run(config, tmp_path / "nothing", resume=True)


@pytest.mark.parametrize(("text", "message"), [
    ("{", "got Expecting property name"),
    ("[3]", "got a file without config"),
    ('{"config": {}}', "got a file without dataset_sha256"),
    ('{"config": [], "dataset_sha256": ""}', "got a file without config"),
    ('{"config": {"epoch": 3}, "dataset_sha256": ""}', "got preset: fields must be among"),
    ('{"config": {"epochs": "3"}, "dataset_sha256": ""}', "got MnistConfig: epochs must be an int"),
])
def test_a_damaged_configuration_names_its_file_and_what_is_wrong(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        mnist.saved_config(tmp_path)
    beginning = f"{tmp_path / 'config.json'}: expected the configuration of a run, {message}"
    assert str(caught.value).startswith(beginning)


def test_load_run_refuses_a_directory_without_a_record_or_checkpoint(finished, tmp_path):
    with pytest.raises(RecordError):
        load_run(tmp_path)
    (tmp_path / "record.json").write_bytes((finished.directory / "record.json").read_bytes())
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        load_run(tmp_path)


def test_a_batch_larger_than_what_is_left_to_train_on_is_refused_before_anything_is_said(tmp_path):
    said = []
    with pytest.raises(ValueError, match="batch size must be <= 587, the images to train on"):
        mnist.run(preset(dataset="digits", smoke=True, batch_size=588), tmp_path / "run",
                  say=said.append)
    assert not said and not (tmp_path / "run").exists()


def test_missing_data_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError):
        mnist.run(preset(dataset="mnist"), tmp_path / "run", data_dir=tmp_path / "none")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_notebook_learns_from_all_and_selects_on_the_test_set(notebook):
    record = notebook.record
    assert record["metrics"]["selected_on"] == "test"
    assert record["dataset"]["sizes"] == {"train": 120, "validation": 0, "test": 60}
    assert notebook.rule.patience == 5 and notebook.rule.target == 98.0
    assert notebook.rule.plateau == Plateau(factor=0.5, patience=2, threshold=1e-4)
    names = ("optimizer", "weight_decay", "grad_clip_max_norm")
    assert [record["training_config"][name] for name in names] == ["adam", 1e-5, 1.0]
    neuron = network.build_model(notebook.config).neuron
    assert (neuron.reset, neuron.learn, neuron.decay, neuron.threshold) == ("zero", (), 0.9, 1.0)
    assert neuron.surrogate == straight_through(0.3)


def test_our_protocols_hold_out_one_in_twelve_and_stop_at_no_target(finished):
    found = finished.rule.target, finished.rule.plateau, finished.record["metrics"]["selected_on"]
    assert found == (None, None, "validation")


@pytest.mark.slow
def test_a_cnn_has_no_fan_out_and_counts_every_layer(cnn):
    record = cnn.record
    undefined = ("n_syn_input_hidden", "n_syn_hidden_output", "n_synapses_total",
                 "fanout_input_to_hidden", "fanout_hidden_to_output")
    assert all(record["connectivity"][key] is None for key in undefined)
    assert all(record["architecture"][key] is None for key in (*undefined, "n_hidden"))
    proxies = record["energy_proxies"]
    assert proxies["event_syn_per_inference"] is proxies["dense_ops_per_inference"] is None
    activity = record["activity"]
    assert list(activity) == ["conv0/kernel", "conv1/kernel", "dense/kernel", "output"]
    sizes = [entry["neurons"] for entry in activity.values()]
    assert sizes == [12 * 20, 6 * 10 * 12, 3 * 5 * 24, 10]
    hidden = activity["conv1/kernel"]["events"] + activity["dense/kernel"]["events"]
    assert record["inference_spikes"]["total_hidden"] == hidden


@pytest.mark.slow
def test_the_synaptic_events_of_every_layer_are_on_record(finished, cnn):
    activity = finished.record["activity"]
    assert list(activity) == ["dense0/kernel", "dense1/kernel", "output"]
    for name, fan in (("dense0/kernel", 400), ("dense1/kernel", 10)):
        assert activity[name]["synaptic_events"] == fan * activity[name]["events"]
    assert "synaptic_events" not in activity["output"]
    activity = cnn.record["activity"]
    for name, width in (("conv0/kernel", 12), ("conv1/kernel", 24)):  # 1 to 4 places each
        events = activity[name]["events"]
        assert width * events < activity[name]["synaptic_events"] < 4 * width * events
    assert activity["dense/kernel"]["synaptic_events"] == 10 * activity["dense/kernel"]["events"]


def test_every_spike_costs_the_fan_out_of_its_own_neuron():
    entry = {"per_neuron": [[1, 2], [0, 3]], "nonzero": 6, "saturated": 0}
    fans = np.array([[1, 10], [100, 1000]])
    params = {"dense0": {"kernel": np.zeros((4, 9))}}
    counts = pipeline._layer_activity(entry, params, "dense0/kernel", fans, most=2.5)
    assert (counts["silent"], counts["saturated_neurons"]) == (1, 1)
    assert counts["synaptic_events"] == 1 + 20 + 0 + 3000
    assert (counts["connections"], counts["weights"]) == (1111, 36)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finished", "cnn"])
def test_the_energy_of_a_record_is_that_of_its_own_counts(name, request):
    record = request.getfixturevalue(name).record
    made = energy_report(record)
    synapses = {key: entry for key, entry in record["activity"].items() if key != "output"}
    for key, entry in synapses.items():
        assert made["counts"][key]["ac"] == entry["synaptic_events"]
    sizes = [(made["counts"][key]["weights"], made["counts"][key]["outputs"]) for key in synapses]
    assert sizes == {
        "finished": [(12 * 20 * 400, 400), (400 * 10, 10)],
        "cnn": [(9 * 12, 6 * 10 * 12), (9 * 12 * 24, 3 * 5 * 24), (3 * 5 * 24 * 10, 10)],
    }[name]


def test_a_run_traces_its_layers_and_how_their_decays_drifted(finished):
    traces = load_traces(finished.directory)
    assert list(traces["raster"]) == ["input", "dense0", "dense1"]
    assert list(traces["membrane"]) == list(traces["rates"]) == ["dense0", "dense1"]
    for name, values in traces["drift"].items():
        assert name in ("decay of dense0", "decay of dense1") and len(values) == 2
        np.testing.assert_allclose(values, 0.9, atol=0.02)  # it began there
    events = finished.record["activity"]["output"]["events"]
    expected = events / (37 * finished.config.num_steps * 10)
    np.testing.assert_allclose(traces["rates"]["dense1"].mean(), expected, rtol=1e-5)


@pytest.mark.slow
def test_with_few_events_the_winners_of_the_bright_pixels_spike_once_dark_ones_never(tmp_path):
    run = Finished(tmp_path / "run", protocol="few-events", latency_winners=1, epochs=1)
    images = tiny_dataset().test_images[:37].astype(np.float32) / 255
    bright = (images >= run.config.latency_threshold).reshape(37, 6, 2, 10, 2).sum((2, 4))
    assert np.minimum(bright, 1).sum() == run.record["inference_spikes"]["total_input"]
    assert run.record["encoding"]["max_rate_hz"] is None
    assert run.record["metrics"]["input_synapse"] == "dense"


@pytest.mark.slow
def test_an_analog_input_is_counted_as_events_of_every_pixel_at_every_step(tmp_path):
    run = Finished(tmp_path / "run", pictures=True, encoder="direct", epochs=1)
    names = {path.stem for path in run.directory.glob("*.png")}
    assert names == {"confusion", "curves", "rates", "raster", "membrane"}
    pixels, steps = 12 * 20, 6
    record = run.record
    assert record["inference_spikes"]["total_input"] == 37 * pixels * steps
    assert record["training_spikes"]["total_input"] == 96 * pixels * steps
    hidden = record["inference_spikes"]["hidden_per_inference"]
    assert record["energy_proxies"]["event_syn_per_inference"] == pytest.approx(
        pixels * steps * 400 + hidden * 10)


def test_neurons_silent_over_all_of_inference_are_counted(finished):
    hidden = finished.record["activity"]["dense1/kernel"]
    model, variables, _ = load_run(finished.directory)
    key = jax.random.fold_in(jax.random.split(jax.random.key(2), 2)[1], 0)
    _, trains = answered(finished.config, model, variables, tiny_dataset().test_images[:37], key)
    silent = int((np.asarray(trains[1]).sum((0, 1)) == 0).sum())
    assert hidden["silent"] == silent and hidden["neurons"] == 400


def test_a_report_opens_with_saturated_neurons_and_the_busiest_step(finished):
    model, variables, _ = load_run(finished.directory)
    shown = show_digits(finished.config, model, variables["params"], tiny_dataset().test)
    steps = sum(np.asarray(train).sum(-1) for train in shown.spikes.values())
    assert finished.record["metrics"]["peak_events_per_step"] == steps.max() > 0
    answers = energy_report(finished.record)["answers"]
    assert answers["peak_events_per_step"] == steps.max()
    assert answers["saturated"]["dense0/kernel"] == finished.record["activity"]["dense1/kernel"][
        "saturated_neurons"]


def test_a_smoke_run_takes_a_few_hundred_images():
    said = []
    dataset = images.load_dataset("digits", smoke=True, say=said.append)
    full = load_images("digits")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (640, 256)
    np.testing.assert_array_equal(dataset.train_images, full.train_images[:640])
    assert said[-1].startswith("data: digits, 640 training and 256 test images")

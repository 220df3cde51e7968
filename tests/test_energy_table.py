"""Counts from records, and ``experiments.energy_table`` as a user meets it."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import pytest
import test_record
import test_record_lm
from processes import REPOSITORY, environment

from experiments import energy_table
from fastsnn_jax import cli
from fastsnn_jax.cli import energy
from fastsnn_jax.energy.files import REPORT_FILE, TEXT_FILE
from fastsnn_jax.energy.profiles import DEVICES, profile_names
from fastsnn_jax.energy.report import to_bytes, validate_report
from fastsnn_jax.record import (
    RecordError,
    SynapseCounts,
    energy_report,
    load_record,
    write_record,
)
from fastsnn_jax.record.energy import LM_HEAD, health, layer_counts

# 4 inferences of 784-400-10 over 50 steps: 1640 input, 1000 hidden and 33 output spikes.
IMAGES = {
    "dense0/kernel": {"events": 1_640, "nonzero": 1_640, "saturated": 0, "neurons": 784,
                      "silent": 153, "synaptic_events": 1_640 * 400},
    "dense1/kernel": {"events": 1_000, "nonzero": 1_000, "saturated": 0, "neurons": 400,
                      "silent": 28, "synaptic_events": 1_000 * 10},
    "output": {"events": 33, "nonzero": 33, "saturated": 0, "neurons": 10, "silent": 0},
}
MODEL = {"neuron": "adaptive_threshold", "spiking_lm_head": False, "d_model": 4, "vocab_size": 65}


def images(**changes):
    return test_record.build(**{"activity": IMAGES} | changes)


def text(**changes):
    return test_record_lm.build(**{"model": MODEL} | changes)


@pytest.fixture
def runs(tmp_path):
    """Directories of an MNIST run and of a language model's."""
    for name, record in (("images", images()), ("text", text())):
        (tmp_path / name).mkdir()
        write_record(tmp_path / name, record)
    return tmp_path


# From a record to counts


def test_an_mnist_record_holds_the_work_of_both_its_synapses():
    hidden, output = layer_counts(images()).values()
    assert (hidden.samples, hidden.num_steps, hidden.inputs, hidden.outputs) == (4, 50, 784, 400)
    assert (hidden.events, hidden.ac, hidden.connections) == (1_640, 656_000, 313_600)
    assert (hidden.emitted, hidden.updates, hidden.bias_add) == (1_000, 80_000, 80_000)
    assert (output.inputs, output.events, output.ac, output.emitted) == (400, 1_000, 10_000, 33)
    assert {name for name, _ in hidden.update_ops} == {"mul", "add", "compare", "reset"}


def test_the_neurons_that_never_fired_are_those_of_their_own_layer():
    # The 153 silent inputs are pixels, and no neurons.
    assert health(images())["dead"] == {"dense0/kernel": 28, "dense1/kernel": 0}
    assert health(text())["dead"] == {}


def test_saturated_neurons_and_the_busiest_step_are_those_of_the_record():
    record = images()
    assert health(record)["saturated"] == {} and health(record)["peak_events_per_step"] is None
    record["activity"]["dense1/kernel"]["saturated_neurons"] = 7
    record["metrics"]["peak_events_per_step"] = 90
    assert health(record)["saturated"] == {"dense0/kernel": 7}
    assert health(record)["peak_events_per_step"] == 90


def test_neurons_cost_what_the_record_says_of_them():
    record = images()
    record["metrics"]["neuron"] = {"update_ops": {"add": 1, "compare": 1}, "state_words": 2}
    hidden, _ = layer_counts(record).values()
    assert hidden.update_ops == (("add", 1), ("compare", 1)) and hidden.state_words == 2


def test_the_work_of_an_encoder_is_said_to_be_left_out_where_there_is_one():
    direct = test_record.arguments()["encoding"] | {"type": "direct"}
    drawn, given = (energy_report(record)["warnings"]
                    for record in (images(), images(encoding=direct)))
    assert "poisson encoder" in "".join(drawn) and "encoder" not in "".join(given)


def test_values_instead_of_spikes_are_products_at_every_step():
    code = test_record.arguments()["encoding"] | {"type": "direct"}
    dense = {**IMAGES, "dense0/kernel": IMAGES["dense0/kernel"] | {
        "events": 4 * 50 * 784, "nonzero": 4 * 50 * 784, "synaptic_events": 4 * 50 * 313_600}}
    hidden, output = layer_counts(images(encoding=code, activity=dense)).values()
    assert (hidden.drive, hidden.coding, hidden.ac, hidden.events) == ("analog", "none", 0, 0)
    assert hidden.mac == 4 * 50 * 313_600 and hidden.activation_words == 4 * 50 * 784
    assert (output.drive, output.ac) == ("spikes", 10_000)


def test_a_language_models_record_holds_its_projections_and_its_dense_head():
    counts = layer_counts(text())
    assert list(counts) == ["block_0/q", "block_0/k", "block_0/up", LM_HEAD]
    query, key = counts["block_0/q"], counts["block_0/k"]
    assert (query.samples, query.inputs, query.outputs, query.coding) == (8, 4, 6, "bitwise")
    assert (query.events, query.ac, query.updates) == (24, 24 * 6, 0)
    # q codes the input for k as well: 4 divisions and a mean of 4 per token; each scales its sums.
    assert dict(query.elementwise) == {"div": 32, "reduce": 32, "mul": 48}
    assert dict(key.elementwise) == {"mul": 24}
    head = counts[LM_HEAD]
    assert (head.drive, head.mac, head.connections) == ("analog", 8 * 4 * 65, 4 * 65)
    assert LM_HEAD not in layer_counts(text(model=MODEL | {"spiking_lm_head": True}))
    fixed = layer_counts(text(model=MODEL | {"neuron": "lif_sint"}))["block_0/q"]
    assert dict(fixed.elementwise) == {"div": 32, "mul": 48}


def test_the_events_of_a_report_are_those_of_the_record(runs):
    made = energy_report(load_record(runs / "images"), "horowitz45")
    proxies, recorded = made["proxies"], images()["energy_proxies"]
    assert proxies["notebook_event_syn"] == recorded["event_syn_per_inference"]
    assert proxies["notebook_dense"] == recorded["dense_ops_per_inference"]
    assert proxies["notebook_ratio"] == recorded["sparsity_ratio"]
    spikes = text()["spikes"]
    blocks = energy_report(load_record(runs / "text"), "horowitz45")
    assert blocks["total"]["ac"] == spikes["synaptic_events_per_token"]
    assert blocks["unit"] == "token" and any("attention" in w for w in blocks["warnings"])


@pytest.mark.parametrize(("record", "message"), [
    (lambda: images(architecture=test_record.CNN), "architecture: expected the connections of"),
    (lambda: images(activity={k: v for k, v in IMAGES.items() if k != "dense1/kernel"}),
     "expected the connections of one hidden layer"),
    (lambda: images(activity={**IMAGES, "dense1/kernel": {
        "events": 1, "nonzero": 1, "saturated": 0}}), "dense1/kernel: expected a key 'synaptic_ev"),
    (lambda: images(inference_spikes=test_record.SpikeTotals(0, 0, 0, samples=0)),
     "n_samples: expected at least one"),
    (lambda: text(**test_record_lm.TWINLESS), "activity: expected spikes, got a model without any"),
    (lambda: text(model={"d_model": 4}), "model: expected a key 'neuron'"),
    (lambda: text(activity={"up": SynapseCounts(0, 4, 2, 0, 0, 0, 0)}, input_groups=[["up"]]),
     "activity.up.tokens: expected at least one"),
])
def test_a_record_that_lacks_what_is_needed_is_refused(record, message):
    with pytest.raises(RecordError) as error:
        layer_counts(record())
    assert message in str(error.value) and "\n" not in str(error.value)


# The command


def refused(*arguments):
    """The one line that a command line is refused with."""
    with pytest.raises(Exception) as caught:
        energy_table.main([str(argument) for argument in arguments])
    assert cli.is_refusal(caught.value), caught.value
    return " ".join(str(caught.value).split())


def test_one_run_prints_its_text_and_ends_with_its_headline(runs, capsys):
    last = energy_table.main([str(runs / "images"), "--out", str(runs / "out")])
    printed = capsys.readouterr().out
    for shown in ("energy per inference on horowitz45: ESTIMATE", "dense1/kernel", "assumptions"):
        assert shown in printed
    assert list(last) == ["device", "runs", "out"]
    figures = last["runs"][str(runs / "images")]
    assert figures["spsi"] == (656_000 + 10_000) / 4 / 317_600
    written = json.loads((runs / "out" / REPORT_FILE).read_text())
    validate_report(written)
    assert written["total"]["energy_pj"]["total"][1] == figures["energy_pj"]
    assert (runs / "out" / TEXT_FILE).read_text() == printed
    json.dumps(last, allow_nan=False)


def test_json_is_an_object_for_one_run_and_a_list_for_several(runs, capsys):
    one, two = str(runs / "images"), str(runs / "text" / "record.json")
    single = energy_table.main([one, "--json"])
    both = energy_table.main([two, one, "--json", "--device", "yan22"])
    assert capsys.readouterr().out == ""
    assert [report["unit"] for report in both] == ["token", "inference"]
    for report in (single, *both):
        validate_report(json.loads(json.dumps(report, allow_nan=False)))
    assert {report["profile"]["name"] for report in both} == {"yan22"}


def test_the_page_of_several_runs_is_the_first_ones_beside_others_of_its_kind(runs):
    one, text = str(runs / "images"), str(runs / "text")
    shutil.copytree(one, runs / "again")
    energy_table.main([one, str(runs / "again"), text, "--out", str(runs / "out")])
    page = (runs / "out" / "scope.html").read_text()
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    points = json.loads(data)["points"]
    assert [point["name"] for point in points] == ["this run", str(runs / "again")]
    assert points[0]["accuracy"] == points[1]["accuracy"]
    assert points[0]["events"] == points[1]["events"] is not None


def test_a_file_serves_as_a_device(runs):
    path = runs / "mine.json"
    fields = json.loads((DEVICES / "horowitz45.json").read_text())
    path.write_text(json.dumps(fields | {"name": "mine"}))
    by_file = energy_table.main([str(runs / "images"), "--json", "--device", str(path)])
    by_name = energy_table.main([str(runs / "images"), "--json"])
    assert by_file["profile"]["name"] == "mine" and by_file["layers"] == by_name["layers"]


def test_a_file_is_no_directory_for_a_report(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="save_report: out must be a directory, got a file in"):
        energy_table.main(["--smoke", "--out", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "kept"


def test_the_example_needs_no_run_and_writes_its_report(tmp_path):
    last = energy_table.main(["--smoke", "--out", str(tmp_path)])
    assert last["runs"]["example"]["verdict"] in ("wins", "loses", "undetermined")
    report = json.loads((tmp_path / REPORT_FILE).read_text())
    assert report["proxies"]["notebook_event_syn"] == 173_950
    assert (tmp_path / REPORT_FILE).read_bytes() == to_bytes(report)


def test_the_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as exit:
        energy_table.main(["--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("RUN", "--device", "--json", "--out", "--smoke"))


def test_bad_devices_are_refused_by_name_and_field(runs):
    run = runs / "images"
    for name in profile_names():
        assert name in refused(run, "--device", "loihi9")
    path = runs / "mine.json"
    for change, message in (
        ({"event": {"low": 1, "nominal": 1, "high": 1, "table": "t", "basis": "measured",
                    "date": "2020"}}, "profile mine.json.event: expected a field 'source'"),
        ({"event": {"low": -1, "nominal": 1, "high": 1, "source": "s", "table": "t",
                    "basis": "measured", "date": "2020"}}, "mine.json.event.low: expected a num"),
    ):
        fields = json.loads((DEVICES / "horowitz45.json").read_text()) | change
        path.write_text(json.dumps(fields))
        assert message in refused(run, "--device", path)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda text: text[:500], "expected a readable record of a run"),
    (lambda text: text.replace("fastsnn-run/1", "fastsnn-run/2"), "schema: expected 'fastsnn-run/"),
    (lambda text: text.replace('"events": 1640', '"events": NaN'), "events: expected text, a fini"),
    (lambda text: text.replace('"events": 1640', '"events": Infinity'), "events: expected text, a"),
    (lambda text: text.replace('"nonzero": 1640', '"nonzero": -1'), "nonzero: expected an integer"),
])
def test_a_damaged_record_is_refused_in_one_line_that_names_it(runs, damage, message):
    path = runs / "images" / "record.json"
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    line = refused(runs / "images")
    assert message in line and str(path) in line


def test_what_is_no_finished_run_is_refused(runs):
    assert "expected a readable record" in refused(runs)
    assert "expected a readable record" in refused(runs / "absent")
    (runs / "begun").mkdir()
    (runs / "begun" / "config.json").write_text("{}")
    assert "expected a finished run" in refused(runs / "begun")
    assert "expected at least one RUN" in refused()
    assert "expected at least one RUN" in refused(runs / "images", "--smoke")
    write_record(runs / "text", text(**test_record_lm.TWINLESS))
    assert f"{runs / 'text'}: record.activity" in refused(runs / "text")


@pytest.mark.slow
def test_a_refusal_is_one_line_and_exit_status_2():
    command = [sys.executable, "-m", "experiments.energy_table", "--smoke", "--device", "nowhere"]
    done = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, timeout=120,
                          env=environment())
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: load_profile: expected one of h100-peak")
    assert len(done.stderr.splitlines()) == 1


def test_the_example_is_the_published_network():
    report = energy.example_report("horowitz45")
    counts = report["counts"]
    assert [counts[name]["ac"] / 8 for name in counts] == [409.875 * 400, 1000 * 10]
    assert dataclasses.asdict(layer_counts(images())["dense0/kernel"]).keys() == counts[
        "dense0/kernel"].keys()

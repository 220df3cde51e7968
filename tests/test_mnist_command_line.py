"""The command line of ``experiments.mnist_lif``: in this process, and as a user meets it."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from mnist_damage import (
    another_length,
    cut_short,
    flip_bytes,
    no_digit,
    one_missing,
    other_magic,
    write_mnist,
)
from processes import environment_of_long_runs

from experiments import mnist_lif
from fastsnn_jax import cli
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.record import load_record

QUICK = ("--dataset", "digits", "--smoke", "--num-steps", "6")
HEADLINE = [
    "dataset", "selected_on", "test_accuracy", "best_val_accuracy", "epochs_trained",
    "train_samples_per_s", "event_syn_per_inference", "sparsity_ratio", "input_per_inference",
    "hidden_per_inference", "output_per_inference", "out",
]


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """An empty directory to work in, and no dataset of the user's own."""
    jax.devices()  # they stay as they are, whatever a command in this process would like
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "nowhere")


def contents(directory):
    """Every path below, with the bytes of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory, headline) of a quick run on the digits."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return out, mnist_lif.main([*QUICK, "--epochs", "1", "--out", str(out)])


@pytest.mark.slow
def test_a_smoke_run_of_the_notebook_takes_two_epochs_too(tmp_path):
    run = mnist_lif.main([*QUICK, "--protocol", "notebook", "--out", str(tmp_path / "run")])
    assert run["epochs_trained"] == 2


@pytest.mark.slow
def test_the_headline_is_one_json_object_of_the_figures_of_the_record(finished):
    out, headline = finished
    headline = json.loads(json.dumps(headline, allow_nan=False))
    assert list(headline) == HEADLINE
    assert headline["dataset"] == "digits" and headline["out"] == str(out)
    record = json.loads((out / "record.json").read_text())
    for name in HEADLINE[1:-1]:
        assert headline[name] == record["metrics"][name]


@pytest.mark.slow
def test_inspect_prints_a_readable_record_and_gives_the_headline(finished, capsys):
    out, headline = finished
    assert mnist_lif.main(["inspect", str(out)]) == headline
    output, errors = capsys.readouterr()
    assert "confusion" in output and len(output.splitlines()) > 40 and not errors


@pytest.mark.slow
def test_resuming_a_finished_run_says_so_and_changes_nothing(finished, capsys):
    out, headline = finished
    before = contents(out)
    assert mnist_lif.main(["--resume", str(out)]) == headline
    assert capsys.readouterr().err == f"{out} is finished; nothing to resume\n"
    assert contents(out) == before


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        mnist_lif.main(["--help"])
    output = capsys.readouterr().out
    assert not left.value.code
    for flag in ("--out", "--resume", "--seed", "--smoke", "--data-dir", "--config", "--dataset",
                 "--protocol", "--model", "--encoder", "--epochs", "--batch-size", "--num-steps",
                 "--max-rate", "--latency-window", "--latency-winners", "--learning-rate",
                 "--input-synapse", "--download"):
        assert flag in output
    assert "(default: poisson)" in output and "(default: 80.0)" in output
    assert "640 training and 256 test images" in output and "four IDX files" in output


# Bad input


def refused(*arguments):
    """Runs in this process what must exit 2 in one line and write nothing. Returns the line."""
    before = contents(Path.cwd())
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        mnist_lif.main([str(argument) for argument in arguments])
    assert cli.is_refusal(caught.value), caught.value
    assert contents(Path.cwd()) == before
    return " ".join(str(caught.value).split())


FLAGS = [
    (("--dataset", "cifar"), "dataset must be one of auto, mnist, digits, got 'cifar'"),
    (("--num-steps", "0"), "num_steps must be >= 1, got 0"),
    (("--max-rate", "1001"), "max_rate_hz must be > 0 and <= 1000, got 1001"),
    (("--max-rate", "nan"), "max_rate_hz must be > 0 and <= 1000, got nan"),
    (("--epochs", "-1"), "epochs must be >= 1, got -1"),
    (("--batch-size", "0"), "batch_size must be >= 1, got 0"),
    (("--batch-size", "588"), "batch size must be <= 587, the images to train on, got 588"),
    (("--learning-rate", "0"), "learning_rate must be > 0"),
    (("--seed", "-1"), "seed must be >= 0, got -1"),
    (("--seed", "99999999999999999999"), "seed must be < 2**31"),
    (("--model", "cnn", "--input-synapse", "event"), "needs model mlp and encoder poisson"),
    (("--dataset", "mnist", "--data-dir", "nowhere"), "nowhere: expected MNIST, got no such dir"),
    (("--dataset", "mnist", "--data-dir", "."), "expected MNIST, got a directory without it"),
    (("--data-dir", "nowhere"), "no data_dir and no download: they are embedded"),
    (("--out", "file/run"), "out must be a directory, got a file in"),
    (("--out", "file"), "out must be a directory, got a file in"),
    (("--resume", "nowhere"), "expected a run with config.json"),
    (("--resume", "."), "expected a run with config.json"),
    (("--config", "nowhere"), "nowhere must be a readable JSON file"),
    (("--config", "file"), "file must be a readable JSON file"),
]


@pytest.mark.parametrize(("arguments", "message"), FLAGS, ids=str)
def test_a_bad_flag_is_refused(arguments, message, tmp_path):
    (tmp_path / "file").write_text("not JSON")
    base = () if arguments[0] in ("--resume", "--dataset") else ("--dataset", "digits", "--smoke")
    assert message in refused(*base, *arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--epochs", "two"), "argument --epochs: invalid int value: 'two'"),
    (("--nonsense",), "unrecognized arguments: --nonsense"),
    (("--resume", ""), "argument --resume: expected a path, got ''"),
    (("--out", ""), "argument --out: expected a path, got ''"),
    (("inspect",), "the following arguments are required: DIR"),
], ids=str)
def test_a_flag_that_does_not_parse_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        mnist_lif.main([*arguments])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(("fields", "message"), [
    ({"epoch": 3}, "preset: fields must be among"),
    ({"epochs": "3"}, "epochs must be an int, got '3'"),
    ({"num_steps": 2.5}, "num_steps must be an int, got 2.5"),
    ({"learn_decay": 1}, "learn_decay must be true or false, got 1"),
    ([3], "must hold a mapping of fields, got list"),
], ids=str)
def test_a_bad_configuration_file_is_refused(tmp_path, fields, message):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    arguments = ("--dataset", "digits", "--config", "config.json", "--out", "run")
    assert message in refused(*arguments)


@pytest.mark.parametrize(("damage", "message"), [
    (cut_short, "expected a readable IDX file"),
    (flip_bytes, "train-images-idx3-ubyte.gz: expected"),
    (other_magic, "expected IDX magic"),
    (another_length, "expected as many labels as images, got 39 and 40"),
    (no_digit, "expected labels in 0..9, got 0..39"),
    (one_missing, "expected MNIST's four IDX files"),
])
def test_a_damaged_mnist_is_refused(tmp_path, damage, message):
    folder = write_mnist(tmp_path / "data")
    damage(folder)
    assert message in refused("--data-dir", folder, "--out", "run")


def test_a_batch_larger_than_the_data_is_refused_before_the_fallback_is_announced(capsys):
    assert "batch size must be <= 1317" in refused("--batch-size", "1318")
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_an_existing_run_is_no_out_and_conflicts_are_no_resume(finished):
    out = finished[0]
    conflicts = {
        (*QUICK, "--out", out): "out must be a directory without a run",
        ("--resume", out, "--seed", "3"): "this run's seed is 0, not 3",
        ("--resume", out, "--max-rate", "40"): "this run's max_rate_hz is 80.0, not 40.0",
        ("--resume", out, "--epochs", "9"): "this run's epochs is 1, not 9",
        ("--resume", out, "--out", "elsewhere"): "leave out --out and --config",
    }
    for arguments, message in conflicts.items():
        assert message in refused(*arguments)


def unfinished(finished, tmp_path):
    """A copy of the finished run that lacks its record."""
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (out / "record.json").unlink()
    return out


def damage_checkpoint(out):
    newest = sorted((out / "checkpoints").iterdir())[-1]
    largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)


@pytest.mark.parametrize(("damage", "message"), [
    (damage_checkpoint, "is damaged"),
    (lambda out: (out / "config.json").write_text("{"), "expected the configuration of a run"),
    (lambda out: (out / "record.json").write_text("{"), "expected a readable record"),
], ids=["checkpoint", "configuration", "record"])
@pytest.mark.slow
def test_a_damaged_run_is_not_resumed(finished, tmp_path, damage, message):
    out = unfinished(finished, tmp_path)
    damage(out)
    assert message in refused("--resume", out)


@pytest.mark.slow
def test_inspect_refuses_what_is_no_finished_run(finished, tmp_path):
    assert "expected a readable record of a run" in refused("inspect", "nowhere")
    line = refused("inspect", out := unfinished(finished, tmp_path))
    assert f"{out}: expected a finished run, got one without a record yet" in line
    assert line.endswith(f"continue it with --resume {out}")


# Processes


def start(*arguments, devices=2, **options):
    """A run on two devices, whatever the machine: their sums must come to the same bits too."""
    command = [sys.executable, "-m", "experiments.mnist_lif", *map(str, arguments)]
    environment = environment_of_long_runs(TFDS_DATA_DIR="nowhere",
                                           JAX_NUM_CPU_DEVICES=str(devices))
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **options)


def command_line(*arguments, **options):
    """(exit status, standard output, standard error)"""
    process = start(*arguments, **options)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.mark.parametrize("flag", [
    ("--num-steps", "0"),
    pytest.param(("--nonsense",), marks=pytest.mark.slow),
    pytest.param(("--out", "file/run"), marks=pytest.mark.slow),
], ids=" ".join)
def test_bad_input_exits_2_with_one_line_on_standard_error(tmp_path, flag):
    (tmp_path / "file").touch()
    status, output, errors = command_line("--dataset", "digits", "--smoke", *flag)
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


LONG = ("--dataset", "digits", "--num-steps", "6", "--batch-size", "16", "--epochs", "10")


def outcome(out):
    """Everything of a finished run that must not depend on when it was interrupted."""
    record = json.loads((out / "record.json").read_text())
    items = Checkpoints(out / "checkpoints").restore().items
    parts = ("training_spikes", "inference_spikes", "training_history", "confusion_matrix",
             "activity", "energy_proxies", "test_accuracy")
    kept = {name: record[name] for name in parts}
    kept["training_history"].pop("epoch_times")
    kept["inference_spikes"].pop("measurement_time_seconds")
    return kept, items


def assert_same_outcome(out, expected):
    (record, items), (expected_record, expected_items) = outcome(out), expected
    assert record == expected_record

    def flat(tree, path=()):
        if not isinstance(tree, dict):
            return {path: np.asarray(tree)}
        return {key: leaf for name in tree for key, leaf in flat(tree[name], (*path, name)).items()}

    leaves, expected_leaves = flat(items), flat(expected_items)
    assert leaves.keys() == expected_leaves.keys()
    for path, leaf in leaves.items():
        assert leaf.tobytes() == expected_leaves[path].tobytes(), path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(outcome, standard output) of the long run left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, output, errors = command_line(*LONG, "--out", folder / "run", cwd=folder)
    assert status == 0, errors
    assert "data: digits" in errors and "epoch 1/10" in errors
    assert load_record(folder / "run")["device"]["count"] == 2
    return outcome(folder / "run"), output


@pytest.mark.slow
def test_a_run_exits_0_and_ends_with_one_json_object(uninterrupted):
    assert uninterrupted[1].count("\n") == 1 and list(json.loads(uninterrupted[1])) == HEADLINE


def read_until(seen, process):
    """What a process said until ``seen`` was among it."""
    said = ""
    while seen not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def interrupt(process):
    """Presses Ctrl-C; what the process says then."""
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - pressed < 3
    assert "Traceback" not in errors
    return errors


@pytest.mark.slow
def test_a_run_stopped_and_killed_in_every_phase_resumes_to_the_same_bits(uninterrupted, tmp_path):
    draw, arguments = random.Random(0), (*LONG, "--out", "run")
    phases = (("input:", False), ("samples/s", True), ("samples/s", True), ("samples/s", False),
              ("testing, once", False))  # ten kills of the loop itself are in test_resume.py
    for seen, kill in phases:
        process = start(*arguments)
        read_until(seen, process)
        if kill:
            time.sleep(draw.uniform(0, 0.5))
            process.kill()
            process.communicate()
        else:
            assert "resume from" in interrupt(process) or seen != "samples/s"
        assert not (tmp_path / "run" / "record.json").exists()
        arguments = ("--resume", "run")
    status, _, errors = command_line(*arguments)
    assert status == 0, errors
    assert_same_outcome(tmp_path / "run", uninterrupted[0])


@pytest.mark.slow
def test_what_two_devices_began_one_finishes(uninterrupted, tmp_path):
    process = start(*LONG, "--out", "run")
    read_until("samples/s", process)
    assert "resume from" in interrupt(process)
    shared = Checkpoints(tmp_path / "run" / "checkpoints").restore().journal["epoch"]
    status, _, errors = command_line("--resume", "run", devices=1)
    assert status == 0, errors
    record = load_record(tmp_path / "run")
    assert record["device"]["count"] == record["metrics"]["devices"] == 1
    expected, ended = (r["training_history"]["losses"] for r in (uninterrupted[0][0], record))
    assert 0 < shared < 10 and ended[:shared] == expected[:shared] and ended != expected
    np.testing.assert_allclose(ended, expected, rtol=0.1)  # roundings of one device, not of two
    seen = uninterrupted[0][0]["training_spikes"]["total_samples"]
    assert record["training_spikes"]["total_samples"] == seen


@pytest.mark.parametrize("module", [
    "numpy", *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "jax._src.core", "jax", "flax.linen", "optax", "fastsnn_jax", "sklearn"
    )),
])
def test_ctrl_c_during_start_up_exits_130_without_a_traceback(monkeypatch, module):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # a line for each module just imported
    process = start(*LONG, "--out", "run")
    read_until(f" {module}\n", process)
    assert interrupt(process).endswith("interrupted\n")

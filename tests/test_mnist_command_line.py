"""The command line of ``experiments.mnist_lif``, as a user meets it: in a process of its own."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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

from fastsnn_jax.checkpoint import Checkpoints

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK = ("--dataset", "digits", "--smoke", "--num-steps", "6")
HEADLINE = [
    "dataset", "selected_on", "test_accuracy", "best_val_accuracy", "epochs_trained",
    "train_samples_per_s", "event_syn_per_inference", "sparsity_ratio", "input_per_inference",
    "hidden_per_inference", "output_per_inference", "out",
]


def environment():
    """Without a dataset of the user's own."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "TFDS_DATA_DIR": "nowhere"}


def start(directory, *arguments, **options):
    command = [sys.executable, "-m", "experiments.mnist_lif", *map(str, arguments)]
    return subprocess.Popen(command, cwd=directory, env=environment(), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def command_line(directory, *arguments):
    """(exit status, standard output, standard error)"""
    process = start(directory, *arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def last_object(output):
    return json.loads(output.splitlines()[-1])


def contents(directory):
    """Every path below, with the bytes of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(status, stdout, stderr, directory) of a quick run on the digits."""
    directory = tmp_path_factory.mktemp("finished")
    out = directory / "run"
    return *command_line(directory, *QUICK, "--epochs", "1", "--out", out), out


@pytest.mark.slow
def test_a_run_exits_0_and_ends_with_one_json_object_of_the_headline_fields(finished):
    status, output, errors, out = finished
    assert status == 0, errors
    headline = last_object(output)
    assert list(headline) == HEADLINE and len(output.splitlines()) == 1
    assert headline["dataset"] == "digits" and headline["out"] == str(out)
    record = json.loads((out / "record.json").read_text())
    for name in HEADLINE[1:-1]:
        assert headline[name] == record["metrics"][name]
    assert "data: digits" in errors and "epoch 1/1" in errors


@pytest.mark.slow
def test_inspect_prints_a_readable_record_and_the_headline(finished):
    out = finished[-1]
    status, output, errors = command_line(out.parent, "inspect", out)
    assert (status, errors) == (0, "")
    assert last_object(output) == last_object(finished[1])
    assert "confusion" in output and len(output.splitlines()) > 40


@pytest.mark.slow
def test_resuming_a_finished_run_says_so_and_changes_nothing(finished):
    out = finished[-1]
    before = contents(out)
    status, output, errors = command_line(out.parent, "--resume", out)
    assert status == 0 and errors == f"{out} is finished; nothing to resume\n"
    assert last_object(output) == last_object(finished[1]) and contents(out) == before


def test_help_names_every_flag_with_its_default(tmp_path):
    status, output, errors = command_line(tmp_path, "--help")
    assert (status, errors) == (0, "")
    for flag in ("--out", "--resume", "--seed", "--smoke", "--data-dir", "--config", "--dataset",
                 "--protocol", "--model", "--encoder", "--epochs", "--batch-size", "--num-steps",
                 "--max-rate", "--latency-window", "--learning-rate", "--input-synapse",
                 "--download"):
        assert flag in output
    assert "(default: poisson)" in output and "(default: 80.0)" in output
    assert "640 training and 256 test images" in output and "four IDX files" in output


# Bad input


def one_line(directory, *arguments):
    """Runs what must be refused: exit 2, one line on stderr, nothing written. Returns the line."""
    before = contents(directory)
    status, output, errors = command_line(directory, *arguments)
    assert (status, output) == (2, ""), errors
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert "Traceback" not in errors and contents(directory) == before
    return errors


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
    (("--epochs", "two"), "argument --epochs: invalid int value: 'two'"),
    (("--nonsense",), "unrecognized arguments: --nonsense"),
    (("--model", "cnn", "--input-synapse", "event"), "needs model mlp and encoder poisson"),
    (("--dataset", "mnist", "--data-dir", "nowhere"), "nowhere: expected MNIST, got no such dir"),
    (("--dataset", "mnist", "--data-dir", "."), "expected MNIST, got a directory without it"),
    (("--data-dir", "nowhere"), "no data_dir and no download: they are embedded"),
    (("--out", "file/run"), "Not a directory"),
    (("--out", "file"), "File exists"),
    (("--resume", "nowhere"), "expected a run with config.json"),
    (("--resume", ""), "argument --resume: expected a path, got ''"),
    (("--out", ""), "argument --out: expected a path, got ''"),
    (("--resume", "."), "expected a run with config.json"),
    (("--config", "nowhere"), "nowhere must be a readable JSON file"),
    (("--config", "file"), "file must be a readable JSON file"),
]
FAST = {"--num-steps", "--nonsense"}  # of each kind of refusal one in the fast tier


@pytest.mark.parametrize(("arguments", "message"), [
    pytest.param(*row, marks=[] if row[0][0] in FAST or row[0][1] == "file/run"
                 else pytest.mark.slow, id=" ".join(row[0])) for row in FLAGS
])
def test_a_bad_flag_is_refused_with_one_line(tmp_path, arguments, message):
    (tmp_path / "file").write_text("not JSON")
    base = () if arguments[0] in ("--resume", "--dataset") else ("--dataset", "digits", "--smoke")
    assert message in one_line(tmp_path, *base, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "message"), [
    ({"epoch": 3}, "preset: fields must be among"),
    ({"epochs": "3"}, "epochs must be an int, got '3'"),
    ({"num_steps": 2.5}, "num_steps must be an int, got 2.5"),
    ({"learn_decay": 1}, "learn_decay must be true or false, got 1"),
    ([3], "must hold a mapping of fields, got list"),
], ids=str)
def test_a_bad_configuration_file_is_refused_with_one_line(tmp_path, fields, message):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    arguments = ("--dataset", "digits", "--config", "config.json", "--out", "run")
    assert message in one_line(tmp_path, *arguments)


@pytest.mark.parametrize(("damage", "message"), [
    pytest.param(cut_short, "expected a readable IDX file"),
    pytest.param(flip_bytes, "train-images-idx3-ubyte.gz: expected", marks=pytest.mark.slow),
    pytest.param(other_magic, "expected IDX magic", marks=pytest.mark.slow),
    pytest.param(another_length, "expected as many labels as images, got 39 and 40",
                 marks=pytest.mark.slow),
    pytest.param(no_digit, "expected labels in 0..9, got 0..39", marks=pytest.mark.slow),
    pytest.param(one_missing, "expected MNIST's four IDX files", marks=pytest.mark.slow),
])
def test_a_damaged_mnist_is_refused_with_one_line(tmp_path, damage, message):
    folder = write_mnist(tmp_path / "data")
    damage(folder)
    assert message in one_line(tmp_path, "--data-dir", folder, "--out", "run")


@pytest.mark.slow
def test_a_batch_larger_than_the_data_is_refused_before_the_fallback_is_announced(tmp_path):
    assert "batch size must be <= 1317" in one_line(tmp_path, "--batch-size", "1318")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_existing_run_is_no_out_and_conflicts_are_no_resume(finished):
    out = finished[-1]
    refused = {
        (*QUICK, "--out", out): "out must be a directory without a run",
        ("--resume", out, "--seed", "3"): "this run's seed is 0, not 3",
        ("--resume", out, "--max-rate", "40"): "this run's max_rate_hz is 80.0, not 40.0",
        ("--resume", out, "--epochs", "9"): "this run's epochs is 1, not 9",
        ("--resume", out, "--out", "elsewhere"): "leave out --out and --config",
    }
    for arguments, message in refused.items():
        assert message in one_line(out.parent, *arguments)


def unfinished(finished, tmp_path):
    """A copy of the finished run that lacks its record."""
    out = tmp_path / "run"
    shutil.copytree(finished[-1], out)
    (out / "record.json").unlink()
    return out


def damage_checkpoint(out):
    newest = sorted((out / "checkpoints").iterdir())[-1]
    largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "message"), [
    (damage_checkpoint, "is damaged"),
    (lambda out: (out / "config.json").write_text("{"), "expected the configuration of a run"),
    (lambda out: (out / "record.json").write_text("{"), "expected a readable record"),
], ids=["checkpoint", "configuration", "record"])
@pytest.mark.slow
def test_a_damaged_run_is_not_resumed(finished, tmp_path, damage, message):
    out = unfinished(finished, tmp_path)
    damage(out)
    assert message in one_line(tmp_path, "--resume", out)


@pytest.mark.slow
def test_inspect_refuses_what_is_no_finished_run_with_one_line(finished, tmp_path):
    assert "expected a readable record of a run" in one_line(tmp_path, "inspect", "nowhere")
    assert "the following arguments are required: DIR" in one_line(tmp_path, "inspect")
    line = one_line(tmp_path, "inspect", out := unfinished(finished, tmp_path))
    assert f"{out}: expected a finished run, got one without a record yet" in line
    assert line.endswith(f"continue it with --resume {out}\n")


# Interruptions


KILLS = 3  # of the whole command; ten of the loop itself are in test_resume.py
LONG = ("--dataset", "digits", "--num-steps", "6", "--batch-size", "16", "--epochs", "6")


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
    """(outcome, seconds) of the long run left alone, with a warm compile cache."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    command_line(directory, *LONG, "--out", directory / "first")
    began = time.monotonic()
    status, _, errors = command_line(directory, *LONG, "--out", directory / "run")
    assert status == 0, errors
    return outcome(directory / "run"), time.monotonic() - began


@pytest.mark.slow
def test_a_run_killed_at_random_moments_resumes_to_the_same_bits(uninterrupted, tmp_path):
    expected, seconds = uninterrupted
    draw, kills = random.Random(0), 0
    for attempt in itertools.count():
        out = tmp_path / f"run{attempt}"
        while kills < KILLS or not (out / "record.json").exists():
            begun = (out / "config.json").exists()
            process = start(tmp_path, *(("--resume", out) if begun else (*LONG, "--out", out)))
            try:
                limit = draw.uniform(0.2, 0.9) * seconds if kills < KILLS else 300
                assert process.wait(timeout=limit) == 0
            except subprocess.TimeoutExpired:
                kills += 1
            process.kill()
            process.communicate()
            if process.returncode == 0:
                break
        assert_same_outcome(out, expected)
        if kills >= KILLS:
            return


def interrupted(process, seen):
    """Presses Ctrl-C once ``seen`` was said; (exit status, standard error, seconds it took)."""
    said = ""
    while seen not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors, time.monotonic() - pressed


@pytest.mark.slow
def test_ctrl_c_while_training_stops_within_three_seconds_and_can_be_resumed(
    uninterrupted, tmp_path
):
    expected, _ = uninterrupted
    out = tmp_path / "run"
    status, errors, seconds = interrupted(start(tmp_path, *LONG, "--out", out), "epoch 1/6")
    assert status == 130 and seconds < 3
    assert "resume from" in errors and "Traceback" not in errors
    assert command_line(tmp_path, "--resume", out)[0] == 0
    assert_same_outcome(out, expected)


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["data:", "input:", "testing, once"])
def test_ctrl_c_before_and_after_training_stops_as_well(uninterrupted, tmp_path, seen):
    expected, _ = uninterrupted
    out = tmp_path / "run"
    status, errors, seconds = interrupted(start(tmp_path, *LONG, "--out", out), seen)
    assert status == 130 and seconds < 3 and "Traceback" not in errors
    assert command_line(tmp_path, "--resume", out)[0] == 0
    assert_same_outcome(out, expected)


@pytest.mark.parametrize("module", [
    "numpy", *(pytest.param(name, marks=pytest.mark.slow) for name in (
        "jax._src.core", "jax", "flax.linen", "optax", "fastsnn_jax", "sklearn"
    )),
])
def test_ctrl_c_during_start_up_exits_130_without_a_traceback(tmp_path, monkeypatch, module):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # a line for each module just imported
    process = start(tmp_path, *LONG, "--out", tmp_path / "run")
    status, errors, seconds = interrupted(process, f" {module}\n")
    assert status == 130 and seconds < 3
    assert errors.endswith("interrupted\n") and "Traceback" not in errors

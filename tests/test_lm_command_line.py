"""The command line of ``experiments.spiking_lm``: in this process, and as a user meets it."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lm_runs import outcome
from processes import environment

from experiments import spiking_lm
from fastsnn_jax import cli
from fastsnn_jax.recipes import lm, run_directory
from fastsnn_jax.recipes.mnist import preset as mnist_preset
from fastsnn_jax.record import load_record

TEXT = "To be, or not to be: that is the question. " * 20
QUICK = ("--smoke", "--corpus", "hamlet.txt", "--steps", "2")
HEADLINE = {  # what every run must end with
    "corpus", "val_loss", "perplexity", "ann_val_loss", "tokens_per_s", "spikes_per_channel",
    "sparsity", "saturated_fraction", "synaptic_events_per_token", "dense_macs_per_token", "out",
}


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """A directory to work in that holds a little text, and no dataset of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "nowhere")
    (tmp_path / "hamlet.txt").write_text(TEXT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory, headline) of a run on the text, in characters; its corpus has a whole path."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "hamlet.txt").write_text(TEXT)
    (folder / "config.json").write_text(json.dumps({"tokenizer": "char"}))
    headline = spiking_lm.main([
        "--smoke", "--corpus", str(folder / "hamlet.txt"), "--steps", "2", "--config",
        str(folder / "config.json"), "--k", "2.5", "--out", str(folder / "run"),
    ])
    return folder / "run", headline


def contents(directory):
    """Every path below, with the bytes of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def refused(*arguments):
    """Runs in this process what must exit 2 in one line and write nothing. Returns the line."""
    before = contents(Path.cwd())
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        spiking_lm.main([str(argument) for argument in arguments])
    assert cli.is_refusal(caught.value), caught.value
    assert contents(Path.cwd()) == before
    return " ".join(str(caught.value).split())


# What a finished run gives


@pytest.mark.slow
def test_flags_win_over_the_file_and_the_file_over_the_preset(finished):
    config = lm.saved_config(finished[0])
    smoke = lm.preset("smoke")
    assert (config.preset, config.steps, config.tokenizer) == ("smoke", 2, "char")
    assert (config.model.k, config.model.window) == (2.5, smoke.model.window)
    assert config.context == smoke.context


@pytest.mark.slow
def test_the_headline_is_one_json_object_of_the_figures_of_the_record(finished):
    out, headline = finished
    headline = json.loads(json.dumps(headline, allow_nan=False))
    assert HEADLINE <= headline.keys()
    assert headline["corpus"] == "hamlet.txt" and headline["out"] == str(out)
    assert headline["ann_val_loss"] is None and headline["spikes_per_channel"] > 0
    for name, value in load_record(out)["metrics"].items():
        assert headline[name] == value


@pytest.mark.slow
def test_resuming_a_finished_run_says_so_and_changes_nothing(finished, capsys):
    out, headline = finished
    before = contents(out)
    assert spiking_lm.main(["--resume", str(out), "--steps", "2", "--smoke"]) == headline
    said = capsys.readouterr().err
    assert said.startswith(f"{out} is finished; nothing to resume\n")
    assert contents(out) == before


@pytest.mark.slow
def test_a_finished_run_goes_on_from_any_text_in_its_characters(finished, capsys):
    out, headline = finished
    before = contents(out)
    prompt = TEXT[3:35]  # as long as that of the run: the program is compiled
    assert spiking_lm.main(["--resume", str(out), "--generate", prompt]) == headline
    written = capsys.readouterr().out
    assert written.startswith(prompt) and len(written) == len(prompt) + 16 + 1
    assert set(written) <= set(TEXT) | {"\n"}
    assert contents(out) == before
    assert "text must consist of its 17 characters, got 'ß' at 2" in refused(
        "--resume", out, "--generate", "toß")
    assert "the prompt must not be empty" in refused("--resume", out, "--generate", "")


@pytest.mark.slow
def test_inspect_prints_a_readable_record_and_gives_the_headline(finished, capsys):
    out, headline = finished
    assert spiking_lm.main(["inspect", str(out)]) == headline
    output, errors = capsys.readouterr()
    assert "perplexity" in output and len(output.splitlines()) > 40 and not errors


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        spiking_lm.main(["--help"])
    output = capsys.readouterr().out
    assert not left.value.code
    for flag in ("--out", "--resume", "--seed", "--smoke", "--data-dir", "--config", "--corpus",
                 "--preset", "--attn", "--steps", "--vocab-size", "--d-model", "--n-heads",
                 "--n-layers", "--d-ff", "--window", "--compare-ann", "--generate", "--k",
                 "--context", "--batch-size", "--learning-rate"):
        assert flag in output
    default = lm.preset()
    for value in (default.steps, default.context, default.model.attn_kind, default.model.d_ff):
        assert f"(default: {value})" in output


# Bad input


@pytest.mark.parametrize(("arguments", "message"), [
    (("--corpus", "nowhere.txt"), "nowhere.txt: expected auto, tiny_shakespeare, stdlib or the"),
    (("--corpus", "empty.txt"), "empty.txt: expected a text, got an empty file"),
    (("--corpus", "."), "expected a text file, got a directory"),
    (("--corpus", "short.txt"), "held-out text must have more tokens than context 16, got 10"),
    (("--context", "86"), "held-out text must have more tokens than context 86, got 86"),
    (("--corpus", "tiny_shakespeare"), "nowhere: expected tiny_shakespeare, got no such directory"),
    (("--data-dir", "."), "expected no data_dir: it is not looked for there"),
    (("--attn", "global"), "attention: name must be one of hybrid_alt, "),
    (("--n-heads", "5"), "d_model must be a multiple of n_heads 5, got 32"),
    (("--n-heads", "32"), "the head size D must be even, got 1"),
    (("--window", "0"), "window must be >= 1, got 0"),
    (("--steps", "0"), "steps must be >= 1, got 0"),
    (("--steps", "100000000000000000000"), "steps must be < 2**31"),
    (("--k", "-1"), "k must be > 0"),
    (("--k", "nan"), "k must be > 0"),
    (("--learning-rate", "0"), "learning_rate must be > 0"),
    (("--seed", "-1"), "seed must be >= 0, got -1"),
    (("--vocab-size", "255"), "vocab_size must be >= 256, the tokenizer's, got 255"),
    (("--generate", ""), "the prompt must not be empty"),
    (("--generate", "to\udcff"), "text must consist of Unicode characters, got '\\udcff' at 2"),
    (("--preset", "nanogpt-cpu"), "--smoke is --preset smoke; leave out one"),
    (("--out", "empty.txt/run"), "out must be a directory, got a file in"),
    (("--out", "empty.txt"), "out must be a directory, got a file in"),
    (("--resume", "nowhere"), "expected a run with config.json"),
    (("--resume", "."), "expected a run with config.json"),
    (("--config", "nowhere.json"), "nowhere.json must be a readable JSON file"),
], ids=str)
def test_a_bad_flag_is_refused(arguments, message, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("x" * 100)
    base = {"--corpus": ("--smoke",), "--resume": ()}.get(arguments[0], QUICK)
    assert message in refused(*base, *arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--steps", "two"), "argument --steps: invalid int value: 'two'"),
    (("--nonsense",), "unrecognized arguments: --nonsense"),
    (("--ste", "3"), "unrecognized arguments: --ste 3"),
    (("inspect",), "the following arguments are required: DIR"),
], ids=str)
def test_a_flag_that_does_not_parse_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        spiking_lm.main([*arguments])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(("name", "text", "message"), [
    ("c.json", '{"step": 3}', "LMConfig: fields must be among"),
    ("c.json", '{"name": "mine"}', "LMConfig: fields must be among"),
    ("c.json", '{"context": "9"}', "context must be an int, got '9'"),
    ("c.json", '{"model": {"widow": 3}}', "SNNConfig: fields must be among"),
    ("c.json", '{"model": {"window": 2.5}}', "window must be an int, got 2.5"),
    ("c.json", '{"model": [3]}', "model must be a mapping, got [3]"),
    ("c.json", '{"model": null}', "model must be a mapping, got None"),
    ("c.json", '{"model": {"attn_kind": ["linear"]}}', "attn_kind must be a string"),
    ("c.json", '{"preset": ["smoke"]}', "preset must be one of"),
    ("c.json", '{"tokenizer": "char"}', "hamlet.txt: expected UTF-8"),
    ("c.json", "[3]", "must hold a mapping of fields, got list"),
    ("c.json", "{", "c.json must be a readable JSON file"),
    ("c.yaml", "steps: [3", "c.yaml must be a readable YAML file"),
    ("c.yaml", "3: 4", "c.yaml must have names, got [3]"),
    ("c.yaml", "model:\n  window: wide", "window must be an int, got 'wide'"),
])
def test_a_bad_configuration_file_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    if "char" in text:
        (tmp_path / "hamlet.txt").write_bytes(b"\xff" * 2000)
    assert message in refused("--smoke", "--corpus", "hamlet.txt", "--config", name, "--out", "run")


def test_an_unknown_preset_is_refused():
    message = "preset must be one of default, smoke, nanogpt-cpu, nanogpt-gpu, got 'huge'"
    assert message in refused("--preset", "huge")


def test_the_preset_of_a_file_is_that_of_the_run_unless_a_flag_names_another(tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text("preset: nanogpt-cpu\nbatch_size: 6\n")
    taken = []

    def run(config, *_, **__):
        taken.append(config)
        raise ValueError("enough")

    monkeypatch.setattr(lm, "run", run)
    for flags in ((), ("--smoke",)):
        with pytest.raises(ValueError, match="enough"):
            spiking_lm.main([*flags, "--config", "c.yaml"])
    assert taken == [lm.preset("nanogpt-cpu", batch_size=6), lm.preset("smoke", batch_size=6)]


@pytest.mark.slow
def test_what_contradicts_the_run_to_resume_is_refused(finished):
    out = finished[0]
    for arguments, message in {
        ("--seed", "3"): "this run's seed is 0, not 3",
        ("--steps", "9"): "this run's steps is 2, not 9",
        ("--k", "3"): "this run's k is 2.5, not 3.0",
        ("--attn", "linear"): "this run's attn_kind is interleaved, not linear",
        ("--preset", "default"): "this run's preset is smoke, not default",
        ("--compare-ann",): "this run's compare_ann is False, not True",
        ("--out", "elsewhere"): "leave out --out and --config",
        ("--config", "c.json"): "leave out --out and --config",
        ("--steps", "9", "--generate", "to"): "this run's steps is 2, not 9",
    }.items():
        assert message in refused("--resume", out, *arguments)
    assert "out must be a directory without a run" in refused(*QUICK, "--out", out)


def begun(finished, folder):
    """A copy of the finished run that lacks its record."""
    out = folder / "begun"
    shutil.copytree(finished[0], out)
    (out / "record.json").unlink()
    return out


@pytest.mark.slow
def test_a_damaged_or_foreign_run_is_not_resumed(finished, tmp_path):
    out = begun(finished, tmp_path)
    assert "expected a finished run, got one without a record yet" in refused("inspect", out)
    unfinished = refused("--resume", out, "--generate", "to be")
    assert "without a record yet; continue it with --resume" in unfinished
    for text in ("{", "[]", '{"config": {"steps": 0}, "dataset_sha256": ""}'):
        (out / "config.json").write_text(text)
        assert "expected the configuration of a run" in refused("--resume", out)
    mnist = tmp_path / "mnist"
    run_directory.begin(mnist, mnist_preset(smoke=True).to_json(), "")
    assert "expected the configuration of a run, got LMConfig: fields" in refused("--resume", mnist)


def test_inspect_refuses_what_is_no_record_of_this_kind(tmp_path, monkeypatch):
    assert "expected a readable record of a run" in refused("inspect", "nowhere")
    monkeypatch.setattr("fastsnn_jax.cli.common.load_record", lambda path: {"kind": "mnist"})
    assert "expected a run of kind lm, got mnist" in refused("inspect", ".")


# Processes


LONG = ("--smoke", "--corpus", "hamlet.txt", "--steps", "30", "--compare-ann")


def start(directory, *arguments, **options):
    command = [sys.executable, "-m", "experiments.spiking_lm", *map(str, arguments)]
    return subprocess.Popen(command, env=environment(TFDS_DATA_DIR="nowhere"), text=True,
                            cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            **options)


def command_line(directory, *arguments):
    """(exit status, standard output, standard error)"""
    process = start(directory, *arguments)
    output, errors = process.communicate(timeout=600)
    return process.returncode, output, errors


@pytest.mark.slow
def test_bad_input_exits_2_with_one_line_on_standard_error(tmp_path):
    status, output, errors = command_line(tmp_path, *QUICK, "--window", "0")
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["hamlet.txt"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(outcome, standard output) of the long run left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "hamlet.txt").write_text(TEXT)
    status, output, errors = command_line(folder, *LONG, "--out", "run")
    assert status == 0, errors
    return outcome(folder / "run", "twin"), output


@pytest.mark.slow
def test_a_run_exits_0_and_ends_with_one_json_object(uninterrupted):
    assert uninterrupted[1].count("\n") == 1
    headline = json.loads(uninterrupted[1])
    assert HEADLINE <= headline.keys() and None not in headline.values()
    assert headline["corpus"] == "hamlet.txt" and headline["out"] == "run"


def read_until(seen, process):
    """What a process said until ``seen`` was among it."""
    said = ""
    while seen not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


@pytest.mark.slow
def test_a_run_killed_and_stopped_in_its_twin_resumes_to_the_same_bits(uninterrupted, tmp_path):
    draw = random.Random(0)
    process = start(tmp_path, *LONG, "--out", "run")
    read_until(f"epoch {draw.randint(1, 3)}/", process)
    time.sleep(draw.uniform(0, 0.5))
    process.kill()
    process.communicate()
    assert not (tmp_path / "run" / "record.json").exists()
    process = start(tmp_path, "--resume", "run")
    read_until("the twin", process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and not output
    assert "interrupted" in errors and "Traceback" not in errors
    status, output, errors = command_line(tmp_path, "--resume", "run")
    assert status == 0, errors
    assert outcome(tmp_path / "run", "twin") == uninterrupted[0]

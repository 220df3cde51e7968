"""The console command: its words, its doors, and what they refuse."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import test_convert_recipe
import test_record
import test_record_lm

from experiments import distill, energy_table, mnist_convert, mnist_lif, oneclick, spiking_lm
from fastsnn_jax import cli
from fastsnn_jax.cli import command, common
from fastsnn_jax.cli.convert import listed
from fastsnn_jax.record import load_record, write_record

REPOSITORY = Path(__file__).resolve().parent.parent
DOORS = ["demo", "train mnist", "train lm", "generate", "convert", "distill",
         "energy", "scope", "inspect"]
EXPERIMENTS = {
    "train mnist": mnist_lif, "train lm": spiking_lm, "energy": energy_table,
    "convert": mnist_convert, "demo": oneclick, "distill": distill,
}


@pytest.fixture
def runs(tmp_path):
    """Directories of three recorded runs, and of a run of two models that holds one of them."""
    records = {"images": test_record.build(), "text": test_record_lm.build(),
               "both/mlp": test_convert_recipe.build()}
    for name, record in records.items():
        (tmp_path / name).mkdir(parents=True)
        write_record(tmp_path / name, record)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "both" / "config.json").write_text("{}")
    return tmp_path


def shown(capsys, *arguments):
    """What a command that ends with status 0 by itself prints."""
    with pytest.raises(SystemExit) as exit:
        command.run([str(argument) for argument in arguments])
    assert exit.value.code == 0
    return capsys.readouterr().out


def refused(*arguments):
    """The one line that a command is refused with."""
    with pytest.raises(Exception) as caught:
        command.run([str(argument) for argument in arguments])
    assert cli.is_refusal(caught.value), caught.value
    return " ".join(str(caught.value).split())


# Words


def test_the_overview_names_every_door(capsys):
    assert list(cli.COMMANDS) == DOORS
    for arguments in ((), ("--help",), ("-h",)):
        lines = shown(capsys, *arguments).splitlines()
        for name in DOORS:
            assert any(line.strip().startswith(f"fastsnn {name} ") for line in lines)


@pytest.mark.parametrize("name", DOORS)
def test_every_door_explains_itself_under_its_own_name(name, capsys):
    text = shown(capsys, *name.split(), "--help")
    assert text.startswith(f"usage: fastsnn {name} ")
    assert "experiments." not in text and "{command}" not in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_the_door_under_its_own_name(name, capsys):
    module = EXPERIMENTS[name]
    with pytest.raises(SystemExit) as exit:
        module.main(["--help"])
    ours = capsys.readouterr().out
    theirs = shown(capsys, *name.split(), "--help")

    def flags(text):
        return re.findall(r"(?<!\w)--[a-z-]+", text[text.index("options:"):])

    assert exit.value.code == 0 and ours.startswith(f"usage: {module.COMMAND} ")
    assert flags(ours) == flags(theirs) and len(flags(ours)) > 2


@pytest.mark.parametrize(("arguments", "message"), [
    (("fly",), "command must be one of demo, train mnist, train lm, generate, convert, distill, "),
    (("train",), "command must be one of train mnist, train lm, got 'train'"),
    (("train", "cnn"), "command must be one of train mnist, train lm, got 'train cnn'"),
    (("--fast",), "got '--fast'; see fastsnn --help"),
])
def test_unknown_words_are_refused_with_those_that_are_known(arguments, message):
    assert message in refused(*arguments)


def test_the_package_declares_the_command():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"fastsnn": "fastsnn_jax.cli:main"}
    assert cli.main is command.main


@pytest.mark.slow
def test_the_command_exits_2_with_one_line_on_bad_input():
    program = "from fastsnn_jax.cli import main; main(['train', 'mnist', '--epochs', 'two'])"
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True,
                          cwd=REPOSITORY, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: argument --epochs: invalid int value: 'two'\n"


# Doors to finished runs


def test_inspect_prints_a_record_of_any_kind_and_of_every_model(runs, capsys):
    for name, words in (("images", "confusion"), ("text", "sample"), ("both/mlp", "in spikes")):
        figures = command.run(["inspect", str(runs / name)])
        assert words in capsys.readouterr().out
        assert figures["out"] == str(runs / name)
    assert command.run(["inspect", str(runs / "both")])["test_accuracy"] == 92.5
    assert "expected a run of kind mnist, got lm" in refused("train", "mnist", "inspect",
                                                             runs / "text")
    (runs / "text" / "record.json").unlink()
    assert "expected a finished run" in refused("inspect", runs / "text")


def test_energy_prices_runs_of_every_kind(runs, capsys):
    figures = command.run(["energy", str(runs / "both"), "--device", "yan22"])
    assert "energy per inference on yan22" in capsys.readouterr().out
    (made,) = figures["runs"].values()
    assert made["unit"] == "inference" and made["energy_pj"] > 0
    assert command.run(["energy", "--smoke", "--json"])["schema"] == "snn-energy/1"


def test_scope_writes_the_page_of_a_run_beside_others(runs):
    out = runs / "page.html"
    made = command.run(["scope", str(runs / "both" / "mlp"), "--compare", str(runs / "both/mlp"),
                        "--out", str(out)])
    assert made["page"] == str(out) and "AnnMLP on digits" in out.read_text()
    assert command.run(["scope", str(runs / "both" / "mlp")])["page"] == str(
        runs / "both" / "mlp" / "scope.html")
    assert "out must end in .html" in refused("scope", runs / "both" / "mlp", "--out", "page.txt")
    assert "expected a readable record" in refused("scope", runs / "nowhere")


def test_one_run_is_wanted_where_a_directory_holds_several(runs):
    (runs / "both" / "cnn").mkdir()
    (runs / "both" / "cnn" / "config.json").write_text("{}")
    message = refused("scope", runs / "both")
    assert "expected one run, got 2" in message and str(runs / "both" / "mlp") in message


def test_generate_wants_a_finished_run_of_a_language_model(runs):
    assert "expected a run of kind lm, got mnist" in refused("generate", runs / "images", "To be")
    assert "expected a readable record" in refused("generate", runs / "nowhere", "To be")
    assert "tokens must be >= 1" in refused("generate", runs / "text", "To be", "--tokens", "0")


# Flags of doors that train


def test_values_with_commas_become_lists():
    assert listed(int)("2,4") == [2, 4] and listed(str)("max") == ["max"]
    with pytest.raises(SystemExit):
        command.run(["convert", "--num-steps", "2,x"])


@pytest.mark.parametrize(("arguments", "message"), [
    (("--model", "vit"), "model must be one of mlp, cnn, both"),
    (("--methods", "magic"), "methods must be one of"),
    (("--num-steps", "2,0"), "num_steps must be >= 1, got 0"),
    (("--batch-size", "9999"), "batch size must be <= 587, the images to train on, got 9999"),
    (("--resume", "nowhere"), "expected a run with config.json"),
    (("--resume", "nowhere", "--out", "there"), "expected a run with config.json"),
    (("--config", "nowhere"), "nowhere must be a readable JSON file"),
])
def test_a_bad_conversion_is_refused_and_writes_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = () if "--resume" in arguments else ("--dataset", "digits", "--smoke")
    assert message in refused("convert", *base, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_flag_that_contradicts_the_run_to_resume_is_refused(tmp_path):
    from fastsnn_jax.recipes import convert

    config = convert.preset(model="mlp").to_json()
    text = json.dumps({"config": config, "dataset_sha256": "0"})
    (tmp_path / "config.json").write_text(text)
    assert "this run's num_steps is (2, 4, 8, 16, 32), not (2,)" in refused(
        "convert", "--resume", tmp_path, "--num-steps", "2", "--model", "mlp")


def test_a_record_of_a_run_is_read_from_its_directory_or_file(runs):
    record = load_record(runs / "images")
    assert common.read_record(runs / "images") == record
    assert common.read_record(runs / "images" / "record.json") == record

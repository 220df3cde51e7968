"""The tour: what each step must show, and that a step which fails is named."""

import json
import subprocess
import sys

import pytest
from processes import environment

from fastsnn_jax.recipes import tour

STEPS = ["environment", "language model", "training", "conversion", "energy", "scope"]


def command_line(directory, *arguments):
    """(exit status, standard output, standard error)"""
    command = [sys.executable, "-m", "experiments.oneclick", *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, text=True, capture_output=True, timeout=300,
                          env=environment())
    return done.returncode, done.stdout, done.stderr


def test_the_steps_are_those_of_the_tour_in_order():
    assert list(tour.STEPS_BY_NAME) == STEPS


@pytest.mark.parametrize("failing", STEPS)
def test_a_step_that_fails_is_named_and_ends_the_tour(failing, monkeypatch, tmp_path):
    def step(name):
        def taken(state):
            if name == failing:
                raise ValueError("no")
            return {"figure": 0.125}

        return taken

    monkeypatch.setattr(tour, "STEPS_BY_NAME", {name: step(name) for name in STEPS})
    said = []
    with pytest.raises(ValueError, match="no"):
        tour.run(tmp_path, say=said.append)
    place = STEPS.index(failing)
    assert said == [*(f"{name}: figure 0.125" for name in STEPS[:place]), f"{failing}: FAILED"]


def test_the_conversion_step_refuses_an_output_that_is_far_off(monkeypatch, tmp_path):
    monkeypatch.setattr(tour, "LARGEST_ERROR", 0.0)
    state = tour.Tour(tmp_path, seed=0, smoke=True, progress=None)
    with pytest.raises(ValueError, match="relative error must be <= 0"):
        tour.STEPS_BY_NAME["conversion"](state)


def test_the_training_step_refuses_a_loss_that_does_not_fall(monkeypatch, tmp_path):
    history = {"training_history": {"train_loss": [2.0] * tour.STEPS}}
    monkeypatch.setattr(tour.lm, "run", lambda *arguments, **options: history)
    state = tour.Tour(tmp_path, seed=0, smoke=True, progress=None)
    with pytest.raises(ValueError, match="loss must fall over 10 steps"):
        tour.STEPS_BY_NAME["training"](state)


@pytest.mark.slow
def test_the_tour_exits_0_prints_every_step_and_leaves_a_page(tmp_path):
    status, output, errors = command_line(tmp_path, "--out", "tour", "--smoke")
    assert status == 0, errors
    figures = json.loads(output.splitlines()[-1])
    assert list(figures) == [*STEPS, "out"]
    for name in STEPS:
        assert f"\n{name}: " in "\n" + errors
    training, conversion = figures["training"], figures["conversion"]
    assert training["steps"] == 10 and training["last loss"] < training["first loss"]
    assert conversion["shape"] == conversion["shape in spikes"] == [4, 16, 10]
    assert 0 < conversion["relative error"] <= tour.LARGEST_ERROR
    assert (tmp_path / "tour" / "scope.html").stat().st_size == figures["scope"]["bytes"]


def test_a_tour_into_a_file_or_another_tour_or_with_an_odd_seed_is_refused_at_once(tmp_path):
    (tmp_path / tour.LANGUAGE_MODEL).mkdir()
    said = []
    with pytest.raises(ValueError, match="demo: out must be a directory without a tour"):
        tour.run(tmp_path, say=said.append)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "tour"):
        with pytest.raises(ValueError, match="demo: out must be a directory, got a file in"):
            tour.run(out, say=said.append)
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        tour.run(tmp_path / "new", seed=-1, say=said.append)
    assert not said and not (tmp_path / "new").exists()

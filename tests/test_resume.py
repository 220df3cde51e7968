"""A run that is killed or interrupted at any moment goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import train_toy
from processes import environment

from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.recipes.run_directory import resumable
from fastsnn_jax.train import Interrupted, Journal, rows_of
from fastsnn_jax.train.chunk import Chunk
from fastsnn_jax.train.interrupt import Interrupts

SCRIPT = Path(train_toy.__file__)


def start(*arguments):
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], env=environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_once(out, draw):
    """Starts or resumes the run and kills it at a random moment; returns whether it was alive."""
    resume = ["--resume"] * bool(Checkpoints(out).labels())
    process = start(out, *resume, "--pause", 0.01)
    process.stderr.readline()
    try:
        process.wait(timeout=draw.uniform(0.0, 1.0))
    except subprocess.TimeoutExpired:
        pass
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("kills", [10])
def test_a_run_killed_at_random_moments_ends_bit_identical(tmp_path, kills):
    draw = random.Random(kills)
    expected = train_toy.killable(tmp_path / "whole")
    done = 0
    for attempt in range(3 * kills):
        out = tmp_path / f"killed{attempt}"
        while done < kills and kill_once(out, draw):
            done += 1
        assert train_toy.killable(out, resume=bool(Checkpoints(out).labels())) == expected
        if done == kills:
            return
    pytest.fail(f"only {done} kills found the run alive")


@pytest.mark.slow
def test_ctrl_c_stops_within_three_seconds_with_130_and_can_be_resumed(tmp_path):
    process = start(tmp_path / "run", "--pause", 0.5)
    for _ in range(3):
        process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=3)
    assert process.returncode == 130
    assert "resume from" in errors and "Traceback" not in errors
    resumed = train_toy.killable(tmp_path / "run", resume=True)
    assert resumed == train_toy.killable(tmp_path / "whole")


def test_ctrl_c_does_not_wait_for_the_compiler(monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: done.wait(60))
    chunk = Chunk(lambda state, batch: (state + batch, batch), lambda data, index: data[index])
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.at_once():
        chunk.prepare(0.0, jax.numpy.zeros(3), jax.numpy.arange(3))
    assert not done.is_set()
    done.set()


def press_ctrl_c(*_):
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_during_an_evaluation_resumes_with_that_evaluation(tmp_path):
    expected = train_toy.outcome(train_toy.run(epochs=2))

    with pytest.raises(Interrupted, match="after step 25; resume from"):
        train_toy.run(Checkpoints(tmp_path), epochs=2, evaluate=press_ctrl_c)
    journal = Checkpoints(tmp_path).restore().journal
    assert (journal["epoch"], journal["position"]) == (0, 25)
    resumed = train_toy.run(Checkpoints(tmp_path), epochs=2, resume=True)
    assert train_toy.outcome(resumed) == expected


def test_one_ctrl_c_waits_for_the_dispatch_to_be_saved_a_second_stops_at_once(tmp_path):
    def twice(event):
        press_ctrl_c()
        press_ctrl_c()

    with pytest.raises(Interrupted, match="after step 1; resume from"):
        train_toy.run(Checkpoints(tmp_path), progress=press_ctrl_c)
    assert Checkpoints(tmp_path).restore().journal["position"] == 1
    with pytest.raises(KeyboardInterrupt) as stopped:
        train_toy.run(Checkpoints(tmp_path / "other"), progress=twice)
    assert stopped.type is KeyboardInterrupt and not Checkpoints(tmp_path / "other").labels()


def test_an_interrupted_run_without_checkpoints_says_that_nothing_was_kept():
    with pytest.raises(Interrupted, match="nothing was kept"):
        train_toy.run(evaluate=press_ctrl_c)


def test_the_old_signal_handler_returns_after_training():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        train_toy.run(evaluate=press_ctrl_c)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_resumed_returns_its_result_without_a_step(tmp_path):
    first = train_toy.run(Checkpoints(tmp_path), epochs=2)
    events = []
    again = train_toy.run(Checkpoints(tmp_path), epochs=2, resume=True, progress=events.append)
    assert train_toy.outcome(again) == train_toy.outcome(first) and not events


def test_a_run_resumed_with_more_epochs_equals_the_longer_run(tmp_path):
    train_toy.run(Checkpoints(tmp_path), epochs=1)
    longer = train_toy.run(Checkpoints(tmp_path), epochs=3, resume=True)
    assert train_toy.outcome(longer) == train_toy.outcome(train_toy.run(epochs=3))


def drifting(epoch):
    """The toy's samples, moved a little further every epoch; drawn anew at every call."""
    x, y = train_toy.samples()
    return x + 0.1 * np.random.default_rng(epoch).normal(size=x.shape).astype(np.float32), y


def test_a_run_over_data_that_change_with_the_epoch_resumes_bit_identical(tmp_path):
    source = rows_of(train_toy.samples())._replace(data=drifting)
    expected = train_toy.outcome(train_toy.run(epochs=2, source=source))
    unchanged = train_toy.run(epochs=2, source=rows_of(drifting(0)))
    assert train_toy.outcome(unchanged) != expected
    for at in (3, 25, 31):  # in the first epoch, at its end, in the second
        checkpoints = Checkpoints(tmp_path / str(at))

        def stop(event, at=at):
            if event.kind == "chunk" and 25 * (event.epoch - 1) + event.step == at:
                press_ctrl_c()

        with pytest.raises(Interrupted, match=f"after step {at}; resume from"):
            train_toy.run(checkpoints, epochs=2, source=source, chunk_s=1e-9, progress=stop)
        resumed = train_toy.run(checkpoints, epochs=2, source=source, resume=True)
        assert train_toy.outcome(resumed) == expected


def test_a_journal_of_another_version_is_refused_by_name(tmp_path, monkeypatch):
    whole = Journal.to_json
    monkeypatch.setattr(Journal, "to_json", lambda self: whole(self) | {"mood": "good"})
    train_toy.run(Checkpoints(tmp_path), epochs=1)
    with pytest.raises(CheckpointError, match=f"{tmp_path}/00000000 .* version: .*unknown mood"):
        train_toy.run(Checkpoints(tmp_path), epochs=1, resume=True)


def test_resume_refuses_nothing_another_seed_another_model_and_a_used_directory(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        train_toy.run(checkpoints, resume=True)
    with pytest.raises(CheckpointError, match="needs checkpoints"):
        train_toy.run(resume=True)
    train_toy.run(checkpoints, epochs=1)
    with pytest.raises(CheckpointError, match="'seed': 0.*got.*'seed': 1"):
        train_toy.run(checkpoints, epochs=1, seed=1, resume=True)
    with pytest.raises(CheckpointError, match="another model or optimiser"):
        train_toy.run(checkpoints, epochs=1, ema=False, resume=True)
    with pytest.raises(CheckpointError, match="already holds a run"):
        train_toy.run(checkpoints, epochs=1)


def test_an_interruption_tells_the_flags_to_go_on_with():
    stopped, out = Interrupted("stopped at step 3"), Path("my runs/a")
    assert str(resumable(stopped, out, None)) == (
        "stopped at step 3; continue with --resume 'my runs/a'")
    assert str(resumable(stopped, Path("a"), "idx")).endswith("--resume a --data-dir idx")

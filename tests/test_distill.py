"""Distillation: its loss by hand, the student made of a teacher, whole runs, refusals."""

import json
import math
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_record_lm
from lm_runs import TEXT, outcome
from processes import environment

import fastsnn_jax as fs
from experiments import distill as experiment
from fastsnn_jax import cli, scope
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.cli import command
from fastsnn_jax.data import char_tokenizer, load_corpus, load_tokenizer
from fastsnn_jax.pretrained.parameters import expected_parameters, nested
from fastsnn_jax.recipes import distill
from fastsnn_jax.recipes.distill.models import load_teacher, make_student
from fastsnn_jax.recipes.lm import pipeline
from fastsnn_jax.record import RecordError, format_record, validate_record
from fastsnn_jax.train import (
    distillation_loss,
    distillation_sums,
    divergence,
    init_state,
    make_train_step,
)


class Bigram:
    """A language model that is a table [V, V]."""

    def apply(self, params, tokens, train=False, rngs=None):
        return params[tokens], {}


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture
def tables():
    """Tables of a student and a teacher over 5 tokens, and two texts of 4."""
    draw = np.random.default_rng(0)
    return *draw.normal(size=(2, 5, 5)).astype(np.float32), draw.integers(0, 5, (2, 4))


@pytest.mark.parametrize(("temperature", "mix"), [(1.0, 1.0), (3.0, 0.25), (0.5, 0.0)])
def test_loss_and_gradient_are_those_of_the_equation(tables, temperature, mix):
    student, teacher, tokens = tables
    loss_fn = distillation_loss(Bigram(), Bigram(), temperature=temperature, mix=mix)
    (loss, metrics), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        student, (teacher, tokens), None)

    read, targets = tokens[:, :-1], tokens[:, 1:]
    s, t = student[read].astype(np.float64), teacher[read].astype(np.float64)
    p, q = softmax(t / temperature), softmax(s / temperature)
    onehot = np.eye(5)[targets]
    softened = (p * np.log(p / q)).sum(-1).mean()
    entropy = -(onehot * np.log(softmax(s))).sum(-1).mean()
    assert float(loss) == pytest.approx(mix * temperature**2 * softened + (1 - mix) * entropy)
    per_logit = (mix * temperature * (q - p) + (1 - mix) * (softmax(s) - onehot)) / targets.size
    expected = np.zeros((5, 5))
    np.add.at(expected, read, per_logit)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert int(metrics["samples"]) == 6 and metrics["spikes"] == {}
    assert int(metrics["correct"]) == (s.argmax(-1) == targets).sum()


def test_the_teacher_gets_no_gradient(tables):
    student, teacher, tokens = tables
    loss_fn = distillation_loss(Bigram(), Bigram(), temperature=2.0, mix=0.5)
    gradient = jax.grad(lambda taught: loss_fn(student, (taught, tokens), None)[0])(teacher)
    assert not np.asarray(gradient).any()


def test_sums_count_known_targets_only_and_compare_the_choices(tables):
    student, teacher, tokens = tables
    known = np.array([[True, True, False], [True, False, False]])
    sums = distillation_sums(Bigram(), Bigram())((student, teacher), tokens, known)
    s, t = (table[tokens[:, :-1]].astype(np.float64)[known] for table in (student, teacher))
    p, q, targets = softmax(t), softmax(s), tokens[:, 1:][known]
    assert int(sums["samples"]) == 3
    assert int(sums["agree"]) == (s.argmax(-1) == t.argmax(-1)).sum()
    assert float(sums["divergence"]) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    for name, chance in (("loss", q), ("teacher_loss", p)):
        expected = -np.log(chance[np.arange(3), targets]).sum()
        assert float(sums[name]) == pytest.approx(expected, rel=1e-5)


def test_numbers_and_models_that_do_not_fit_are_refused(tables):
    student, _, tokens = tables
    for name, value in {"temperature": 0.0, "mix": 1.5}.items():
        with pytest.raises(ValueError, match=f"distillation_loss: {name} must be"):
            distillation_loss(Bigram(), Bigram(), **{"temperature": 1.0, "mix": 1.0, name: value})
    loss_fn = distillation_loss(Bigram(), Bigram(), temperature=1.0, mix=1.0)
    with pytest.raises(ValueError, match="both models need one vocabulary"):
        loss_fn(student, (np.zeros((5, 6), np.float32), tokens), None)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        divergence(student, student, temperature=0.0)


# The student


@pytest.fixture(scope="module")
def teacher():
    """A tiny teacher without spikes, as loaded from disk."""
    config = fs.SNNConfig(vocab_size=7, d_model=8, n_heads=2, n_layers=1, d_ff=12, ffn="gated",
                          attn_kind="softmax", spiking=False)
    model, draw = fs.build_model_from_config(config), np.random.default_rng(0)
    variables = nested({path: jnp.asarray(draw.normal(scale=0.3, size=shape), jnp.float32)
                        for path, shape in expected_parameters(config).items()})
    return fs.pretrained.Pretrained(model, variables, config, None, ())


TOKENS = np.random.default_rng(1).integers(0, 7, (3, 6))


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(teacher):
    config = distill.preset("smoke", attn="softmax", spiking=False)
    student, params = make_student(config, teacher, jax.random.key(1))
    model = fs.build_model_from_config(student)
    loss_fn = distillation_loss(model, teacher.model, temperature=2.0, mix=1.0)
    (loss, _), gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
        params, (teacher.variables, TOKENS), jax.random.key(2))
    assert abs(float(loss)) < 1e-6 and float(optax.tree.norm(gradient)) < 1e-6


def test_a_student_has_the_weights_of_its_teacher_and_new_gates(teacher):
    config = distill.preset("smoke", window=3, k=1.5)
    student, params = make_student(config, teacher, jax.random.key(1))
    assert (student.attn_kind, student.window, student.spiking, student.k) == (
        "interleaved", 3, True, 1.5)
    leaves, taught = (dict(jax.tree_util.tree_leaves_with_path(tree))
                      for tree in (params, teacher.variables))
    assert taught.keys() < leaves.keys()
    for path, leaf in taught.items():
        np.testing.assert_array_equal(leaves[path], leaf)
    new = {path[-1 if "gate_bias" in str(path[-1]) else -2].key for path in leaves.keys() - taught}
    assert new == {"gate_bias", "gate_down", "gate_up", "head_norm"}


@pytest.mark.slow
def test_ten_steps_on_one_batch_lower_the_loss_of_a_spiking_hybrid(teacher):
    student, params = make_student(distill.preset("smoke"), teacher, jax.random.key(1))
    loss_fn = distillation_loss(
        fs.build_model_from_config(student), teacher.model, temperature=2.0, mix=0.5)
    tx = optax.adam(1e-2)
    step = jax.jit(make_train_step(loss_fn, tx))
    state, losses = init_state(params, tx, jax.random.key(2)), []
    for _ in range(10):
        state, (loss, metrics) = step(state, (teacher.variables, TOKENS))
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.05 and int(metrics["spikes"][
        "blocks_0/attention/query/kernel"]["bit_plane"]) > 0


def test_a_text_is_read_in_the_tokens_of_a_teacher(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abba" * 10)
    tokenizer = char_tokenizer("abc")
    corpus = load_corpus(path, tokenizer=tokenizer)
    assert corpus.tokenizer == tokenizer
    assert corpus.train.tolist() == [0, 1, 1, 0] * 9 and corpus.validation.tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match="its 2 characters, got 'a' at 0"):
        load_corpus(path, tokenizer=char_tokenizer("bc"))


# Record and picture


SECTION = {
    "teacher": {"source": "here", "sha256": "0" * 64, "model": {"attn_kind": "softmax"},
                "parameters": 12},
    "temperature": 2.0, "mix": 0.5, "teacher_val_loss": 1.25, "student_val_loss_before": 4.0,
    "agreement": 0.75, "divergence": 0.125,
}


def test_a_record_keeps_what_the_teacher_was_and_how_close_the_student_came():
    record = test_record_lm.build(distillation=SECTION)
    metrics = record["metrics"]
    assert (metrics["teacher_val_loss"], metrics["student_val_loss_before"],
            metrics["agreement"]) == (1.25, 4.0, 0.75)
    assert metrics["student_val_loss"] == record["evaluation"]["val_loss"]
    assert "75 %" in format_record(record)
    with pytest.raises(RecordError, match="metrics.agreement: expected 0.75, got 0.5"):
        validate_record(record | {"metrics": metrics | {"agreement": 0.5}})
    with pytest.raises(RecordError, match="distillation: expected key 'mix'"):
        validate_record(record | {
            "distillation": {key: SECTION[key] for key in SECTION if key != "mix"}})
    assert "teacher_val_loss" not in test_record_lm.build()["metrics"]


def test_the_loss_of_a_teacher_is_drawn_as_a_level():
    history = {"steps": [0, 4], "train_loss": [None, 2.0], "val_loss": [3.0, 1.5]}
    lines = {line.get_label(): line for line in
             scope.loss_curves(history, teacher=1.25).axes[0].lines}
    assert set(lines["teacher: 1.2500"].get_ydata()) == {1.25}


# Bad input


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory to work in that holds a little text, and no dataset of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "nowhere")
    (tmp_path / "hamlet.txt").write_text(TEXT)
    (tmp_path / "file").touch()
    return tmp_path


def contents(directory):
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def refused(directory, *arguments):
    """What the command line says to what must exit 2 in one line and write nothing."""
    before = contents(directory)
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        experiment.main([str(argument) for argument in arguments])
    assert cli.is_refusal(caught.value), caught.value
    assert contents(directory) == before
    return " ".join(str(caught.value).split())


@pytest.mark.parametrize(("arguments", "message"), [
    (("--teacher", "nowhere"), "nowhere: it must be a directory, got none"),
    (("--teacher", "."), "config.json"),
    (("--teacher", ""), "teacher must not be empty"),
    (("--teacher", "nowhere", "--teacher-steps", "3"), "leave out it or --teacher"),
    (("--steps", "0"), "steps must be >= 1, got 0"),
    (("--teacher-steps", "0"), "teacher_steps must be >= 1, got 0"),
    (("--mix", "1.5"), "mix must be >= 0 and <= 1, got 1.5"),
    (("--temperature", "0"), "temperature must be > 0"),
    (("--attn", "hybrid_alt"), "attn must be one of interleaved, linear, sliding, softmax"),
    (("--window", "0"), "window must be >= 1, got 0"),
    (("--k", "nan"), "k must be > 0"),
    (("--seed", "-1"), "seed must be >= 0, got -1"),
    (("--context", "9999"), "must have more tokens than context 9999"),
    (("--corpus", "nowhere.txt"), "expected auto, tiny_shakespeare, stdlib or the path"),
    (("--out", "file/run"), "out must be a directory, got a file in"),
    (("--out", "file"), "out must be a directory, got a file in"),
    (("--resume", "nowhere"), "expected a run with config.json"),
    (("--config", "nowhere.json"), "nowhere.json must be a readable JSON file"),
], ids=str)
def test_a_bad_flag_is_refused_and_writes_nothing(arguments, message, folder):
    base = ("--smoke", "--corpus", "hamlet.txt") if "--resume" not in arguments else ()
    assert message in refused(folder, *base, *arguments)


@pytest.mark.parametrize(("fields", "message"), [
    ({"step": 3}, "DistillConfig: fields must be among"),
    ({"preset": "huge"}, "preset must be one of default, smoke"),
    ({"model": {"spiking": True}}, "model must have softmax attention and no spikes"),
    ({"model": [3]}, "model must be a mapping"),
    ({"spiking": 1}, "spiking must be true or false"),
    ({"teacher": 3}, "teacher must be text, got 3"),
])
def test_a_bad_configuration_file_is_refused(fields, message, folder):
    (folder / "c.json").write_text(json.dumps(fields))
    assert message in refused(folder, "--config", "c.json", "--corpus", "hamlet.txt")


def test_a_teacher_whose_tokens_are_not_those_of_the_text_is_refused(folder, teacher):
    fs.save_pretrained(folder / "mute", teacher.config, teacher.variables)
    fs.save_pretrained(folder / "other", teacher.config, teacher.variables,
                       tokenizer=char_tokenizer("abc"))
    run = ("--smoke", "--corpus", "hamlet.txt", "--out", "run")
    assert "the teacher's vocabulary must be the text's, 256 tokens, got 7" in refused(
        folder, *run, "--teacher", "mute")
    assert "text must consist of its 3 characters, got 'T' at 0" in refused(
        folder, *run, "--teacher", "other")


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        experiment.main(["--help"])
    output, default = " ".join(capsys.readouterr().out.split()), distill.preset()
    assert not left.value.code
    for flag in ("--out", "--resume", "--seed", "--smoke", "--data-dir", "--config", "--teacher",
                 "--teacher-steps", "--corpus", "--attn", "--window", "--no-spikes", "--mix"):
        assert flag in output
    for value in (default.teacher_steps, default.steps, default.attn, default.mix):
        assert f"(default: {value})" in output


# Whole runs


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Of a run of six steps on a little text."""
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "hamlet.txt").write_text(TEXT)
    (folder / "c.json").write_text(json.dumps({"model": {"n_layers": 1}, "teacher_steps": 3}))
    return ("--smoke", "--steps", "6", "--config", str(folder / "c.json"),
            "--corpus", str(folder / "hamlet.txt"))


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """(directory, headline) of a run that trained its teacher, too."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, experiment.main([*flags, "--out", str(out)])


@pytest.mark.slow
def test_a_run_leaves_a_student_to_load_by_either_door_and_its_figures(finished, capsys):
    out, headline = finished
    run, student = fs.load_run(out), fs.load_pretrained(out / distill.STUDENT)
    assert student.config == run.model.config and student.config.spiking
    assert student.tokenizer == load_tokenizer(out / "tokenizer.json")
    for ours, theirs in zip(*map(jax.tree.leaves, (run.variables, student.variables)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("teacher_val_loss", "student_val_loss_before", "student_val_loss",
                 "spikes_per_channel", "agreement", "tokens_per_s"):
        assert math.isfinite(headline[name]), name
    assert headline["corpus"] == "hamlet.txt" and headline["out"] == str(out)
    assert {path.name for path in out.iterdir()} >= {
        "record.json", "config.json", "tokenizer.json", "checkpoints", "models", "losses.png"}

    record = run.record
    teacher = load_teacher(out / distill.TEACHER)
    assert record["distillation"]["teacher"]["model"] == teacher.config.to_json()
    journal = Checkpoints(out / distill.TEACHING / "checkpoints").restore().journal
    assert headline["teacher_val_loss"] == pytest.approx(
        journal["history"]["val_losses"][-1], rel=1e-5)
    history = record["training_history"]
    assert history["val_loss"][0] == headline["student_val_loss_before"]
    assert history["steps"][0] == 0 and history["steps"][-1] == 6
    assert record["evaluation"]["tokens"] == len(TEXT.encode()) - len(TEXT) * 9 // 10 - 1

    assert experiment.main(["--resume", str(out)]) == headline
    assert "finished; nothing to resume" in capsys.readouterr().err
    for arguments, message in {
        ("--steps", "9"): "this run's steps is 6, not 9",
        ("--no-spikes",): "this run's spiking is True, not False",
        ("--teacher", "x"): "this run's teacher is None, not x",
        ("--out", "elsewhere"): "leave out --out and --config",
    }.items():
        assert message in refused(out, "--resume", out, *arguments)
    assert experiment.main(["inspect", str(out)]) == headline
    command.run(["generate", str(out), "To be", "--tokens", "4"])
    assert "To be" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_teacher_from_disk_gives_the_same_student(flags, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "draw_all", lambda *_: None)
    out, headline = finished
    again = experiment.main([*flags, "--teacher", str(out / distill.TEACHER), "--out",
                             str(tmp_path / "run")])
    assert outcome(tmp_path / "run") == outcome(out)
    assert again["teacher_val_loss"] == headline["teacher_val_loss"]


@pytest.mark.slow
def test_a_run_killed_while_its_student_learns_resumes_to_the_same_bits(
    flags, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "draw_all", lambda *_: None)
    out, said = tmp_path / "run", ""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.distill", *flags, "--out", str(out)],
        env=environment(), text=True, stderr=subprocess.PIPE)
    while "epoch 2/" not in said.partition("the student")[2]:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "record.json").exists()
    experiment.main(["--resume", str(out)])
    assert outcome(out, distill.TEACHING) == outcome(finished[0], distill.TEACHING)
    records = [fs.load_record(path) for path in (out, finished[0])]
    for name in ("distillation", "model", "config"):
        assert records[0][name] == records[1][name]


def test_a_token_that_the_reference_rules_out_counts_for_nothing():
    value, slope = jax.value_and_grad(lambda logits: divergence(
        logits, jnp.array([[0.0, -jnp.inf]])).sum())(jnp.zeros((1, 2)))
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(slope, [[-0.5, 0.5]], rtol=1e-6)

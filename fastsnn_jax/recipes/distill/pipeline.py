"""Runs a distillation configuration from teacher to record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fastsnn_jax._typing import Params
from fastsnn_jax.data import load_corpus
from fastsnn_jax.pretrained import Pretrained, load_pretrained, save_pretrained
from fastsnn_jax.recipes.distill.config import DistillConfig
from fastsnn_jax.recipes.distill.models import (
    check_vocabulary,
    digest,
    load_teacher,
    make_student,
)
from fastsnn_jax.recipes.lm import network
from fastsnn_jax.recipes.lm.pipeline import Prepared, conclude, prepare, start, train_new
from fastsnn_jax.recipes.lm.training import Evaluate, history_of, make_evaluation, train_windows
from fastsnn_jax.recipes.run_directory import finished_record, read_begun, resumable
from fastsnn_jax.record import LossHistory
from fastsnn_jax.train import (
    Interrupted,
    Journal,
    Progress,
    distillation_loss,
    distillation_sums,
)

STUDENT, TEACHER = "models/student", "models/teacher"  # as load_pretrained reads them
TEACHING = "teacher"  # directory of the teacher's checkpoints
Say = Callable[[str], Any]


def run(
    config: DistillConfig, out: str | Path, *, data_dir: str | Path | None = None,
    resume: bool = False, say: Say = lambda line: None, progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains a student on a teacher's choices; leaves ``record.json``, checkpoints and pictures.

    The student is also left in ``models/student``, for ``load_pretrained``, as is a teacher that is
    trained here in ``models/teacher``. What is evaluated and kept are the last parameters: nothing
    is selected on the held-out text. A finished run is not repeated: with ``resume`` its record is
    returned as it stands.

    Args:
      config: with ``resume`` it must be the one the run began with, see `saved_config`.
      out: directory of the run; without ``resume`` it must hold none.
      say: told in words what is being done.
      progress: told of every dispatch.

    Returns:
      The record, of kind "lm", with a section ``distillation``.

    Raises:
      ValueError: bad text, teacher, directory or configuration (DataError, PretrainedError,
        CheckpointError, RecordError), or training that went wrong (TrainingError).
      OSError: ``out`` cannot be written.
      Interrupted: after Ctrl-C, resumable.
    """
    out = Path(out).resolve()
    if resume and (record := finished_record(out, config.to_json())) is not None:
        say(f"{out} is finished; nothing to resume")
        return record
    remarks: list[str] = []  # a complaint about the input is to be the first thing said
    teacher = None if config.teacher is None else load_teacher(config.teacher)
    corpus = load_corpus(
        config.corpus, data_dir, None if teacher is None else teacher.tokenizer, remarks.append
    )
    student_key, run_key = jax.random.split(jax.random.key(config.seed))

    def prepare_student(teacher: Pretrained) -> tuple[Params, Prepared]:
        check_vocabulary(teacher, corpus.tokenizer)
        student, first = make_student(config, teacher, student_key)
        return first, prepare(config.student_run(student), corpus)

    def begin(ready: Prepared) -> None:
        start(out, config.to_json(), corpus, resume, [*remarks, *ready.remarks], say)

    try:
        if teacher is None:
            begin(ready := prepare(config.teacher_run(), corpus))
            say(f"the teacher: softmax attention, without spikes, {config.teacher_steps} steps")
            teacher = _train_teacher(out, resume, ready, progress)
            first, ready = prepare_student(teacher)
        else:
            first, ready = prepare_student(teacher)
            begin(ready)
        student = ready.model.config
        say(f"the student: {student.attn_kind} attention, "
            f"{'with' if student.spiking else 'without'} spikes, {config.steps} steps")
        learnt = _train_student(config, out, resume, ready, teacher, first, run_key, progress)
    except Interrupted as stopped:
        raise resumable(stopped, out, data_dir) from None
    say("evaluating on all of the held-out text")
    sums = learnt.evaluate(learnt.params)
    if not (out / STUDENT).exists():  # as of the teacher
        save_pretrained(out / STUDENT, student, learnt.params, tokenizer=corpus.tokenizer,
                        stop_tokens=teacher.stop_tokens)
    history = history_of(ready.config, learnt.journal, student.spiking)
    return conclude(
        out, ready, config.to_json(), learnt.params, learnt.journal, sums,
        _with_start(history, learnt.before, network.input_channels(ready.model)),
        distillation=_distillation(config, teacher, learnt.before, sums),
    )


def saved_config(directory: str | Path) -> DistillConfig:
    """Configuration a run began with; CheckpointError when there is none or it is damaged."""
    return read_begun(directory, DistillConfig.from_json)


class _Learnt(NamedTuple):
    """A student that was trained: its last parameters, and the sums before the first step."""

    params: Params
    journal: Journal
    before: dict[str, Any]
    evaluate: Evaluate


def _train_teacher(
    out: Path, resume: bool, ready: Prepared, progress: Progress | None
) -> Pretrained:
    if not (out / TEACHER).exists():  # else whole, and left by this very run before it was cut
        params, _, _ = train_new(ready, out / TEACHING, resume, ready.model, progress)
        save_pretrained(
            out / TEACHER, ready.model.config, params, tokenizer=ready.corpus.tokenizer
        )
    return load_pretrained(out / TEACHER)


def _train_student(
    config: DistillConfig, out: Path, resume: bool, ready: Prepared, teacher: Pretrained,
    first: Params, key: Any, progress: Progress | None,
) -> _Learnt:
    model = ready.model
    evaluate_both = make_evaluation(
        distillation_sums(model, teacher.model), ready.held_out, key
    )

    def evaluate(params: Params) -> dict[str, Any]:
        return evaluate_both((params, teacher.variables))

    before = evaluate(first)
    loss_fn = distillation_loss(
        model, teacher.model, temperature=config.temperature, mix=config.mix
    )
    params, journal = train_windows(
        ready.config, out, resume, model, first, loss_fn, ready.corpus, evaluate, key,
        progress, known=teacher.variables, identity={"teacher": digest(teacher.variables)},
    )
    return _Learnt(params, journal, before, evaluate)


def _with_start(
    history: LossHistory, before: dict[str, Any], channels: dict[str, int]
) -> LossHistory:
    """The history with what the student was before its first step."""
    rates = network.spikes_per_channel(channels, before)
    spikes = history.spikes_per_channel
    return LossHistory(
        [0, *history.steps], [None, *history.train_loss], [before["loss"], *history.val_loss],
        None if spikes is None else {name: [rates[name], *spikes[name]] for name in spikes},
    )


def _distillation(
    config: DistillConfig, teacher: Pretrained, before: dict[str, Any], sums: dict[str, Any]
) -> dict[str, Any]:
    samples = sums["samples"]
    return {
        "teacher": {
            "source": "trained here" if config.teacher is None else config.teacher,
            "sha256": digest(teacher.variables),
            "model": teacher.config.to_json(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(teacher.variables)),
        },
        "temperature": config.temperature,
        "mix": config.mix,
        "teacher_val_loss": sums["teacher_loss"] / samples,
        "student_val_loss_before": before["loss"],
        "agreement": sums["agree"] / samples,
        "divergence": sums["divergence"] / samples,
    }

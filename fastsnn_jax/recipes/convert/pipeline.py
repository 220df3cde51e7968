"""Runs a conversion configuration from data to record."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Params
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.data import Dataset, Examples, split_validation
from fastsnn_jax.recipes.convert import network, spiking
from fastsnn_jax.recipes.convert.config import BOTH, MODELS, ConvertConfig
from fastsnn_jax.recipes.convert.pictures import draw_all
from fastsnn_jax.recipes.convert.work import dense_macs
from fastsnn_jax.recipes.images import load_dataset
from fastsnn_jax.recipes.run_directory import (
    CHECKPOINTS,
    CONFIG_FILE,
    begin,
    check_resumable,
    finished_record,
    read_begun,
    resumable,
)
from fastsnn_jax.record import (
    Anytime,
    Conventional,
    Conversion,
    build_convert_record,
    chosen,
    environment,
    write_record,
)
from fastsnn_jax.train import Interrupted, Journal, Progress

FINE_TUNED = "fine_tuned"  # directory of the fine-tuning's checkpoints
_SPLIT_SEED = 0  # the held-out images are the same in every run, whatever its seed
_EPOCHS = {("mnist", "mlp"): 20, ("mnist", "cnn"): 6, ("digits", "mlp"): 60, ("digits", "cnn"): 40}
_FINE_TUNE_RATES = {"mlp": 3e-4, "cnn": 2e-3}  # by held-out images
_BASELINES = ("ann_float32", "ann_int8")
Records = dict[str, dict[str, Any]]
Say = Callable[[str], Any]


def run(
    config: ConvertConfig, out: str | Path, *, data_dir: str | Path | None = None,
    download: bool = False, resume: bool = False, say: Say = lambda line: None,
    progress: Progress | None = None,
) -> Records:
    """Trains a network, converts it by every method and number of steps, fine-tunes one of them.

    Thresholds and fine-tuning see training images only; the test images are run once for each
    figure, and nothing is selected on them. ``out`` then holds ``record.json``, ``checkpoints/``,
    pictures and ``conversions.md``; with model "both", a directory of that kind for each model. A
    finished run is not repeated.

    Args:
      config: with ``resume`` it must be the one the run began with, see `saved_config`.
      out: directory of the run; without ``resume`` it must hold none.
      say: told in words what is being done.
      progress: told of every dispatch.

    Returns:
      The record of each model, by its name.

    Raises:
      ValueError: bad data, directory or configuration (DataError, CheckpointError, RecordError), or
        training that went wrong (TrainingError).
      OSError: ``out`` cannot be written.
      Interrupted: after Ctrl-C, resumable.
    """
    out = Path(out).resolve()
    if resume and (records := _finished(config, out)) is not None:
        say(f"{out} is finished; nothing to resume")
        return records
    remarks: list[str] = []  # a complaint about the input is to be the first thing said
    dataset = load_dataset(config.dataset, config.smoke, data_dir, download, remarks.append)
    learn, select = split_validation(dataset, seed=_SPLIT_SEED)
    check(config.batch_size <= len(learn.labels), "mnist_convert",
          f"batch size must be <= {len(learn.labels)}, the images to train on", config.batch_size)
    claim = check_resumable if resume else begin
    claim(out, config.to_json(), dataset.sha256)
    for remark in remarks:
        say(remark)
    try:
        if config.model != BOTH:
            record = _run_model(config, out, resume, dataset, learn, select, say, progress)
            return {config.model: record}
        records = {}
        for name, (one, inner) in _each(config, out).items():
            begun = (inner / CONFIG_FILE).exists()
            record = finished_record(inner, one.to_json()) if begun else None
            if record is None:
                claim = check_resumable if begun else begin
                claim(inner, one.to_json(), dataset.sha256)
                record = _run_model(one, inner, begun, dataset, learn, select, say, progress)
            records[name] = record
        return records
    except Interrupted as stopped:
        raise resumable(stopped, out, data_dir) from None


def headline(record: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """The figures of a record that a command line prints as its last line."""
    return {"dataset": record["dataset"]["name"], **record["metrics"], "out": str(out)}


def recorded_model(record: dict[str, Any]) -> network.Model:
    """The network of a record before its conversion: ``apply`` returns logits alone."""
    return network.build_model(ConvertConfig.from_json(record["config"]))


def recorded_variables(items: dict[str, Any]) -> dict[str, Any]:
    """The variables of the network before its conversion, among a checkpoint's items."""
    return items["variables"]


def saved_config(directory: str | Path) -> ConvertConfig:
    """Configuration a run began with; CheckpointError when there is none or it is damaged."""
    return read_begun(directory, ConvertConfig.from_json)


def _each(config: ConvertConfig, out: Path) -> dict[str, tuple[ConvertConfig, Path]]:
    """Configuration and directory of each model of a run with both."""
    return {name: (dataclasses.replace(config, model=name), out / name) for name in MODELS}


def _finished(config: ConvertConfig, out: Path) -> Records | None:
    """The records of a run that needs nothing more."""
    parts = _each(config, out) if config.model == BOTH else {config.model: (config, out)}
    read_begun(out, ConvertConfig.from_json)
    records = {
        name: finished_record(inner, one.to_json()) for name, (one, inner) in parts.items()
        if (inner / CONFIG_FILE).exists()
    }
    done = {name: record for name, record in records.items() if record is not None}
    return done if len(done) == len(parts) else None


def _run_model(
    config: ConvertConfig, out: Path, resume: bool, dataset: Dataset, learn: Examples,
    select: Examples, say: Say, progress: Progress | None,
) -> dict[str, Any]:
    settled = _settle(config, dataset)
    model, checkpoints = network.build_model(settled), Checkpoints(out / CHECKPOINTS)
    say(f"training the {config.model}")
    variables, result = network.train_network(
        settled, model, learn, select, checkpoints, resume, progress
    )
    before = network.evaluator(model.apply, dataset.test)(variables)["accuracy"]
    say(f"{config.model}: {before:.2f} % of the test images before conversion")

    macs = dense_macs(model, variables, network.scaled(jnp.asarray(dataset.test_images[:1])))
    conversions, shown = [], None
    combinations = itertools.product(settled.methods, settled.num_steps)
    for method, steps in combinations:
        converted, calibrated = spiking.convert_network(
            settled, model, variables, learn, method, steps
        )
        shown = spiking.measure(converted, calibrated, model, dataset.test, steps, macs)
        report = converted.report.as_dict()
        held_out = spiking.validate(converted, calibrated, select)
        conversions.append(shown.conversion(method, steps, held_out))
        say(_told(conversions[-1], before))
    best = conversions[chosen([entry._asdict() for entry in conversions])[-1]]  # at the largest N
    converted, calibrated = spiking.convert_network(
        settled, model, variables, learn, best.method, best.num_steps
    )
    early = spiking.stop_early(converted, calibrated, dataset.test)
    say(f"{early.method}, N = {early.num_steps}: {early.mean_planes:.2f} of {early.planes} "
        f"planes settle an answer, {early.changed} answers differ")
    items = {"state": result.state, "variables": variables}
    if settled.fine_tune_epochs:
        steps = settled.fine_tune_steps
        say(f"fine-tuning {spiking.FINE_TUNED} at N = {steps}")
        converted, calibrated = spiking.convert_network(
            settled, model, variables, learn, spiking.FINE_TUNED, steps
        )
        tuned = spiking.fine_tune(
            settled, model, variables, converted, calibrated, learn,
            Checkpoints(out / FINE_TUNED), resume, progress,
        )
        shown = spiking.measure(converted, tuned, model, dataset.test, steps, macs)
        report = converted.report.as_dict()
        held_out = spiking.validate(converted, tuned, select)
        conversions.append(
            shown.conversion(spiking.FINE_TUNED, steps, held_out, settled.fine_tune_epochs)
        )
        items |= {"fine_tuned": tuned}
        say(_told(conversions[-1], before))
    assert shown is not None, "a configuration has a method and a number of steps"
    checkpoints.save(items, result.journal.to_json())

    record = _record(
        settled, dataset, len(select.labels), model, variables, result.journal, before,
        macs, conversions, early, shown, report,
    )
    steps = conversions[-1].num_steps
    layers = zip(model.layer_names[:-1], shown.signals, strict=True)
    rates = {name: one.events / (shown.energy["samples"] * steps) for name, one in layers}
    draw_all(out, record, rates)
    write_record(out, record)
    return record


def _settle(config: ConvertConfig, dataset: Dataset) -> ConvertConfig:
    """The configuration with what depends on network and data known."""
    suited: dict[str, Any] = {
        "epochs": _EPOCHS[dataset.name, config.model],
        "fine_tune_learning_rate": _FINE_TUNE_RATES[config.model],
    }
    left_open = {name: value for name, value in suited.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **left_open)


def _told(entry: Conversion, before: float) -> str:
    tuned = ", fine-tuned" * bool(entry.fine_tune_epochs)
    return (f"{entry.method}, N = {entry.num_steps}{tuned}: {entry.test_accuracy:.2f} %, "
            f"drop {before - entry.test_accuracy:.2f}")


def _record(
    config: ConvertConfig, dataset: Dataset, held: int, model: network.Model, variables: Params,
    journal: Journal, before: float, macs: list[int], conversions: list[Conversion],
    early: Anytime, shown: spiking.Measured, report: dict[str, Any],
) -> dict[str, Any]:
    history, baselines = journal.history, shown.energy["total"]["baselines_pj"]
    return build_convert_record(
        config=config.to_json(),
        dataset=dataset.describe(held),
        environment=environment(),
        seed=config.seed,
        model_class=type(model).__name__,
        parameters=sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"])),
        training_config={
            "epochs": config.epochs, "batch_size": config.batch_size,
            "learning_rate": config.learning_rate, "optimizer": "adam, cosine decay",
        },
        history={
            name: history[name] for name in ("losses", "train_acc", "val_acc", "epoch_times")
        },
        training_time_seconds=sum(history["epoch_times"]),
        samples_per_s=journal.samples_per_s,
        conventional=Conventional(
            before, history["val_acc"][-1],
            sum(macs),
            {name: baselines[name] for name in _BASELINES},
        ),
        conversions=conversions,
        anytime=early,
        shown=len(conversions) - 1,
        counts=shown.counts,
        report=report,
    )

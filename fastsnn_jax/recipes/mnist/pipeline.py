"""Runs an MNIST configuration from data to record."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Params
from fastsnn_jax.activity import SATURATED_RATE
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.data import Dataset, Examples, split_validation
from fastsnn_jax.energy.neuron_work import state_words, update_ops
from fastsnn_jax.recipes.images import load_dataset
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import MAX_RATE_HZ, MnistConfig, preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan, plan_inputs
from fastsnn_jax.recipes.mnist.pictures import draw_all
from fastsnn_jax.recipes.mnist.traces import peak_events, show_digits
from fastsnn_jax.recipes.run_directory import (
    CHECKPOINTS,
    begin,
    check_resumable,
    finished_record,
    read_begun,
    resumable,
)
from fastsnn_jax.record import (
    History,
    SpikeTotals,
    build_mnist_record,
    environment,
    write_record,
)
from fastsnn_jax.sharding import fitting_mesh
from fastsnn_jax.train import (
    Interrupted,
    Journal,
    LoopConfig,
    Plateau,
    Progress,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

EVAL_BATCH = 256  # so that 2, 4 or 8 devices share it
_SPLIT_SEED = 0  # the held-out images are the same in every run, whatever its seed
_TARGET_NOTEBOOK = 98.0
_EPOCHS = {"mnist": 25, "digits": 80}  # the digits are 42 times fewer
_NOTEBOOK_EPOCHS, _SMOKE_EPOCHS = 20, 2
Say = Callable[[str], Any]


def run(
    config: MnistConfig, out: str | Path, *, data_dir: str | Path | None = None,
    download: bool = False, resume: bool = False, say: Say = lambda line: None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains, tests once, and leaves ``record.json``, ``checkpoints/`` and pictures in ``out``.

    A finished run is not repeated: with ``resume`` its record is returned as it stands.

    Args:
      config: with ``resume`` it must be the one the run began with, see `saved_config`.
      out: directory of the run; without ``resume`` it must hold none.
      say: told in words what is being done.
      progress: told of every dispatch.

    Returns:
      The record.

    Raises:
      ValueError: bad data, directory or configuration (DataError, CheckpointError, RecordError), or
        training that went wrong (TrainingError).
      OSError: ``out`` cannot be written.
      Interrupted: after Ctrl-C, resumable.
    """
    out = Path(out).resolve()
    if resume and config.epochs is None:
        config = dataclasses.replace(config, epochs=saved_config(out).epochs)
    if resume and (record := finished_record(out, config.to_json())) is not None:
        say(f"{out} is finished; nothing to resume")
        return record
    remarks: list[str] = []  # a complaint about the input is to be the first thing said
    dataset = load_dataset(config.dataset, config.smoke, data_dir, download, remarks.append)
    if config.epochs is None:
        config = dataclasses.replace(config, epochs=_epochs(config, dataset.name))
    learn, select, held = _split(config, dataset)
    plan = plan_inputs(config, learn.images)
    claim = check_resumable if resume else begin
    claim(out, config.to_json(), dataset.sha256)
    for remark in remarks:
        say(remark)

    model = network.build_model(config)
    density = "" if plan.density is None else f" (density {plan.density:.4f})"
    say(f"input: {config.encoder} spikes, {plan.synapse} synapse{density}")
    mesh = fitting_mesh(config.batch_size)
    say(f"devices that share a batch: {_devices(mesh)} of {jax.local_device_count()}")
    try:
        params, journal = _train(config, out, resume, model, plan, mesh, learn, select, progress)
    except Interrupted as stopped:
        raise resumable(stopped, out, data_dir) from None

    say("testing, once")
    test = dataset.test
    keys = jax.random.split(jax.random.key(config.seed + 2), 2)
    scored = _evaluate(config, model, plan, test, keys[0], per_neuron=False)(params)
    first = Examples(*(part[: config.inference_samples] for part in test))
    count = _evaluate(config, model, plan, first, keys[1], per_neuron=True)
    count(params)  # the first pass compiles; a second draws the same spikes
    began = time.perf_counter()
    counted = count(params)
    measured_s = time.perf_counter() - began

    shown = show_digits(config, model, params, test)
    record = _record(
        config, dataset, held, model, params, plan, mesh, journal, scored, counted, measured_s,
        peak_events(shown),
    )
    rates = {  # of a layer's neurons: what the next synapse counts
        layer: np.asarray(counted["activity"][key]["per_neuron"])
        / (counted["samples"] * config.num_steps)
        for layer, key in zip(model.layer_names, network.activity_keys(model)[1:], strict=True)
    }
    decays = journal.history.get("figures") or []
    drift = {layer: [entry[layer] for entry in decays] for layer in (decays or [{}])[0]}
    draw_all(out, record, rates, drift, config, model, shown)
    write_record(out, record)
    return record


def headline(record: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """The figures of a record that a command line prints as its last line."""
    metrics = record["metrics"]
    names = (
        "selected_on", "test_accuracy", "best_val_accuracy", "epochs_trained",
        "train_samples_per_s", "event_syn_per_inference", "sparsity_ratio", "input_per_inference",
        "hidden_per_inference", "output_per_inference",
    )
    figures = {name: metrics[name] for name in names}
    return {"dataset": record["dataset"]["name"], **figures, "out": str(out)}


def recorded_model(record: dict[str, Any]) -> Any:
    """The network of a record."""
    return network.build_model(preset(**record["config"]))


def recorded_variables(items: dict[str, Any]) -> dict[str, Any]:
    """The variables a record speaks of, among the items of the run's last checkpoint."""
    return {"params": items["best"] if "best" in items else items["state"]["params"]}


def saved_config(directory: str | Path) -> MnistConfig:
    """Configuration a run began with; CheckpointError when there is none or it is damaged."""
    return read_begun(directory, lambda fields: preset(**fields))


def _split(config: MnistConfig, dataset: Dataset) -> tuple[Examples, Examples, int]:
    """Examples to learn from, examples to select on, and how many of the former were held out."""
    if config.selected_on == "test":
        learn, select, held = dataset.train, dataset.test, 0
    else:
        learn, select = split_validation(dataset, seed=_SPLIT_SEED)
        held = len(select.labels)
    check(config.batch_size <= len(learn.labels), "mnist",
          f"batch size must be <= {len(learn.labels)}, the images to train on", config.batch_size)
    return learn, select, held


def _epochs(config: MnistConfig, dataset: str) -> int:
    if config.smoke:
        return _SMOKE_EPOCHS
    return _NOTEBOOK_EPOCHS if config.protocol == "notebook" else _EPOCHS[dataset]


def _train(
    config: MnistConfig, out: Path, resume: bool, model: Any, plan: InputPlan, mesh: Mesh | None,
    learn: Examples, select: Examples, progress: Progress | None,
) -> tuple[Params, Journal]:
    notebook = config.protocol == "notebook"
    epochs = config.epochs
    assert epochs is not None, "run settles the number of epochs"
    steps = len(learn.labels) // config.batch_size * epochs
    tx = network.build_optimiser(config, steps).tx
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = network.init_params(config, model, learn.images.shape[1:], init_key)
    fans = network.fan_outs(model, network.input_shape(config, learn.images.shape[1:]))
    loss_fn = network.make_loss(model, config, plan, fans, mesh)
    scores = _evaluate(
        config, model, plan, select, jax.random.key(config.seed + 1), per_neuron=False
    )

    def evaluate(params: Params) -> dict[str, Any]:
        decays = network.learned_decays(params)
        return scores(params) | ({"figures": decays} if decays else {})

    checkpoints = Checkpoints(out / CHECKPOINTS)
    result = train(
        make_train_step(loss_fn, tx, ema_decay=config.ema_decay),
        rows_of(network.device_examples(learn)),
        init_state(params, tx, run_key, ema=config.ema_decay is not None),
        LoopConfig(
            epochs, config.batch_size, config.seed, patience=config.patience,
            target=_TARGET_NOTEBOOK if notebook else None, plateau=Plateau() if notebook else None,
        ),
        # A run killed before its first checkpoint resumes from the start.
        evaluate=evaluate, checkpoints=checkpoints, resume=resume and bool(checkpoints.labels()),
        mesh=mesh, progress=progress,
    )
    return result.params, result.journal


def _evaluate(config, model, plan, examples, key, *, per_neuron: bool):
    size = min(EVAL_BATCH, len(examples.labels))
    mesh = fitting_mesh(size)
    metrics_fn = network.make_metrics(model, config, plan, per_neuron, mesh)
    examples = rows_of(network.device_examples(examples))
    return make_evaluate(metrics_fn, examples, size, key, mesh=mesh)


def _record(
    config: MnistConfig, dataset: Dataset, held: int, model: Any, params: Params, plan: InputPlan,
    mesh: Mesh | None, journal: Journal, scored: dict[str, Any], counted: dict[str, Any],
    measured_s: float, peak: int,
) -> dict[str, Any]:
    optimiser = network.build_optimiser(config, 1)
    history, trained = journal.history, journal.totals["spikes"]
    rate = config.max_rate_hz if config.encoder == "poisson" else None
    image_shape = dataset.train_images.shape[1:]
    fans = network.fan_outs(model, network.input_shape(config, image_shape))
    activity = {
        name: _layer_activity(
            counted["activity"][name], params, name, fans.get(name),
            SATURATED_RATE * counted["samples"] * config.num_steps,
        )
        for name in network.activity_keys(model)
    }
    events = [entry["events"] for entry in activity.values()]
    return build_mnist_record(
        config=config,
        dataset=dataset.describe(held),
        environment=environment(),
        seed=config.seed,
        model_class=type(model).__name__,
        architecture=network.architecture(config, fans),
        encoding={
            "type": config.encoder,
            "time_window": config.num_steps,
            "max_rate_hz": rate,
            "spike_prob_formula": _FORMULAS[config.encoder],
        },
        training_config={
            "batch_size": config.batch_size,
            "max_epochs": config.epochs,
            "learning_rate": config.learning_rate,
            "weight_decay": optimiser.weight_decay,
            "optimizer": optimiser.name,
            "patience": config.patience,
            "grad_clip_max_norm": optimiser.grad_clip_max_norm,
        },
        history=History(**{name: history[name] for name in History._fields}),
        training_spikes=SpikeTotals(
            trained["input"], trained["hidden"], trained["output"], journal.totals["samples"]
        ),
        training_time_seconds=sum(history["epoch_times"]),
        inference_spikes=SpikeTotals(events[0], sum(events[1:-1]), events[-1], counted["samples"]),
        measurement_time_seconds=measured_s,
        confusion_matrix=scored["confusion"],
        activity=activity,
        metrics={
            "selected_on": config.selected_on,
            "train_samples_per_s": journal.samples_per_s,
            "test_loss": scored["loss"],
            "best_epoch": journal.best_epoch,
            "stopped": journal.stopped,
            "devices": _devices(mesh),
            "input_synapse": plan.synapse,
            "input_density": plan.density,
            "event_capacity": plan.capacity if plan.synapse == "event" else None,
            "saturated_in_training": trained["saturated"],
            "peak_events_per_step": peak,
            "neuron": {"update_ops": dict(update_ops(model.neuron)),
                       "state_words": state_words(model.neuron)},
        },
    )


def _devices(mesh: Mesh | None) -> int:
    return 1 if mesh is None else mesh.size


def _layer_activity(
    entry: dict[str, Any], params: Params, name: str, fans: np.ndarray | None, most: float
) -> dict[str, Any]:
    """Counts of one signal; ``fans`` are the synapses it feeds, None at the output.

    A neuron that spikes ``most`` times or more is saturated.
    """
    per_neuron = np.asarray(entry["per_neuron"], np.int64)
    counts = {
        "events": int(per_neuron.sum()),
        "nonzero": entry["nonzero"],
        "saturated": entry["saturated"],
        "neurons": per_neuron.size,
        "silent": int((per_neuron == 0).sum()),
        "saturated_neurons": int((per_neuron >= most).sum()),
    }
    if fans is None:
        return counts
    layer, kernel = name.split("/")
    return counts | {
        "synaptic_events": int((per_neuron * fans).sum()),
        "connections": int(fans.sum()),
        "weights": params[layer][kernel].size,
    }


_FORMULAS = {
    "poisson": f"p = pixel * max_rate_hz / {MAX_RATE_HZ:g}",
    "latency": "one spike at round((1 - pixel) / (1 - threshold) * (window - 1)) if pixel >= "
               "threshold and among the latency_winners brightest of its 2 x 2 block",
    "direct": "no spikes: pixel as current at every step",
}

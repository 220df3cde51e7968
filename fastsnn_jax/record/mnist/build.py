"""Builds the record of an MNIST run from what was configured and what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastsnn_jax.record.assemble import merge, now, plain
from fastsnn_jax.record.envelope import SCHEMA
from fastsnn_jax.record.kinds import check_tree
from fastsnn_jax.record.mnist.figures import TOTAL_KEYS, derived_figures
from fastsnn_jax.record.mnist.schema import (
    KIND,
    NOTEBOOK_SCHEMA,
    OPERANDS,
    check_confusion,
    validate_mnist,
)


class Architecture(NamedTuple):
    """Sizes and synapses of an input-hidden-output network; None where a model has no such number.

    ``n_syn_*`` counts synapses, ``fanout_*`` the synapses that one spike reaches; a convolution
    has no single fan-out.
    """

    n_input: int
    n_hidden: int | None
    n_output: int
    threshold: float | None = None
    decay: float | None = None
    n_syn_input_hidden: int | None = None
    n_syn_hidden_output: int | None = None
    fanout_input_to_hidden: int | None = None
    fanout_hidden_to_output: int | None = None


class History(NamedTuple):
    """One entry per finished epoch: mean loss, accuracies in percent (or None), seconds."""

    losses: Sequence[float]
    train_acc: Sequence[float | None]
    val_acc: Sequence[float | None]
    epoch_times: Sequence[float]


class SpikeTotals(NamedTuple):
    """Exact spike totals, as Python integers, over ``samples`` examples; None where not counted."""

    input: int | None
    hidden: int | None
    output: int | None
    samples: int


def build_mnist_record(
    *,
    config: Any,
    dataset: Mapping[str, Any],
    environment: Mapping[str, Any],
    seed: int,
    model_class: str,
    architecture: Architecture,
    encoding: Mapping[str, Any],
    training_config: Mapping[str, Any],
    history: History,
    training_spikes: SpikeTotals,
    training_time_seconds: float,
    inference_spikes: SpikeTotals,
    measurement_time_seconds: float,
    confusion_matrix: Sequence[Sequence[int]],
    activity: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Any],
    timestamp: str | None = None,
) -> dict[str, Any]:
    """The complete record of an MNIST run, valid and ready for ``write_record``.

    Takes what was configured and measured; what follows from it (rates per example, energy proxies,
    accuracies, best epoch; see ``derived_figures``) is computed here and joins ``metrics``.

    Args:
        config: the recipe's configuration, a dataclass or mapping.
        dataset: ``Dataset.describe()``; ``sizes["test"]`` is the sum of ``confusion_matrix``.
        environment: ``environment()``.
        encoding: type, time_window (steps), max_rate_hz, spike_prob_formula.
        training_config: batch_size, max_epochs, learning_rate, weight_decay, optimizer, patience,
            grad_clip_max_norm.
        confusion_matrix: counts [true class][predicted class] over the test examples.
        activity: per synapse (and "output") the integers events, nonzero and saturated, and
            whatever else is known of the layer.
        metrics: further headline figures.
        timestamp: ISO 8601; now, if None.

    NumPy and JAX numbers and arrays become Python's. Raises RecordError when a key is missing or
    unknown, a value has the wrong type or is not finite, or figures contradict each other.
    """
    record = plain({
        "schema": SCHEMA,
        "kind": KIND,
        "schema_version": NOTEBOOK_SCHEMA,
        "timestamp": timestamp or now(),
        "model_class": model_class,
        "n_input": architecture.n_input,
        "n_hidden": architecture.n_hidden,
        "n_output": architecture.n_output,
        "seed": seed,
        "dataset": dataset,
        "metrics": metrics,
        "architecture": architecture._asdict() | {"n_synapses_total": None},
        "encoding": encoding,
        "training_config": training_config,
        "training_results": {"training_time_seconds": training_time_seconds},
        "training_history": history._asdict(),
        "training_spikes": _totals(training_spikes) | {"total_samples": training_spikes.samples},
        "inference_spikes": {
            "n_samples": inference_spikes.samples,
            **_totals(inference_spikes),
            "measurement_time_seconds": measurement_time_seconds,
        },
        "confusion_matrix": confusion_matrix,
        "activity": activity,
        "config": config,
        **environment,
    })
    check_tree("record", record, OPERANDS, exact=False)
    check_confusion("record", record)
    record = merge(record, derived_figures(record))
    validate_mnist("record", record)
    return record


def _totals(spikes: SpikeTotals) -> dict[str, int | None]:
    return dict(zip(TOTAL_KEYS, spikes, strict=False))  # without the number of samples

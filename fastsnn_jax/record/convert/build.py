"""Builds the record of a conversion run from what was configured and what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.record.assemble import merge, now, plain
from fastsnn_jax.record.convert.schema import KIND, OPERANDS, derived_figures, validate_convert
from fastsnn_jax.record.envelope import SCHEMA
from fastsnn_jax.record.kinds import check_finite, check_tree


class Conventional(NamedTuple):
    """The network before conversion: accuracies in percent, cost of an inference.

    Attributes:
      energy_pj: picojoules [low, nominal, high] by baseline, as ``report`` names them.
    """

    test_accuracy: float
    validation_accuracy: float | None
    macs_per_inference: int
    energy_pj: Mapping[str, Sequence[float]]


class Conversion(NamedTuple):
    """The network in spikes, by one method at N time steps, over the test images.

    Attributes:
      fine_tune_epochs: passes over the training images after conversion; 0 for none.
      validation_accuracy: over the held-out images, to choose a method by.
      energy_pj: picojoules of an inference, [low, nominal, high].
    """

    method: str
    num_steps: int
    fine_tune_epochs: int
    validation_accuracy: float
    test_accuracy: float
    spikes_per_inference: float
    synaptic_events_per_inference: float
    energy_pj: Sequence[float]


class Anytime(NamedTuple):
    """The test images with the most significant planes first, by one method at N time steps.

    Attributes:
      planes: that a count has.
      mean_planes: that an image took.
      changed: images whose answer is not that of all planes.
    """

    method: str
    num_steps: int
    planes: int
    mean_planes: float
    changed: int


def build_convert_record(
    *,
    config: Any,
    dataset: Mapping[str, Any],
    environment: Mapping[str, Any],
    seed: int,
    model_class: str,
    parameters: int,
    training_config: Mapping[str, Any],
    history: Mapping[str, Any],
    training_time_seconds: float,
    samples_per_s: float | None,
    conventional: Conventional,
    conversions: Sequence[Conversion],
    anytime: Anytime,
    shown: int,
    counts: Mapping[str, LayerCounts],
    report: Mapping[str, Any],
    timestamp: str | None = None,
) -> dict[str, Any]:
    """The complete record of a conversion run, valid and ready for ``write_record``.

    Takes what was configured and measured; drops in accuracy and the headline figures follow from
    it and are computed here.

    Args:
        config: the recipe's configuration, a dataclass or mapping.
        dataset: ``Dataset.describe()``.
        environment: ``environment()``.
        training_config: epochs, batch_size, learning_rate, optimizer.
        history: losses, train_acc, val_acc, epoch_times; an entry per epoch.
        shown: the entry of ``conversions`` that the activity and the headline are of.
        counts: work of every layer of that entry, over the test images.
        report: of the conversion of that entry, before any fine-tuning, as JSON data.
        timestamp: ISO 8601; now, if None.

    NumPy and JAX numbers and arrays become Python's. Raises RecordError when a key is missing or
    unknown, a value has the wrong type or is not finite, or figures contradict each other.
    """
    record = plain({
        "schema": SCHEMA,
        "kind": KIND,
        "timestamp": timestamp or now(),
        "model_class": model_class,
        "parameters": parameters,
        "seed": seed,
        "dataset": dataset,
        "metrics": {},
        "training_config": training_config,
        "training_results": {
            "training_time_seconds": training_time_seconds, "samples_per_s": samples_per_s,
        },
        "training_history": history,
        "ann": conventional._asdict(),
        "conversions": [entry._asdict() for entry in conversions],
        "anytime": anytime._asdict(),
        "shown": shown,
        "report": report,
        "activity": {name: layer.to_json() for name, layer in counts.items()},
        "config": config,
        **environment,
    })
    check_finite("record", record)
    check_tree("record", record, OPERANDS, exact=False)
    figures = derived_figures(record)
    drops = figures.pop("conversions")
    record = merge(record, figures)
    record["conversions"] = [
        row | drop for row, drop in zip(record["conversions"], drops, strict=True)
    ]
    validate_convert("record", record)
    return record

"""Builds the record of a language model from what was configured and what was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastsnn_jax.record.assemble import merge, now, plain
from fastsnn_jax.record.envelope import SCHEMA
from fastsnn_jax.record.kinds import RecordError, check_finite, check_tree
from fastsnn_jax.record.lm.figures import derived_figures
from fastsnn_jax.record.lm.schema import KIND, OPERANDS, check_measured, validate_lm


class LossHistory(NamedTuple):
    """One entry per logged step, None where not measured at it; losses in nats per token.

    ``spikes_per_channel``: one list per layer; None for a model without spikes.
    """

    steps: Sequence[int]
    train_loss: Sequence[float | None]
    val_loss: Sequence[float | None]
    spikes_per_channel: Mapping[str, Sequence[float | None]] | None = None


class Evaluation(NamedTuple):
    """Mean loss in nats per token and accuracy in percent, over ``tokens`` predictions."""

    val_loss: float
    accuracy: float
    tokens: int


class SynapseCounts(NamedTuple):
    """Exact counts of what one projection read, as Python integers over all tokens and channels.

    ``active`` counts the entries that are not 0, ``unary`` their magnitudes, ``bit_plane`` the bits
    set in these, ``saturated`` those that did not fit; ``fan_out`` the synapses of a channel.
    """

    tokens: int
    channels: int
    fan_out: int
    active: int
    unary: int
    bit_plane: int
    saturated: int


def build_lm_record(
    *,
    config: Any,
    dataset: Mapping[str, Any],
    environment: Mapping[str, Any],
    seed: int,
    model_class: str,
    model: Mapping[str, Any],
    parameters: int,
    tokenizer: Mapping[str, Any],
    text: Mapping[str, Any],
    training_config: Mapping[str, Any],
    history: LossHistory,
    steps_trained: int,
    tokens_seen: int,
    training_time_seconds: float,
    tokens_per_s: float | None,
    evaluation: Evaluation,
    twin_val_loss: float | None,
    activity: Mapping[str, SynapseCounts],
    input_groups: Iterable[Sequence[str]],
    bits: int | None,
    sample: str,
    metrics: Mapping[str, Any],
    decoding: Mapping[str, Any] | None = None,
    distillation: Mapping[str, Any] | None = None,
    timestamp: str | None = None,
) -> dict[str, Any]:
    """The complete record of a language model's run, valid and ready for ``write_record``.

    Takes what was configured and measured; what follows from it (perplexity, bits per byte, figures
    of the spikes, best and last of the history; see ``derived_figures``) is computed here and joins
    ``metrics``.

    Args:
        config: the recipe's configuration, a dataclass or mapping.
        dataset: name, source, sha256 and sizes.
        environment: ``environment()``.
        model: the model's own configuration as JSON data, ``SNNConfig.to_json()``.
        parameters: how many numbers are learnt.
        tokenizer: kind, vocab_size.
        text: context (tokens of a window in evaluation), bytes_per_token, train_tokens,
            validation_tokens.
        training_config: steps, batch_size, context, learning_rate, warmup_steps, weight_decay,
            clip_norm, optimizer, accumulate, dtype.
        twin_val_loss: loss of the same model without spikes; None if it was not trained.
        activity: counts by synapse; empty for a model without spikes.
        input_groups: keys of one group read the same input (``model.input_groups()``).
        bits: planes of a spike count, 7 for a limit of 127; None for a model without spikes.
        sample: text that the model generated.
        metrics: further headline figures.
        decoding: work of one decoding step beside its weight products: context, products,
            operations, held_words, cache_words; None leaves the entry out.
        distillation: of a run with a teacher: teacher (source, sha256, model, parameters),
            temperature, mix, teacher_val_loss, student_val_loss_before, agreement, divergence.
        timestamp: ISO 8601; now, if None.

    NumPy and JAX numbers and arrays become Python's. Raises RecordError when a key is missing or
    unknown, a value has the wrong type or is not finite, or figures contradict each other.
    """
    inputs = _inputs(activity, input_groups)
    record = plain({
        "schema": SCHEMA,
        "kind": KIND,
        "timestamp": timestamp or now(),
        "model_class": model_class,
        "seed": seed,
        "dataset": dataset,
        "metrics": metrics,
        "model": model,
        "parameters": parameters,
        "tokenizer": tokenizer,
        "text": text,
        "training_config": training_config,
        "training_results": {
            "steps_trained": steps_trained,
            "tokens_seen": tokens_seen,
            "training_time_seconds": training_time_seconds,
            "tokens_per_s": tokens_per_s,
        },
        "training_history": history._asdict(),
        "evaluation": evaluation._asdict(),
        "twin": None if twin_val_loss is None else {"val_loss": twin_val_loss},
        "spikes": {"bits": bits} if activity else None,
        "sample": sample,
        "activity": {
            key: counts._asdict() | {"input": inputs[key]} for key, counts in activity.items()
        },
        "config": config,
        **({} if decoding is None else {"decoding": decoding}),
        **({} if distillation is None else {"distillation": distillation}),
        **environment,
    })
    check_finite("record", record)
    check_tree("record", record, OPERANDS, exact=False)
    check_measured("record", record)
    record = merge(record, derived_figures(record))
    validate_lm("record", record)
    return record


def _inputs(activity: Mapping[str, Any], groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Key -> the first key that reads the same input; keys without counts are passed over."""
    inputs: dict[str, str] = {}
    for group in groups:
        counted = [key for key in group if key in activity]
        for key in counted:
            if inputs.setdefault(key, counted[0]) != counted[0]:
                raise RecordError(f"record.activity.{key}: expected in one of input_groups, got 2")
    missing = [key for key in activity if key not in inputs]
    if missing:
        raise RecordError(f"record.activity.{missing[0]}: expected in one of input_groups, got 0")
    return inputs

"""Exact counts of a network's work, from the spikes that ``apply`` counted and its own synapses."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import mul
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_choice, check_count, fail
from fastsnn_jax._typing import Array
from fastsnn_jax.activity import SpikeCount, TokenSpikes, fan_out
from fastsnn_jax.energy.arrivals import Arrivals, read_spikes, read_tokens
from fastsnn_jax.energy.layer_counts import CODINGS, LayerCounts
from fastsnn_jax.energy.neuron_work import state_words, update_ops

__all__ = ["LayerCounts", "count_layers"]

_WHERE = "count_layers"
_OUTPUT = "output"  # the key of `activity` that no synapse reads
_OTHER_MODEL = "pass the activity and variables of this model"


def count_layers(
    model: Any, variables: Any, activity: Mapping[str, SpikeCount | TokenSpikes], *,
    num_steps: int = 1, coding: str = "binary", input_shape: tuple[int, ...] = (),
    analog: Sequence[str] = (), samples: int | None = None,
) -> dict[str, LayerCounts]:
    """Work of every synapse whose input `activity` counts, in the order of the network.

        ac = <spikes of each input, fan-out of each input>,  fan-out = VJP of the 0/1 layer at ones

    in Python's integers, so that stride, groups, dilation, padding and pruned weights are exact and
    nothing overflows. Work that is no synapse's is not here: a language model's norms, codings,
    attention products and a head that reads no spikes; ``energy.count`` has them.

    Args:
      model: has ``synapses(variables, input_shape)`` and, where it integrates time, ``neuron``; its
        layers follow each other.
      variables: those the spikes were counted with; a weight that is 0 costs nothing.
      activity: what ``apply`` returned, on the device or as host arrays.
      num_steps: T.
      coding: "binary", "ternary", "unary" (a spike of size n costs n additions) or "bitwise" (bit
        planes); of a language model one of the latter two.
      input_shape: of one sample; of a language model ().
      analog: keys of synapses whose inputs are values and not spikes, as under the encoder
        "direct": they are dense products at every step.
      samples: inferences, or tokens, that ``activity`` was summed over, its axes kept; None where
        it has one row for each.

    Raises:
      ValueError: `activity` or ``variables`` of another model; a coding that does not fit; counts
        that are negative, not finite, not whole or too large for their dtype; channels of a
        language model that differ in fan-out; a neuron that ``update_ops`` does not know.

    >>> from fastsnn_jax.models import MLP
    >>> model, x = MLP((3, 2)), jnp.ones((5, 1, 4))
    >>> variables = model.init(jax.random.key(0), x)
    >>> _, activity = model.apply(variables, x)
    >>> counts = count_layers(model, variables, activity, num_steps=5, input_shape=(4,))
    >>> counts["dense0/kernel"].ac, counts["dense0/kernel"].connections
    (60, 12)
    """
    check_count(_WHERE, "num_steps", num_steps)
    check_choice(_WHERE, "coding", coding, CODINGS[:-1])
    if samples is not None:
        check_count(_WHERE, "samples", samples)
    masks = jax.tree.map(lambda leaf: (leaf != 0).astype(jnp.float32), variables)
    try:
        synapses = model.synapses(masks, input_shape)
    except (KeyError, TypeError) as error:
        raise fail(_WHERE, "variables must be of this model", f"{error!r}", _OTHER_MODEL) from error
    _check_keys(activity, list(synapses), analog)
    arrivals = _read(activity, [*synapses, _OUTPUT], num_steps, coding, analog, samples)
    first = next(iter(arrivals.values()), None)
    if first is None:
        return {}
    kernels = model.kernels(masks) if first.shape is None else {}
    check(first.shape is None or first.shape == tuple(input_shape), _WHERE,
          f"input_shape must be that of the activity, {first.shape}", input_shape)
    counts, following = {}, dict(pairwise(arrivals))
    for key, synapse in synapses.items():
        where, arrived = f"{_WHERE}: {key}", arrivals[key]
        fans, outputs = _fan_outs(where, synapse, arrived.shape or kernels[key].shape[:1])
        emits = None if arrived.shape is None else arrivals[following[key]]
        _check_fit(where, arrived, emits, fans, outputs)
        counts[key] = _count_layer(
            arrived, emits, fans, outputs, *_parameters(masks, key),
            None if emits is None else model.neuron, num_steps,
            "none" if key in analog else coding,
        )
    return counts


def _check_keys(activity: Any, keys: list[str], analog: Sequence[str]) -> None:
    check(isinstance(activity, Mapping), _WHERE, "activity must be a dict", type(activity).__name__)
    trains = any(isinstance(count, SpikeCount) for count in activity.values())
    wanted = [*keys, _OUTPUT] if trains else keys
    check(set(activity) == set(wanted), _WHERE, f"activity must have the keys {wanted}",
          list(activity), _OTHER_MODEL)
    check(set(analog) <= set(keys), _WHERE, f"analog must be among {keys}", list(analog))


def _read(
    activity: Mapping[str, Any], keys: list[str], num_steps: int, coding: str,
    analog: Sequence[str], samples: int | None,
) -> dict[str, Arrivals]:
    """What `activity` counted, in the order of ``keys``."""
    arrivals = {}
    for key in keys:
        where, count = f"{_WHERE}: {key}", activity.get(key)
        if isinstance(count, TokenSpikes):
            arrivals[key] = read_tokens(where, count, coding=coding, samples=samples)
        elif key in activity:
            arrivals[key] = read_spikes(
                where, count, num_steps=num_steps, coding=coding, samples=samples,
                analog=key in analog,
            )
    return arrivals


def _check_fit(
    where: str, arrived: Arrivals, emits: Arrivals | None, fans: list[int], outputs: int
) -> None:
    if emits is not None:
        width = math.prod(emits.shape or ())
        check(width == outputs, where, f"the next signal must be of its {outputs} outputs", width,
              _OTHER_MODEL)
        return
    check(len(set(fans)) == 1, where, "every channel must have the same fan-out",
          f"{min(fans)} to {max(fans)}", "count the network with energy.count")
    places = arrived.samples * len(fans)
    check(arrived.active <= places, where, f"active must be <= tokens * channels = {places}",
          arrived.active, _OTHER_MODEL)


def _count_layer(
    arrived: Arrivals, emits: Arrivals | None, fans: list[int], outputs: int, kernel: Array,
    has_bias: bool, neuron: Any, num_steps: int, coding: str,
) -> LayerCounts:
    """Counts of one synapse; tokens, whose outputs are values, have no ``neuron`` behind it."""
    analog, fires = coding == "none", neuron is not None
    steps, connections = arrived.samples * num_steps, sum(fans)
    return LayerCounts(
        kind="synapse",
        drive="analog" if analog else "spikes",
        coding=coding,
        samples=arrived.samples,
        num_steps=num_steps,
        inputs=len(fans),
        outputs=outputs,
        weights=int(np.count_nonzero(kernel)),
        connections=connections,
        active=arrived.active,
        events=sum(arrived.events),
        saturated=arrived.saturated,
        # Where the inputs were summed there is one product: every channel has the same fan-out.
        ac=sum(map(mul, arrived.events, fans)),
        mac=steps * connections if analog else 0,
        product=0,
        bias_add=steps * outputs if has_bias else 0,
        updates=steps * outputs if fires else 0,
        update_ops=update_ops(neuron) if fires else (),
        elementwise=(),
        state_words=state_words(neuron) if fires else 0,
        emitted=sum(emits.events) if emits else 0,
        activation_words=steps * len(fans) if analog else 0,
        kv_words=0,
    )


def _fan_outs(
    where: str, synapse: Callable[[Array], Array], shape: tuple[int, ...]
) -> tuple[list[int], int]:
    """Fan-out of each input, and how many outputs there are."""
    try:
        outputs = jax.eval_shape(synapse, jax.ShapeDtypeStruct(shape, jnp.float32))
    except (TypeError, ValueError) as error:
        raise fail(where, "activity must be of inputs that the synapse takes", shape,
                   _OTHER_MODEL) from error
    fans = np.asarray(fan_out(synapse, shape), np.int64)
    return fans.ravel().tolist(), math.prod(outputs.shape)


def _parameters(variables: Any, key: str) -> tuple[Array, bool]:
    """The kernel at the path ``key``, and whether a bias stands beside it."""
    *path, name = key.split("/")
    group = variables["params"]
    for part in path:
        group = group[part]
    return group[name], "bias" in group

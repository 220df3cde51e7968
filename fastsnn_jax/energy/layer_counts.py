"""The work of one layer in integers: what a device profile and a mapping turn into energy."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from fastsnn_jax._checks import check, check_choice

KINDS = ("synapse", "other")
DRIVES = ("spikes", "analog")
CODINGS = ("binary", "ternary", "unary", "bitwise", "none")
JSON_EXACT = 2**53  # readers of JSON hold numbers as doubles: larger integers are written as text

Operations: TypeAlias = tuple[tuple[str, int], ...]
"""How many of each class of elementary operation, ascending by name."""


@dataclasses.dataclass(frozen=True)
class LayerCounts:
    """Work of one synapse and of the neurons behind it, free of hardware.

    Python integers of any size, totals over ``samples`` inferences (of a language model: tokens);
    a mean is a total divided by ``samples``. Memory is counted in words (a weight, a state
    variable, an activation). Counts of one layer over different samples add up: ``a + b``.

    Attributes:
      kind: "synapse", or "other" for work without one (attention products, norms, softmax).
      drive: how operands arrive, "spikes" (they cost ``ac``) or "analog" (they cost ``mac``).
      coding: "binary", "ternary", "unary" or "bitwise"; "none" where ``drive`` is analog.
      samples: inferences, or tokens.
      num_steps: T of an inference; 1 for a token.
      inputs: N.
      outputs: M, neurons or values that the synapse feeds; of other work the words it holds from
        token to token.
      weights: stored non-zero parameters of the kernel; a convolution stores few.
      connections: non-zero connections, the sum of the fan-out map: the MACs of one dense pass.
      active: non-zero signals that arrived.
      events: spikes that arrived, each routed once; ``active`` where binary.
      saturated: spikes that did not fit their representation.
      ac: spike-driven additions, each spike's fan-out summed over the spikes.
      mac: products of analog operands with non-zero weights.
      product: multiply-adds of two activations.
      bias_add: additions of a bias.
      updates: clock-driven neuron updates.
      update_ops: operations of one update, by class; empty where there are no neurons.
      elementwise: further elementary operations in all, by class.
      state_words: state variables of one neuron.
      emitted: spikes that the outputs sent out.
      activation_words: analog activations read and written.
      kv_words: words of key-value caches and states read and written.

    Raises:
      ValueError: on a field that is not an integer >= 0 or not one of its choices, and on adding
        counts that are not of the same layer.
    """

    kind: str
    drive: str
    coding: str
    samples: int
    num_steps: int
    inputs: int
    outputs: int
    weights: int
    connections: int
    active: int
    events: int
    saturated: int
    ac: int
    mac: int
    product: int
    bias_add: int
    updates: int
    update_ops: Operations
    elementwise: Operations
    state_words: int
    emitted: int
    activation_words: int
    kv_words: int

    def __post_init__(self) -> None:
        for name in _OPERATIONS:  # one order, so that equal counts are equal
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        _check_fields("LayerCounts", vars(self))

    def __add__(self, other: "LayerCounts") -> "LayerCounts":
        if not isinstance(other, LayerCounts):
            return NotImplemented
        for name in _OF_THE_LAYER:
            one, two = getattr(self, name), getattr(other, name)
            check(one == two, "LayerCounts", f"{name} must be the same to add counts",
                  f"{one!r} and {two!r}")
        totals = {name: getattr(self, name) + getattr(other, name) for name in _TOTALS}
        elementwise = Counter(dict(self.elementwise))
        elementwise.update(dict(other.elementwise))
        return dataclasses.replace(self, **totals, elementwise=tuple(elementwise.items()))

    def to_json(self) -> dict[str, Any]:
        """Plain data; integers above 2^53 as text, which few readers of JSON would keep exact."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, fields: Any, where: str = "LayerCounts") -> "LayerCounts":
        """Reads what `to_json` wrote.

        Args:
          where: names the layer in messages.

        Raises:
          ValueError: naming the field that is missing, unknown or of a wrong value.
        """
        check(isinstance(fields, Mapping), where, "counts must be an object", repr(fields))
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in fields]
        unknown = [name for name in fields if name not in names]
        check(not missing, where, f"there must be a field {missing and missing[0]}", list(fields))
        check(not unknown, where, "there must be no further field", unknown and unknown[0])
        parsed = {name: _parsed(name, fields[name]) for name in names}
        _check_fields(where, parsed)
        return cls(**parsed)


_OPERATIONS = ("update_ops", "elementwise")
_TOTALS = (
    "samples", "active", "events", "saturated", "ac", "mac", "product", "bias_add", "updates",
    "emitted", "activation_words", "kv_words",
)
_OF_THE_LAYER = (
    "kind", "drive", "coding", "num_steps", "inputs", "outputs", "weights", "connections",
    "update_ops", "state_words",
)
_CHOICES = {"kind": KINDS, "drive": DRIVES, "coding": CODINGS}
_AT_LEAST_ONE = ("samples", "num_steps")


def _check_fields(where: str, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in _CHOICES:
            check_choice(where, name, value, _CHOICES[name])
        elif name in _OPERATIONS:
            check(_is_operations(value), where,
                  f"{name} must hold an integer >= 0 for each class of operation", repr(value))
        else:
            least = int(name in _AT_LEAST_ONE)
            check(_is_count(value) and value >= least, where,
                  f"{name} must be an integer >= {least}", repr(value))
    analog = fields["drive"] == "analog"
    check(analog == (fields["coding"] == "none"), where,
          "coding must be 'none' where drive is 'analog', and only there", repr(fields["coding"]))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0  # a bool is an int to Python, not to us


def _is_operations(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
        and _is_count(pair[1]) for pair in value
    ) and len(dict(value)) == len(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return {name: _plain(number) for name, number in value}
    return str(value) if isinstance(value, int) and value > JSON_EXACT else value


def _parsed(name: str, value: Any) -> Any:
    if name in _CHOICES:
        return value
    if name in _OPERATIONS and isinstance(value, Mapping):
        return tuple(sorted((key, _parsed("", number)) for key, number in value.items()))
    return int(value) if isinstance(value, str) and value.isdecimal() else value

"""How a network lies on a device: the assumptions between counts and energy."""

import dataclasses
from typing import Any

import numpy as np

from fastsnn_jax._checks import check, check_choice, check_count, check_number

SMALLEST, NOWHERE = "smallest", "none"
UPDATES = ("clock", "event")
ARITHMETICS = ("integer", "float")
BASELINES = ("ann_float32", "ann_int8", "ann_matched")
_BITS = ("weight_bits", "state_bits", "activation_bits", "accumulator_bits")


@dataclasses.dataclass(frozen=True)
class Mapping:
    """Where numbers live, how wide they are, and how often one is fetched. All of it is assumed.

    Attributes:
      weights: memory that holds a layer's weights: a level of the profile by name, "smallest" for
        the smallest that fits, each layer with the memory to itself, or "none": not charged.
      state: the same for membranes, activations and caches.
      reuse: products that a weight serves once it is fetched, in a dense layer; a spike fetches
        the weights of its own fan-out, which no other spike shares.
      update: "clock": every neuron is updated at every step; "event": a neuron is updated once for
        every spike that reaches it, and a silent one costs nothing.
      arithmetic: of the spiking network, "integer" or "float".
      weight_bits, state_bits, activation_bits, accumulator_bits: widths, of the spiking network.
      batch: samples that share a dense layer's fetched weights, and whose states are held at once.
      hops: routers that a spike passes.
      baseline: the conventional network that verdict, break-even and margin refer to:
        "ann_float32", "ann_int8" or "ann_matched" (activations of as many levels as there are
        spike counts, weights as wide as the spiking network's).

    Raises ValueError or TypeError for a value that is not allowed.

    >>> Mapping(reuse=16).weight_bits
    8
    """

    weights: str = SMALLEST
    state: str = SMALLEST
    reuse: float = 1.0
    update: str = "clock"
    arithmetic: str = "integer"
    weight_bits: int = 8
    state_bits: int = 16
    activation_bits: int = 8
    accumulator_bits: int = 32
    batch: int = 1
    hops: float = 1.0
    baseline: str = "ann_int8"

    def __post_init__(self) -> None:
        where = "Mapping"
        for name in ("weights", "state"):
            level = getattr(self, name)
            check(isinstance(level, str) and level != "", where,
                  f"{name} must be the name of a memory, '{SMALLEST}' or '{NOWHERE}'", repr(level))
        check_number(where, "reuse", self.reuse, at_least=1, at_most=1e12)
        check_number(where, "hops", self.hops, at_least=0, at_most=1e6)
        check_choice(where, "update", self.update, UPDATES)
        check_choice(where, "arithmetic", self.arithmetic, ARITHMETICS)
        check_choice(where, "baseline", self.baseline, BASELINES)
        for name in _BITS:
            bits = getattr(self, name)
            check_count(where, name, bits)
            check(bits <= 64, where, f"{name} must be <= 64", bits)
        check_count(where, "batch", self.batch)

    def to_json(self) -> dict[str, Any]:
        """Plain dict; ``Mapping(**fields)`` gives the mapping back."""
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in dataclasses.asdict(self).items()
        }

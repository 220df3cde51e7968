"""Figures that are not known exactly: low, nominal, high."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A figure with its bounds, ``low <= nominal <= high``, all >= 0.

    Sums and multiples are taken bound by bound: whatever is uncertain in two terms is taken to be
    wrong in the same direction, so that no uncertainty cancels.

    >>> Interval(1.0, 2.0, 4.0) + Interval.exactly(2.0) * 0.5
    Interval(low=2.0, nominal=3.0, high=5.0)
    """

    low: float
    nominal: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Interval":
        """The interval of one point."""
        return cls(value, value, value)

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(
            self.low + other.low, self.nominal + other.nominal, self.high + other.high
        )

    def __mul__(self, factor: float) -> "Interval":
        return Interval(self.low * factor, self.nominal * factor, self.high * factor)

    def to_json(self) -> list[Any]:
        """``[low, nominal, high]``."""
        return [self.low, self.nominal, self.high]

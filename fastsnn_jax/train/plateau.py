"""Lowers the learning rate when a score no longer improves."""

from dataclasses import dataclass
from typing import NamedTuple

from fastsnn_jax._checks import check_count, check_number


class PlateauState(NamedTuple):
    """Best score so far (None before the first), epochs since, and the current factor."""

    best: float | None = None
    bad_epochs: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class Plateau:
    """Rule of torch's ReduceLROnPlateau (relative threshold, no cooldown).

        good if score > best * (1 + threshold), or with ``lowest``, score < best * (1 - threshold);
        after more than ``patience`` bad epochs in a row:
        scale <- scale * factor and the count starts again

    >>> rule = Plateau(factor=0.5, patience=2)
    >>> state = PlateauState()
    >>> for score in (90.0, 90.0, 90.0, 90.0):
    ...     state = rule.update(state, score)
    >>> state.scale
    0.5
    """

    factor: float = 0.5
    patience: int = 2
    threshold: float = 1e-4

    def __post_init__(self):
        check_number("Plateau", "factor", self.factor, above=0.0, at_most=1.0)
        check_count("Plateau", "patience", self.patience, at_least=0)
        check_number("Plateau", "threshold", self.threshold, at_least=0.0)

    def update(self, state: PlateauState, score: float, lowest: bool = False) -> PlateauState:
        """State after an epoch that reached ``score`` >= 0; with ``lowest``, lower is better."""
        if state.best is None or self._good(score, state.best, lowest):
            return PlateauState(score, 0, state.scale)
        if state.bad_epochs + 1 > self.patience:
            return PlateauState(state.best, 0, state.scale * self.factor)
        return PlateauState(state.best, state.bad_epochs + 1, state.scale)

    def _good(self, score: float, best: float, lowest: bool) -> bool:
        if lowest:
            return score < best * (1.0 - self.threshold)
        return score > best * (1.0 + self.threshold)

"""The picture of how large the spike counts of a layer are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from .._checks import check, check_count
from .canvas import BLUE, FAINT, INK, VERMILLION, dress, finite, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLUMNS = 4
TITLE_POINTS = 220  # of type size, shared by the letters of a title as wide as its panel
FLOOR = 0.5  # the foot of the bars: a logarithm has no 0, and 1 is to be seen


def count_histogram(
    counts: ArrayLike | Mapping[str, ArrayLike], *, limit: int = 127
) -> "Figure":
    """How often every spike count from ``-limit`` to ``limit`` occurs, on a logarithmic scale.

    The silent (0) and the saturated (``-limit`` and ``limit``) are marked, with their shares. Where
    no count comes near the limit the axis ends earlier.

    Args:
      counts: signed counts of any shape, whole numbers; or ``{layer: counts}``, a panel each.
      limit: the largest magnitude that a count can have.

    Raises:
      ValueError: no layer, no counts, counts that are not whole numbers or beyond ``limit``.

    >>> figure = count_histogram([0, 0, 1, -2], limit=3)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['silent 50 %', 'saturated 0 %']
    """
    where = "count_histogram"
    check_count(where, "limit", limit)
    layers = counts if isinstance(counts, Mapping) else {"Spike counts": counts}
    check(len(layers) > 0, where, "counts must hold at least one layer", "none")
    tallies = {name: _tally(where, name, values, limit) for name, values in layers.items()}

    longest = max(1, *map(len, tallies))
    used = max(int(np.abs(np.flatnonzero(tally) - limit).max()) for tally in tallies.values())
    columns = min(len(tallies), MAX_COLUMNS)
    rows = -(-len(tallies) // columns)
    width, height = (6.0, 3.2) if len(tallies) == 1 else (0.6 + 2.3 * columns, 0.5 + 1.75 * rows)
    figure = new_figure(width, height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_xlim(-1.04 * used - 1, 1.04 * used + 1)
    grid[0, 0].set_ylim(FLOOR, 30 * max(tally.max() for tally in tallies.values()))
    for axes, (name, tally) in zip(grid.flat, tallies.items(), strict=False):
        _bars(axes, tally)
        dress(axes, title=name, y_grid=True, title_size=min(10, TITLE_POINTS / longest))
        axes.locator_params(axis="x", integer=True, nbins=7)
        axes.minorticks_off()
    for axes in grid.flat[len(tallies):]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(tallies) - columns) : len(tallies)]:
        axes.tick_params(labelbottom=True)  # also where the panel below is empty
    figure.supxlabel("spike count", fontsize=9, color=INK)
    figure.supylabel("occurrences", fontsize=9, color=INK)
    return figure


def _tally(where: str, name: str, values: Any, limit: int) -> np.ndarray:
    """[2 * limit + 1] how often each count occurs."""
    values = finite(where, name, np.ravel(np.asarray(values)), 1)
    whole = values.astype(np.int64)
    check(bool((whole == values).all()), where, f"{name} must be whole numbers", "fractions")
    most = int(np.abs(whole).max())
    check(most <= limit, where, f"{name} must lie within {limit} of 0", most)
    return np.bincount(whole + limit, minlength=2 * limit + 1)


def _bars(axes: "Axes", tally: np.ndarray) -> None:
    """All bars, then those of the silent and of the saturated again, with a mark and the share."""
    limit = tally.size // 2
    edges = np.arange(-limit, limit + 2) - 0.5
    value = np.arange(-limit, limit + 1)
    axes.stairs(np.maximum(tally, FLOOR), edges, baseline=FLOOR, fill=True, color=BLUE)
    marked = (("silent", value == 0, FAINT), ("saturated", np.abs(value) == limit, VERMILLION))
    for line, (name, part, colour) in enumerate(marked):
        at = np.flatnonzero(part & (tally > 0))
        axes.bar(value[at], tally[at], width=1.0, color=colour, linewidth=0)
        # One bar of 255 is thinner than a pixel; the mark is not.
        axes.plot(
            value[at], 2.0 * tally[at], linestyle="", marker="v", color=colour, markersize=4.5,
            markeredgewidth=0,
        )
        axes.annotate(
            f"{name} {100 * tally[part].sum() / tally.sum():.3g} %", (0.98, 0.98), (0, -10 * line),
            xycoords="axes fraction", textcoords="offset points", ha="right", va="top",
            fontsize=7.5, color=colour,
        )

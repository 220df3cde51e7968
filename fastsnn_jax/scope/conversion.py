"""Pictures of a conversion: what accuracy and energy become over the number of time steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._checks import check
from .canvas import BLUE, FAINT, GREEN, INK, PURPLE, VERMILLION, dress, finite, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The rest of Okabe and Ito's palette behind the four that all pictures share.
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_PJ_PER_UJ = 1e6


def conversion_curves(
    methods: Mapping[str, Mapping[str, Sequence[float]]], *, ann_accuracy: float,
    ann_energy_pj: Mapping[str, float] | None = None,
) -> "Figure":
    """Accuracy and energy of a converted network by time steps, a line for each method.

    Args:
      methods: ``{name: {"num_steps": [n], "accuracy": [n] percent, "energy_pj": [n]}}``.
      ann_accuracy: of the network before conversion, in percent.
      ann_energy_pj: by name, what conventional networks need.

    Raises:
      ValueError: no method; a list that is empty, not finite or of another length; steps below 1.

    >>> curve = {"num_steps": [2, 4], "accuracy": [90.0, 95.0], "energy_pj": [1e6, 2e6]}
    >>> figure = conversion_curves({"max": curve}, ann_accuracy=96.0)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Accuracy', 'Energy']
    """
    where = "conversion_curves"
    check(len(methods) > 0, where, "methods must hold at least one", "none")
    lines = {name: _line(f"{where}: {name}", curve) for name, curve in methods.items()}
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    dress(left, title="Accuracy", x="time steps N", y="test accuracy (%)", y_grid=True)
    dress(right, title="Energy", x="time steps N", y="uJ per inference", y_grid=True)
    for index, (name, (steps, accuracy, energy)) in enumerate(lines.items()):
        style = {
            "color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)],
            "linewidth": 1.6, "marker": "o", "markersize": 3.5,
        }
        left.plot(steps, accuracy, label=name, **style)
        right.plot(steps, energy / _PJ_PER_UJ, **style)
    left.axhline(ann_accuracy, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1,
                 label=f"before conversion, {ann_accuracy:.2f} %")
    for name, energy in (ann_energy_pj or {}).items():
        right.axhline(energy / _PJ_PER_UJ, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        right.annotate(name, (1, energy / _PJ_PER_UJ), (-2, 2), ha="right",
                       xycoords=("axes fraction", "data"), textcoords="offset points",
                       fontsize=7.5, color=FAINT)
    ticks = sorted({int(step) for steps, *_ in lines.values() for step in steps})
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(step) for step in ticks])
        axes.minorticks_off()
    right.set_yscale("log")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _line(where: str, curve: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    names = ("num_steps", "accuracy", "energy_pj")
    missing = [name for name in names if name not in curve]
    check(not missing, where, f"a method must hold {', '.join(names)}", f"none of {missing}")
    steps, accuracy, energy = (finite(where, name, curve[name], 1) for name in names)
    sizes = (len(steps), len(accuracy), len(energy))
    check(len(set(sizes)) == 1, where, "all lists must have one length", sizes)
    check(bool((steps >= 1).all()), where, "num_steps must be >= 1", steps.min())
    check(bool((energy > 0).all()), where, "energy_pj must be > 0", energy.min())
    return steps, accuracy, energy

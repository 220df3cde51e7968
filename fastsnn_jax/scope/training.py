"""Pictures along a training: losses by step, and how much each layer spikes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import check
from .canvas import BLUE, GREEN, INK, VERMILLION, dress, finite, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Sequence[float | None]
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
NAMES_PER_COLUMN = 18  # names below each other in one column of 3.6 inches
INCHES_PER_LETTER = 0.062  # of the names, in their type size


def loss_curves(
    history: Mapping[str, Any], *, twin: Mapping[str, Any] | None = None,
    teacher: float | None = None,
) -> "Figure":
    """Training and validation loss by step, with the lowest validation loss marked.

    Args:
      history: ``steps`` [n], ascending, with ``train_loss`` and ``val_loss`` in nats per token,
        None where not measured; other keys are left alone.
      twin: the same of the model without spikes; its validation loss is drawn.
      teacher: validation loss of what the model learns from, drawn as a level; the training loss
        is then that of distillation.

    Raises:
      ValueError: a key is missing, a list is empty, not finite, or of another length; steps that
        do not ascend; no loss at all.

    >>> history = {"steps": [0, 10, 20], "train_loss": [None, 2.5, 1.5], "val_loss": [4, None, 2]}
    >>> loss_curves(history).axes[0].lines[1].get_xydata().tolist()
    [[0.0, 4.0], [20.0, 2.0]]
    """
    where = "loss_curves"
    drawn = {"training": _points(where, history, "train_loss"),
             "validation": _points(where, history, "val_loss")}
    if twin is not None:
        drawn["validation without spikes"] = _points(where, twin, "val_loss")
    measured = {name: points for name, points in drawn.items() if points[1].size}
    check(bool(measured), where, "history must hold a loss", "none")

    figure = new_figure(7.0, 3.4)
    axes = figure.subplots()
    dress(axes, title="Loss", x="step", y="loss (nats per token)", y_grid=True)
    colours = dict(zip(drawn, (BLUE, VERMILLION, GREEN), strict=False))
    for name, (steps, losses) in measured.items():
        axes.plot(
            steps, losses, color=colours[name], label=name, markersize=3.5,
            marker="o" if losses.size <= 30 else "", linewidth=1.2 if name == "training" else 1.8,
        )
    steps, losses = drawn["validation"]
    if losses.size:
        best = int(np.argmin(losses))
        axes.plot(
            steps[best], losses[best], marker="o", markersize=9, linestyle="",
            markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4,
            label=f"lowest: step {steps[best]:,}, {losses[best]:.4f}",
        )
    if teacher is not None:
        level = float(finite(where, "teacher", [teacher], 1)[0])
        axes.axhline(level, color=INK, linewidth=1.2, linestyle="--",
                     label=f"teacher: {level:.4f}")
    _step_axis(axes, np.concatenate([steps for steps, _ in measured.values()]))
    figure.legend(
        loc="outside lower center", ncols=len(axes.lines), frameon=False, fontsize=8,
        labelcolor=INK,
    )
    return figure


def spike_rates(steps: Sequence[int], layers: Mapping[str, Values]) -> "Figure":
    """Spikes per channel of every layer by step; first layers are dark, last ones are light.

    Args:
      steps: [n], ascending.
      layers: ``{layer: [n] spikes per channel}``, None where not measured.

    Raises:
      ValueError: no layer; a list that is empty, not finite, negative, or of another length than
        ``steps``; steps that do not ascend.

    >>> figure = spike_rates([0, 10], {"block_0/q": [1.5, 1.0], "block_0/up": [None, 0.5]})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['block_0/q', 'block_0/up']
    """
    from matplotlib import colormaps

    where = "spike_rates"
    check(len(layers) > 0, where, "layers must hold at least one layer", "none")
    series = {
        name: _points(where, {"steps": steps, name: values}, name)
        for name, values in layers.items()
    }
    lowest = min(float(values.min(initial=0.0)) for _, values in series.values())
    check(lowest >= 0, where, "spikes per channel must be >= 0", lowest)

    columns = -(-len(series) // NAMES_PER_COLUMN)
    letters = max(map(len, series))
    figure = new_figure(5.2 + columns * (0.6 + INCHES_PER_LETTER * letters), 3.6)
    axes = figure.subplots()
    dress(axes, title="Spikes per channel", x="step", y="bit-plane spikes per channel", y_grid=True)
    # Neighbours differ in their dashes too, since many layers make colours that are hardly apart.
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(series)))
    for index, (name, (at, values)) in enumerate(series.items()):
        axes.plot(
            at, values, color=shades[index], label=name, linewidth=1.6,
            linestyle=DASHES[index % len(DASHES)], marker="o" if at.size == 1 else "",
            markersize=3.5,
        )
    axes.set_ylim(bottom=0)
    _step_axis(axes, np.asarray(steps))
    figure.legend(
        loc="outside right upper", ncols=columns, frameon=False, fontsize=7.5, labelcolor=INK,
        handlelength=3.2,
    )
    return figure


def _points(where: str, history: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which ``name`` was measured, and its values there."""
    missing = [key for key in ("steps", name) if key not in history]
    check(not missing, where, f"history must hold steps and {name}", f"none of {missing}")
    steps, values = finite(where, "steps", history["steps"], 1), list(history[name])
    expected = f"{name} must have {steps.size} entries, one per step"
    check(len(values) == steps.size, where, expected, len(values))
    check(bool((np.diff(steps) > 0).all()), where, "steps must ascend", steps.tolist())
    known = np.array([value is not None for value in values])
    if not known.any():
        return steps[:0], np.zeros(0)
    return steps[known], finite(where, name, [v for v in values if v is not None], 1)


def _step_axis(axes: "Axes", steps: np.ndarray) -> None:
    """Whole steps with separators, and room at both sides."""
    first, last = steps.min(), steps.max()
    margin = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")

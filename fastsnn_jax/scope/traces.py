"""Pictures along the spike time step: rasters and membrane traces."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from .._checks import check
from .canvas import BLUE, FAINT, INK, LAYER_COLOURS, VERMILLION, dress, finite, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TRACES = 12
_CLOSE_TICKS = 0.25  # of the span of a strip, where labels begin to touch


def raster(
    spikes: ArrayLike | Sequence[ArrayLike] | Mapping[str, Sequence[ArrayLike]],
    titles: Sequence[str] = (),
    *,
    images: Sequence[ArrayLike] = (),
) -> "Figure":
    """A dot for every spike: time from left to right, neurons from bottom to top.

    Args:
      spikes: one train [T, N]; or a list of trains, side by side; or ``{layer: list of trains}``,
        one row per layer and one column per example.
      titles: one per column.
      images: [H, W] or [H, W, 1], one per column, shown on top.

    Raises:
      ValueError: a train is not [T, N] or not of zeros and ones; the layers differ in the number
        of examples; another number of titles or images.

    >>> spikes = np.array([[1, 0], [0, 0], [1, 1]])  # 3 steps, 2 neurons
    >>> figure = raster({"hidden": [spikes]}, titles=["a digit"])
    >>> figure.axes[0].lines[0].get_xydata().tolist()
    [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]]
    """
    layers = _layers(spikes)
    columns = len(next(iter(layers.values())))
    for name, given in (("titles", titles), ("images", images)):
        expected = f"{name} must be {columns}, one per column"
        check(len(given) in (0, columns), "raster", expected, len(given))
    pictures = [finite("raster", "an image", np.squeeze(image), 2) for image in images]

    heights = [0.7] * bool(pictures) + [_panel_height(trains[0]) for trains in layers.values()]
    figure = new_figure(max(4.0, 1.0 + 2.1 * columns), 0.9 + sum(heights) + 0.15 * len(heights))
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    if pictures:
        for axes, picture in zip(grid[0], pictures, strict=True):
            axes.imshow(picture, cmap="gray_r")
            axes.set_axis_off()
    rows = grid[1:] if pictures else grid
    for row, (layer, trains) in enumerate(layers.items()):
        colour = LAYER_COLOURS[row % len(LAYER_COLOURS)]
        for column, train in enumerate(trains):
            axes = rows[row, column]
            _dots(axes, train, colour)
            last = row == len(layers) - 1
            label = f"{layer}\nneuron" if layer else "neuron"
            dress(axes, x="time step" if last else "", y="" if column else label)
            axes.tick_params(labelbottom=last, labelleft=column == 0)
    for axes, title in zip(grid[0], titles, strict=False):
        pad = 6 if pictures else 14  # above the number of spikes
        axes.set_title(title, fontsize=10, fontweight="bold", color=INK, pad=pad)
    return figure


def membrane(
    v: ArrayLike,
    threshold: ArrayLike = 1.0,
    spikes: ArrayLike | None = None,
    *,
    names: Sequence[str] = (),
) -> "Figure":
    """Membrane of a few neurons over time, one strip each, with threshold and spikes.

    Args:
      v: [T, N] membrane, N at most 12, in the unit of the threshold. Where it is the state that
        a step leaves behind, a reset has already lowered it at a spike.
      threshold: one for all, or [N].
      spikes: [T, N] zeros and ones; a spike is a bar above the trace.
      names: N names; ``neuron 0`` to N-1 where not given.

    Raises:
      ValueError: other shapes or numbers of names, NaN, spikes that are not zeros and ones, too
        many neurons.

    >>> v = np.array([[0.5], [0.75], [0.0]])
    >>> figure = membrane(v, spikes=v == 0)
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.5, 0.75, 0.0]
    """
    v = finite("membrane", "v", v, 2)
    num_steps, neurons = v.shape
    remedy = "choose a few: v[:, :8]"
    check(neurons <= MAX_TRACES, "membrane", f"at most {MAX_TRACES} neurons", neurons, remedy)
    threshold = np.asarray(threshold)
    expected = f"threshold must be a number or have shape ({neurons},)"
    check(threshold.shape in ((), (neurons,)), "membrane", expected, f"shape {threshold.shape}")
    levels = finite("membrane", "threshold", np.broadcast_to(threshold, (neurons,)), 1)
    expected = f"names must be {neurons}"
    check(len(names) in (0, neurons), "membrane", expected, len(names))
    names = names or [f"neuron {neuron}" for neuron in range(neurons)]
    fired = _binary("membrane", np.zeros_like(v) if spikes is None else spikes)
    check(fired.shape == v.shape, "membrane", f"spikes must have shape {v.shape}", fired.shape)

    figure = new_figure(7.0, 0.8 + 0.75 * neurons)
    strips = figure.subplots(neurons, 1, sharex=True, squeeze=False)[:, 0]
    for neuron, axes in enumerate(strips):
        level = levels[neuron]
        low = min(0.0, level, float(v[:, neuron].min()))
        high = max(0.0, level, float(v[:, neuron].max()))
        span = max(high - low, 1e-6)
        axes.plot(np.arange(num_steps), v[:, neuron], color=BLUE, linewidth=1.5)
        axes.axhline(level, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        times = np.flatnonzero(fired[:, neuron])
        axes.vlines(times, high + 0.08 * span, high + 0.3 * span, color=VERMILLION, linewidth=1.8)
        axes.set_ylim(low - 0.08 * span, high + 0.34 * span)
        last = neuron == neurons - 1
        dress(axes, x="time step" if last else "", y=names[neuron])
        # Where the threshold is too near 0 to be labelled beside it, the highest value is.
        told = level if abs(level) > _CLOSE_TICKS * span else high
        axes.set_yticks([0.0, told], ["0", f"{told:.3g}"])
        axes.tick_params(labelbottom=last)
    strips[0].set_title(
        "Membrane after each step, threshold (dashed) and spikes (bars)", loc="left", fontsize=10,
        fontweight="bold", color=INK,
    )
    strips[0].set_xlim(-0.5, num_steps - 0.5)
    return figure


def _layers(spikes: Any) -> dict[str, list[np.ndarray]]:
    """Any of the three forms as ``{layer: trains}``, checked."""
    if not isinstance(spikes, Mapping):
        spikes = {"": list(spikes) if isinstance(spikes, list | tuple) else [spikes]}
    layers = {name: [_binary("raster", train) for train in spikes[name]] for name in spikes}
    numbers = sorted({len(trains) for trains in layers.values()})
    expected = "spikes must hold at least one train, and as many for every layer"
    check(len(numbers) == 1 and numbers[0] > 0, "raster", expected, numbers)
    return layers


def _binary(where: str, spikes: Any) -> np.ndarray:
    train = finite(where, "spikes", spikes, 2)
    binary = bool(((train == 0) | (train == 1)).all())
    check(binary, where, "spikes must be zeros and ones", f"{train.min():g} to {train.max():g}")
    return train


def _panel_height(train: np.ndarray) -> float:
    """Inches for N neurons: ten need a strip, hundreds a square."""
    return float(np.clip(0.09 * train.shape[1], 0.5, 2.0))


def _dots(axes: "Axes", train: np.ndarray, colour: str) -> None:
    num_steps, neurons = train.shape
    points_per_neuron = 72 * _panel_height(train) / neurons
    time, neuron = np.nonzero(train)
    axes.plot(
        time, neuron, linestyle="", marker="s", color=colour, markeredgewidth=0,
        markersize=float(np.clip(0.8 * points_per_neuron, 1.6, 3.5)),
    )
    axes.set_xlim(-0.5, num_steps - 0.5)
    axes.set_ylim(-0.5, neurons - 0.5)
    axes.locator_params(axis="x", integer=True)
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.text(
        1.0, 1.0, f"{time.size:,} spikes", transform=axes.transAxes, ha="right", va="bottom",
        fontsize=7, color=FAINT,
    )

"""Pictures of a run as a whole: learning curves, confusion matrix, firing rates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from .._checks import check
from .canvas import BLUE, FAINT, INK, VERMILLION, dress, finite, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_BINS = 30


def curves(history: Mapping[str, Sequence[float]], *, held_out: str = "validation") -> "Figure":
    """Loss and accuracy by epoch, with the selected epoch marked.

    The selected epoch is the first with the highest ``val_acc``: the one whose parameters are kept.

    Args:
      history: ``losses``, ``train_acc`` and ``val_acc`` (percent), one number per epoch; other
        keys are left alone.
      held_out: what to call the data behind ``val_acc``.

    Raises:
      ValueError: a key is missing, a list is empty, not finite, or of another length.

    >>> figure = curves({"losses": [0.9, 0.4], "train_acc": [71, 90], "val_acc": [80, 88]})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Loss', 'Accuracy']
    """
    names = ("losses", "train_acc", "val_acc")
    missing = [name for name in names if name not in history]
    check(not missing, "curves", f"history must hold {', '.join(names)}", f"none of {missing}")
    losses, train, val = (finite("curves", name, history[name], 1) for name in names)
    lengths = (len(losses), len(train), len(val))
    check(len(set(lengths)) == 1, "curves", "all lists must have one length", lengths)

    epochs = np.arange(1, len(val) + 1)
    best = int(np.argmax(val))
    figure = new_figure(8.0, 3.2)
    left, right = figure.subplots(1, 2)
    dress(left, title="Loss", x="epoch", y="training loss", y_grid=True)
    dress(right, title="Accuracy", x="epoch", y="accuracy (%)", y_grid=True)
    marker = "o" if len(epochs) <= 30 else ""
    style = {"linewidth": 1.8, "marker": marker, "markersize": 3.5}
    left.plot(epochs, losses, color=BLUE, **style)
    right.plot(epochs, train, color=BLUE, label="training", **style)
    right.plot(epochs, val, color=VERMILLION, label=held_out, **style)
    for axes in (left, right):
        axes.axvline(best + 1, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.set_xlim(0.5, len(epochs) + 0.5)
    selected = f"selected: epoch {best + 1}, {val[best]:.2f} %"
    right.plot(
        best + 1, val[best], marker="o", markersize=9, linestyle="", markerfacecolor="none",
        markeredgecolor=INK, markeredgewidth=1.4, label=selected,
    )
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK
    )
    return figure


def confusion_matrix(matrix: ArrayLike, class_names: Sequence[str] | None = None) -> "Figure":
    """Counts of (true class, predicted class), with every class's recall at the right.

    Hits are blue, by their share of the class; errors are vermillion, by their share of the most
    frequent error, so that one error in a thousand is still seen.

    Args:
      matrix: [K, K] counts, row = true class, column = predicted class.
      class_names: K names; 0 to K-1 where not given.

    Raises:
      ValueError: not square, negative, not finite, or another number of names.

    >>> figure = confusion_matrix([[9, 1], [0, 5]], ["cat", "dog"])
    >>> figure.axes[0].get_title(loc="left")
    '93.33 % of 15 correct'
    """
    counts = finite("confusion_matrix", "matrix", matrix, 2)
    num_classes = counts.shape[0]
    square = counts.shape[0] == counts.shape[1]
    check(square, "confusion_matrix", "matrix must be square", f"shape {counts.shape}")
    check(bool((counts >= 0).all()), "confusion_matrix", "counts must be >= 0", counts.min())
    names = [str(k) for k in range(num_classes)] if class_names is None else list(class_names)
    expected = f"class_names must be {num_classes} names"
    check(len(names) == num_classes, "confusion_matrix", expected, len(names))

    per_class = counts.sum(axis=1)
    hits = np.diagonal(counts)
    recall = hits / np.maximum(per_class, 1)
    errors = np.where(np.eye(num_classes, dtype=bool), 0, counts)
    shade = errors / max(errors.max(), 1)
    np.fill_diagonal(shade, recall)

    size = max(3.2, 1.4 + 0.46 * num_classes)
    figure = new_figure(size + 0.4, size)
    axes = figure.subplots()
    axes.imshow(_paint(shade), aspect="equal", interpolation="nearest")
    for row, column in np.argwhere(counts > 0):
        axes.text(
            column, row, f"{counts[row, column]:,.0f}", ha="center", va="center", fontsize=7.5,
            color="white" if shade[row, column] > 0.55 else INK,
        )
    total = counts.sum()
    correct = 100 * hits.sum() / max(total, 1)
    title = f"{correct:.2f} % of {total:,.0f} correct"
    dress(axes, title=title, x="predicted class", y="true class")
    axes.set_xticks(range(num_classes), names)
    axes.set_yticks(range(num_classes), names)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    for row, share in enumerate(recall):
        axes.annotate(
            f"{100 * share:.1f} %" if per_class[row] else "none", (1, row), (6, 0),
            xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )
    axes.annotate(
        "recall", (1, 1), (6, 7), xycoords="axes fraction", textcoords="offset points",
        fontsize=8, color=FAINT,
    )
    return figure


def rate_histogram(rates: ArrayLike, silent: ArrayLike, saturated: ArrayLike) -> "Figure":
    """How many neurons fire how often; the silent and the saturated stand apart, with counts.

    Args:
      rates: [N] spikes per neuron per step, in [0, 1].
      silent: [N] booleans, neurons that never fired.
      saturated: [N] booleans, neurons that fired at every step, or nearly so.

    Raises:
      ValueError: rates outside [0, 1] or not finite; shapes that differ; a neuron in both masks.

    >>> rates = np.array([0.0, 0.1, 0.3, 1.0])
    >>> figure = rate_histogram(rates, rates == 0, rates == 1)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1']
    """
    where = "rate_histogram"
    rates = finite(where, "rates", rates, 1)
    inside = bool((rates >= 0).all() and (rates <= 1).all())
    span = f"{rates.min():g} to {rates.max():g}"
    check(inside, where, "rates must be spikes per step in [0, 1]", span)
    silent, saturated = _mask("silent", silent, rates), _mask("saturated", saturated, rates)
    both = int((silent & saturated).sum())
    check(both == 0, where, "no neuron can be silent and saturated", f"{both} that are")

    active = rates[~(silent | saturated)]
    figure = new_figure(7.0, 3.2)
    low, middle, high = figure.subplots(1, 3, sharey=True, width_ratios=[1.2, 9, 1.2])
    for axes, mask, name in ((low, silent, "silent"), (high, saturated, "saturated")):
        count = int(mask.sum())
        axes.bar([0], [count], width=0.7, color=VERMILLION)
        axes.text(0, count, f"{count:,}", ha="center", va="bottom", fontsize=9, color=INK)
        axes.set_xlim(-0.6, 0.6)
        dress(axes)
        axes.set_xticks([0], [name])
    # At least a tenth, so that a nearly dead layer does not look like a busy one.
    top = max(0.1, float(active.max(initial=0.0)))
    middle.hist(
        active, bins=NUM_BINS, range=(0.0, top), color=BLUE, edgecolor="white", linewidth=0.6
    )
    title = f"{active.size:,} of {rates.size:,} neurons active"
    dress(middle, title=title, x="firing rate (spikes per step)", y_grid=True)
    if active.size:
        mean = float(active.mean())
        middle.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        middle.text(
            mean, 0.97, f"  mean {mean:.3f}", transform=middle.get_xaxis_transform(), va="top",
            fontsize=8, color=INK,
        )
    low.set_ylabel("neurons", fontsize=9, color=INK)
    for axes in (middle, high):
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    low.margins(y=0.12)
    return figure


def _paint(shade: np.ndarray) -> np.ndarray:
    """Shares [K, K] in [0, 1] as RGB: white to blue on the diagonal, to vermillion elsewhere."""
    from matplotlib.colors import to_rgb

    diagonal = np.eye(shade.shape[0], dtype=bool)[..., None]
    full = np.where(diagonal, to_rgb(BLUE), to_rgb(VERMILLION))
    # The power lifts small shares off the white.
    return 1 - (shade**0.65)[..., None] * (1 - full)


def _mask(name: str, mask: Any, rates: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    right = mask.dtype == bool and mask.shape == rates.shape
    expected = f"{name} must be booleans of shape {rates.shape}"
    check(right, "rate_histogram", expected, f"{mask.dtype} {mask.shape}")
    return mask

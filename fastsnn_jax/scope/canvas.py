"""The paper that pictures are drawn on: one size, one palette, one way to write the file.

Figures are built with matplotlib's objects, never with pyplot: no backend is chosen, no figure is
kept, nothing of the user's own plotting changes.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import check
from .._files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008, Color Universal Design: told apart with every form of colour blindness.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
LAYER_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE)
INK, FAINT, GRID = "#222222", "#767676", "#E3E3E3"
DOTS_PER_INCH = 144


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches, ready to be drawn without a display."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    size = (width, height)
    return Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor="white", layout=layout)


def dress(
    axes: "Axes", *, title: str = "", x: str = "", y: str = "", y_grid: bool = False,
    title_size: float = 10,
) -> None:
    """Title, axis labels, ticks and lines of an axes, all in one hand."""
    axes.set_title(title, loc="left", fontsize=title_size, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, color=FAINT, labelcolor=INK, length=3)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    if y_grid:
        axes.grid(axis="y", color=GRID, linewidth=0.8)


def finite(where: str, name: str, values: Any, ndim: int) -> np.ndarray:
    """``values`` on the host; ValueError unless numbers, not empty, finite, with ``ndim`` axes."""
    array = np.asarray(values)
    check(array.ndim == ndim, where, f"{name} must have {ndim} axes", f"shape {array.shape}")
    check(array.size > 0, where, f"{name} must not be empty", f"shape {array.shape}")
    check(array.dtype.kind in "biuf", where, f"{name} must be numbers", f"dtype {array.dtype}")
    check(bool(np.isfinite(array).all()), where, f"{name} must be finite", "NaN or infinity")
    return array


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure as a PNG of at most 256 colours, all of it or nothing.

    The same figure gives the same bytes: the file carries no date and no version.

    Raises ValueError unless ``path`` ends in ``.png``, OSError where it cannot be written.
    """
    from PIL import Image

    path = Path(path)
    check(path.suffix == ".png", "save", "path must end in .png", str(path))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi="figure")
    picture = Image.open(drawn).convert("RGB")
    with written_whole(path) as scratch:
        picture.quantize(256).save(scratch, format="PNG", optimize=True)

"""The panels of the page: what each shows, and why one has nothing to show."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any, NamedTuple

Data = Mapping[str, Any]
MISSING = "missing"
NO_REPORT = "No energy report was given for this run: pass report=fs.energy.report(...)."


class Panel(NamedTuple):
    """One section of the page; ``reason`` says why it is empty, "" where it is not.

    ``opened`` shows the table below the figure from the start.
    """

    key: str
    title: str
    lead: str
    reason: Callable[[Data], str]
    wide: bool = False
    opened: bool = False


def panels_of(data: Data) -> tuple[Panel, ...]:
    """The panels of a page: what every run has, and what its kind has; or that of its sites."""
    if data["record"] is None:
        return (SITES,)
    before, after = _OF_KINDS.get(data["record"]["kind"], ((), ()))
    return (*before, *PANELS, *after)


def sections(data: Data) -> str:
    """The HTML of all panels that have data, and of one list of those that have none, and why."""
    panels = panels_of(data)
    drawn = [_section(panel) for panel in panels if not panel.reason(data)]
    empty = [f"<li>{escape(panel.title)}: {escape(panel.reason(data))}</li>"
             for panel in panels if panel.reason(data)]
    if empty:
        drawn.append("\n".join([_head(MISSING, "Not in this page", wide=True),
                                '<ul class="reason">', *empty, "</ul>\n</section>"]))
    return "\n".join(drawn)


def _head(key: str, title: str, wide: bool) -> str:
    return (
        f'<section class="card{" wide" * wide}" id="{key}" aria-labelledby="{key}-title">\n'
        f'<h2 id="{key}-title">{title}</h2>'
    )


def _section(panel: Panel) -> str:
    """The HTML of a panel; the page's script draws into ``.figure``."""
    title = escape(panel.title)
    return (
        f'{_head(panel.key, title, panel.wide)}\n<p class="lead">{escape(panel.lead)}</p>\n'
        '<div class="controls"></div>\n<div class="figure"></div>\n'
        f"<details{' open' * panel.opened}><summary>Table: {title}</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table: {title}"></div>'
        "</details>\n</section>"
    )


def _needs_report(data: Data) -> str:
    return "" if data["report"] else NO_REPORT


def _needs_points(data: Data) -> str:
    return "" if data["points"] else "This run recorded no accuracy, or neither events nor energy."


def _needs_raster(data: Data) -> str:
    return "" if data["raster"] else "This run recorded no spikes of single neurons."


def _needs_rates(data: Data) -> str:
    return "" if data["rates"] else "This run recorded no rates of single neurons."


def _needs_membranes(data: Data) -> str:
    return "" if data["membrane"] else "This run recorded no membranes."


def _needs_map(data: Data) -> str:
    return "" if data["map"] else "This run recorded no spikes by layer and step or token."


def _needs_history(data: Data) -> str:
    history = data["record"]["training_history"]
    if any(history.values()):
        return ""
    return "This run recorded no training history."


def _needs_text(data: Data) -> str:
    return "" if data["text"] else "This run recorded no spikes by token."


def _needs_sites(data: Data) -> str:
    return "" if data["conversion"] else "This run recorded no report of its sites."


STEPS = Panel(
    "steps", "Accuracy and cost over time steps",
    "A mark for each conversion of the network, over the test images. Dashed: before conversion.",
    lambda data: "", wide=True,
)
SITES = Panel(
    "sites", "What became of every site",
    "The places where spikes stand for numbers, in the program's order, over the calibration "
    "batch.", _needs_sites, wide=True, opened=True,
)
PANELS = (
    Panel("energy", "Where the energy goes",
          "Picojoules by what they are spent on, then in sum, against the same network without "
          "spikes. Whiskers span the device profile's low and high.", _needs_report, wide=True),
    Panel("whatif", "What if",
          "The same counts on another device, at another precision or step count: energy is "
          "linear in counts, so the page computes it.", _needs_report, wide=True),
    Panel("pareto", "Accuracy against cost",
          "Up and to the left is better; the line joins runs that no other beats in both.",
          _needs_points),
    Panel("rates", "How often neurons fire",
          "Each bar holds twice the rate of the one before. Dead neurons never fire.",
          _needs_rates),
    Panel("raster", "Spikes",
          "A mark for every spike of one example; below it, how many neurons spike together.",
          _needs_raster),
    Panel("membrane", "Membranes",
          "The membrane after every step, reset where it spiked, or what the counts of a token "
          "were rounded from; and its threshold (dashed).",
          _needs_membranes),
    Panel("map", "Activity of layers",
          "The further from the paper's colour, the busier.", _needs_map, wide=True),
    Panel("training", "Training",
          "What was recorded while the network learned.", _needs_history, wide=True),
)
TEXT = Panel(
    "text", "Text by spikes",
    "Every token with the spikes, or the energy, that reading it took.", _needs_text, wide=True,
)
# Panels before and behind those of every run.
_OF_KINDS: Mapping[str, tuple[tuple[Panel, ...], tuple[Panel, ...]]] = {
    "convert": ((STEPS, SITES), ()), "lm": ((), (TEXT,)),
}

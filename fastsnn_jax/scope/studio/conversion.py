"""A conversion as the page shows it: what became of every site, and the figures of the whole."""

from collections.abc import Mapping
from html import escape
from typing import Any

from ...record.kinds import (
    COUNT,
    NON_NEGATIVE,
    NUMBER,
    TEXT,
    Kind,
    check_tree,
    list_of,
    nullable,
)
from ...record.text import cell
from .blocks import sentences, tiles
from .quantities import count_text, percent_text

Json = Mapping[str, Any]

_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_WHOLE = {
    "method": TEXT, "num_steps": COUNT, "coding": TEXT, "output_error": nullable(NON_NEGATIVE),
    "metric_before": nullable(NUMBER), "metric_after": nullable(NUMBER), "folded": nullable(COUNT),
}
_SITE = {
    "name": TEXT, "kind": TEXT, "shape": list_of(COUNT), "loops": list_of(COUNT),
    "converted": _FLAG, "reason": nullable(TEXT), "folded": nullable(list_of(TEXT)),
    **dict.fromkeys(
        ("threshold", "relative_error", "rate", "saturation", "spikes_per_synapse", "time_steps",
         "macs", "additions"),
        nullable(NUMBER),
    ),
}


def conversion_data(where: str, report: Json) -> dict[str, Any] | None:
    """What the page shows of a conversion's report, None of one without sites.

    Raises RecordError, naming the field, where one is missing or not what it should be.
    """
    sites = report.get("sites")
    if not sites:
        return None
    check_tree(where, report, {"sites": list_of(Kind("an object", _is_object))}, exact=False)
    whole = {key: report.get(key) for key in _WHOLE}
    check_tree(where, whole, _WHOLE)
    rows = [{key: site.get(key) for key in _SITE} for site in sites]
    for place, row in enumerate(rows):
        check_tree(f"{where}.sites[{place}]", row, _SITE)
    return whole | {"sites": rows}


def conversion_title(conversion: Json) -> str:
    """One line that names a conversion."""
    return f"Conversion by {conversion['method']}, N = {conversion['num_steps']}"


def conversion_overview(conversion: Json) -> str:
    """The HTML of the first card where a conversion is all there is."""
    return "\n".join(part for part in (
        '<section class="card wide" id="overview" aria-labelledby="overview-title">',
        f'<h1 id="overview-title">{escape(conversion_title(conversion))}</h1>',
        '<p class="lead">All figures are over the calibration batch.</p>',
        tiles(conversion_tiles(conversion)), sentences(leftovers(conversion), warning=True),
        "</section>",
    ) if part)


def conversion_tiles(conversion: Json) -> list[tuple[str, str, str]]:
    """The figures of the whole conversion."""
    sites = conversion["sites"]
    converted = [site for site in sites if site["converted"]]
    figures = [
        ("sites in spikes", f"{len(converted)} of {len(sites)}", f"{conversion['coding']} spikes"),
    ]
    if conversion["output_error"] is not None:
        figures.append(("output error", percent_text(conversion["output_error"]),
                        "calibration batch, root mean square"))
    if conversion["metric_before"] is not None:
        before, after = (conversion[f"metric_{name}"] for name in ("before", "after"))
        figures.append(("metric", _short(after), f"{_short(before)} before conversion"))
    products = [site for site in converted if site["macs"] is not None]
    if products:
        before, after = (sum(site[key] or 0 for site in products) for key in ("macs", "additions"))
        figures.append(("additions", count_text(after),
                        f"{count_text(before)} multiply-adds before, calibration batch"))
    if conversion["folded"] is not None:
        figures.append(("products folded", cell(conversion["folded"]), "with what scales them"))
    return figures


def leftovers(conversion: Json) -> list[str]:
    """What stays as it is, and why."""
    return [f"{site['name']} is not converted: {site['reason'] or 'no reason given'}."
            for site in conversion["sites"] if not site["converted"]]


def _short(value: float | None) -> str:
    return "–" if value is None else cell(round(value, 4))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)

"""Checks an energy report before it is drawn, and collects the devices to compare it with."""

from collections.abc import Mapping
from typing import Any

from ..._checks import check
from ...energy.layer_counts import LayerCounts
from ...energy.profiles import Profile, load_profile, profile_names
from ...energy.report import validate_report


def check_report(where: str, report: Any) -> None:
    """Raises ValueError, naming the field, unless ``report`` is complete and of our schema."""
    validate_report(report, where)
    layers, counts = list(report["layers"]), list(report["counts"])
    check(sorted(layers) == sorted(counts), where, f"layers must be those of counts, {counts}",
          layers)
    own = {key: value for key, value in report["profile"].items() if key != "sha256"}
    Profile.from_json(own, f"{where}.profile")
    for name, fields in report["counts"].items():
        LayerCounts.from_json(fields, f"{where}.counts.{name}")


def device_profiles(report: Mapping[str, Any]) -> dict[str, Any]:
    """Every profile that a page offers, by name: the report's own, and those of the package."""
    own = report["profile"]
    shipped = {name: load_profile(name).to_json() for name in profile_names()}
    return {own["name"]: own} | {n: one for n, one in shipped.items() if n != own["name"]}

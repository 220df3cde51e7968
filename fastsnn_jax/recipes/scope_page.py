"""The page and the energy report that every recipe leaves in the directory of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastsnn_jax import scope
from fastsnn_jax.energy.files import save_report
from fastsnn_jax.energy.text import format_report
from fastsnn_jax.record import energy_report

PAGE_FILE = "scope.html"


def write_scope(directory: Path, record: dict[str, Any], traces: Mapping[str, Any]) -> None:
    """Writes ``traces.npz``, the page and, of a network with spikes, the energy report.

    Args:
      traces: as in ``scope.save_traces``.
    """
    report = energy_report(record) if record["activity"] else None
    if report is not None:
        save_report(directory, report, format_report(report))
    scope.save_traces(directory, traces)
    scope.write(record, directory / PAGE_FILE, report, traces)

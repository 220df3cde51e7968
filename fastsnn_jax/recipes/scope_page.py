"""The page and the energy report that every recipe leaves in the directory of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastsnn_jax import scope
from fastsnn_jax._files import write_text
from fastsnn_jax.energy.report import to_bytes
from fastsnn_jax.record import energy_report

REPORT_FILE, PAGE_FILE = "energy.json", "scope.html"


def write_scope(directory: Path, record: dict[str, Any], traces: Mapping[str, Any]) -> None:
    """Writes ``traces.npz``, the page and, of a network with spikes, ``energy.json``.

    Args:
      traces: as in ``scope.save_traces``.
    """
    report = energy_report(record) if record["activity"] else None
    if report is not None:
        write_text(directory / REPORT_FILE, to_bytes(report).decode())
    scope.save_traces(directory, traces)
    scope.write(record, directory / PAGE_FILE, report, traces)

"""SpikeScope: one offline page that shows what a run computed, and what it costs."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..._checks import check
from ..._files import write_text
from ...conversion.report import ConversionReport
from ...record import load_record, validate_record
from .conversion import conversion_overview, conversion_title
from .gather import RunPoint, check_runs, conversion_page_data, page_data
from .overview import overview, title_of
from .panels import sections
from .report_file import check_report, device_profiles
from .trace_file import FILE_NAME as TRACES_NAME
from .trace_file import Traces, check_traces, load_traces

PAGE = Path(__file__).parent / "page"
MAX_BYTES = 2_000_000
SCRIPTS = (
    "base.js", "chart.js", "prices.js", "energy.js", "whatif.js", "pareto.js", "steps.js",
    "sites.js", "training.js", "raster.js", "rates.js", "membrane.js", "map.js", "text.js",
    "start.js",
)


def write(
    run_or_record: str | os.PathLike[str] | Mapping[str, Any] | ConversionReport,
    out: str | os.PathLike[str] = "scope.html",
    report: Mapping[str, Any] | None = None, traces: Mapping[str, Any] | None = None,
    runs: Sequence[RunPoint | tuple[Any, ...]] = (),
) -> Path:
    """Writes a run as one HTML page that needs no network; returns its path.

    The page shows the verdict, spikes, rates, membranes, the activity of layers, training, energy
    against the ANN, what it would be on another device, and accuracy against cost over runs; of a
    conversion also every site, and accuracy and cost over time steps. A panel without data says
    why. The same input gives the same bytes.

    Args:
      run_or_record: the directory of a run, its ``record.json``, or the record as a dict. A
        ``traces.npz`` in the directory is read where ``traces`` is None. Or the report of a
        conversion, ``snn.report``, which is then all that the page shows.
      out: the file to write, ``.html``.
      report: of ``fs.energy.report``, schema "snn-energy/1".
      traces: spikes, membranes and tokens of one example, as in ``save_traces``.
      runs: others to compare with, ``(name, accuracy in percent, synaptic events, picojoules)``,
        the last two per inference or token, either of them None or left out.

    Raises:
      RecordError: on what is no record of a run, or one of a newer schema.
      ValueError: on a bad report, traces or runs, on any of them beside a conversion's report, or
        a page that would reach 2 MB.
      OSError: where ``out`` cannot be written. Nothing is written then.
    """
    where, out = "scope.write", Path(out)
    check(out.suffix == ".html", where, "out must end in .html", str(out))
    if isinstance(run_or_record, ConversionReport):
        check(report is None and traces is None and not runs, where,
              "the report of a conversion stands alone", "more beside it")
        page = _page(conversion_page_data(where, run_or_record.as_dict()))
    else:
        page = _page(_run_data(where, run_or_record, report, traces, runs))
    size = len(page.encode())
    check(size < MAX_BYTES, where, f"the page must stay below {MAX_BYTES} bytes", size,
          "trace fewer layers or neurons")
    write_text(out, page)
    return out


def _run_data(where: str, run: Any, report: Any, traces: Any, runs: Any) -> dict[str, Any]:
    """The data of the page of a run, everything checked."""
    record, stored = _read(run, traces is None)
    clean = stored if traces is None else check_traces(where, traces)
    if report is not None:
        check_report(f"{where}: report", report)
    points = check_runs(where, runs)
    profiles = {} if report is None else device_profiles(report)
    return page_data(record, None if report is None else dict(report), clean, points, profiles)


def _read(run: Any, with_traces: bool) -> tuple[dict[str, Any], Traces]:
    """The record, and the traces that lie beside it."""
    if isinstance(run, Mapping):
        record = dict(run)
        validate_record(record)
        return record, {}
    beside = Path(run) / TRACES_NAME
    traces = load_traces(beside) if with_traces and beside.is_file() else {}
    return load_record(run), traces


def _page(data: Mapping[str, Any]) -> str:
    """The template with every place filled, each once and none from within another."""
    style, script, record = _source("page.css"), page_script(), data["record"]
    alone = record is None
    title = conversion_title(data["conversion"]) if alone else title_of(record)
    places = {
        "title": escape(f"SpikeScope: {title}"),
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
                  "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "overview": conversion_overview(data["conversion"]) if alone else overview(data),
        "sections": sections(data),
        "footer": escape("Made by SpikeScope of fastsnn_jax. This page holds its data as JSON."),
        "data": embedded(data),
    }
    template = _source("page.html")
    return re.sub(r"\{(\w+)\}", lambda place: places[place[1]], template)


def page_script() -> str:
    """The page's own script: its files in order, inside one function, so that nothing leaks."""
    body = "\n".join(_source(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}}})();\n'


def embedded(data: Any) -> str:
    """JSON that can stand inside a ``<script>``: no text in it ends the element or opens a comment.

    >>> embedded({"layer": "</script>"})
    '{"layer":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What the content policy knows an inline element by: the digest of its text."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"

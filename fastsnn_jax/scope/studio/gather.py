"""The data of a page: the record and the report as they are, the traces packed for the browser."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._checks import check, check_number, fail
from ...activity import SATURATED_RATE
from .conversion import conversion_data
from .trace_file import Traces

RAREST = -9  # rates up to 2**RAREST share a bar
MAX_POINTS = 512
SCHEMA = "fastsnn-scope/1"


class RunPoint(NamedTuple):
    """Another run to compare with.

    ``accuracy`` in percent; ``events`` synaptic events and ``energy_pj`` picojoule, both per
    inference or token.
    """

    name: str
    accuracy: float
    events: float | None = None
    energy_pj: float | None = None


def page_data(
    record: dict[str, Any], report: dict[str, Any] | None, traces: Traces,
    runs: Sequence[RunPoint], profiles: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the page draws, as JSON; an entry without data is None.

    ``record``, ``report`` and ``profiles`` go in unchanged; the rest is made to be drawn.
    """
    return {
        "schema": SCHEMA,
        "axis": "token" if record["kind"] == "lm" else "step",
        "record": record,
        "report": report,
        "profiles": dict(profiles),
        "raster": _each(traces.get("raster"), _packed_spikes),
        "membrane": _each(traces.get("membrane"), _packed_values),
        "threshold": traces.get("threshold"),
        "rates": _rate_bars(traces),
        "map": _activity_map(record, report, traces),
        "text": _text(traces),
        "drift": _each(traces.get("drift"), lambda values: values.tolist()),
        "points": _points(record, report, runs),
        "conversion": _conversion(record),
    }


def conversion_page_data(where: str, conversion: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a page where the report of a conversion is all there is.

    Raises ValueError for one without sites; RecordError where a field is not what it should be.
    """
    shown = conversion_data(where, conversion)
    check(shown is not None, where, "a conversion's report must hold a site", "none")
    return {"schema": SCHEMA, "axis": "step", "record": None, "report": None, "conversion": shown}


def _conversion(record: Mapping[str, Any]) -> dict[str, Any] | None:
    if record["kind"] != "convert":
        return None
    return conversion_data("record.report", record["report"])


def _each(layers: Mapping[str, Any] | None, pack: Any) -> dict[str, Any] | None:
    return None if layers is None else {name: pack(array) for name, array in layers.items()}


def _packed_spikes(spikes: np.ndarray) -> dict[str, Any]:
    """Two bits a cell, low before high, steps outermost: 0, 1, 2, or 3 for 3 spikes and more."""
    level = np.minimum(spikes, 3)
    planes = [np.packbits((level >> bit) & 1) for bit in range(2 if level.max() > 1 else 1)]
    return {
        "steps": spikes.shape[0], "neurons": spikes.shape[1], "most": int(spikes.max()),
        "total": spikes.sum(0, dtype=np.int64).tolist(), "planes": [_base64(p) for p in planes],
    }


def _packed_values(values: np.ndarray) -> dict[str, Any]:
    """16 bits a value, little-endian, steps outermost: low + (high - low) * code / 65535."""
    low, high = float(values.min()), float(values.max())
    codes = (values.astype(np.float64) - low) * (65535 / (high - low) if high > low else 0.0)
    packed = _base64(np.round(codes).astype("<u2").tobytes())
    return {
        "steps": values.shape[0], "neurons": values.shape[1], "low": low, "high": high,
        "values": packed,
    }


def _base64(packed: Any) -> str:
    return base64.b64encode(bytes(packed)).decode("ascii")


def _rate_bars(traces: Traces) -> dict[str, Any] | None:
    """How many neurons fire how often, in bars that double: up to 2**first, then on to 1 and above.

    Without the rates of all neurons those of the raster stand in, and the page says so.
    """
    rates = traces.get("rates")
    source = "all neurons"
    if rates is None and "raster" in traces:
        rates = {name: spikes.mean(0) for name, spikes in traces["raster"].items()}
        source = "the neurons of the raster"
    if rates is None:
        return None
    most = max(float(values.max()) for values in rates.values())
    top = max(0, math.ceil(math.log2(most))) if most > 0 else 0
    edges = 2.0 ** np.arange(RAREST, top + 1)
    layers = {}
    for name, values in rates.items():
        bars = np.searchsorted(edges, values[values > 0], side="left")  # (edge[i-1], edge[i]]
        layers[name] = {
            "neurons": values.size, "dead": int((values == 0).sum()),
            "saturated": int((values >= SATURATED_RATE).sum()) if top == 0 else None,
            "mean": float(values.mean(dtype=np.float64)),
            "bars": np.bincount(bars, minlength=edges.size).tolist(),
        }
    return {"source": source, "first": RAREST, "layers": layers, "saturated_rate": SATURATED_RATE}


def _activity_map(
    record: Mapping[str, Any], report: Mapping[str, Any] | None, traces: Traces
) -> dict[str, Any] | None:
    """How active every layer is at every step, or at every token of a text."""
    if "token_spikes" in traces:
        channels = _channels(record, report)
        rows = traces["token_spikes"]
        known = all(channels.get(name) for name in rows)
        values = {name: row / (channels[name] if known else 1) for name, row in rows.items()}
        measure = "spikes per channel" if known else "spikes"
        return {"axis": "token", "measure": measure, "rows": _each(values, _rounded)}
    if "raster" in traces:
        values = {name: (spikes > 0).mean(1) for name, spikes in traces["raster"].items()}
        measure = "share of the raster's neurons that spike"
        axis = "token" if record["kind"] == "lm" else "step"
        return {"axis": axis, "measure": measure, "rows": _each(values, _rounded)}
    return None


def _channels(record: Mapping[str, Any], report: Mapping[str, Any] | None) -> dict[str, int]:
    """How many inputs each synapse has, from the report's counts or the record's."""
    recorded = {name: counts.get("channels") for name, counts in record["activity"].items()}
    counted = {} if report is None else {
        name: counts["inputs"] for name, counts in report["counts"].items()
    }
    return {name: int(size) for name, size in (recorded | counted).items() if size}


def _text(traces: Traces) -> dict[str, Any] | None:
    if "token_spikes" not in traces:
        return None
    return {"tokens": traces["tokens"], "spikes": _each(traces["token_spikes"], _rounded)}


def _rounded(values: np.ndarray) -> list[float]:
    """Six digits, and whole numbers without a point: a picture shows no more."""
    return [int(v) if v == int(v) else float(f"{v:.6g}") for v in values.tolist()]


def _points(
    record: Mapping[str, Any], report: Mapping[str, Any] | None, runs: Sequence[RunPoint]
) -> list[dict[str, Any]] | None:
    """Accuracy and cost of this run and of those to compare with; None where nothing is known."""
    own = run_point("this run", record, report)
    points = [*([] if own is None else [own]), *_other_conversions(record), *runs]
    return [point._asdict() for point in points] or None


def _other_conversions(record: Mapping[str, Any]) -> list[RunPoint]:
    """Those of a conversion run beside the one shown."""
    if record["kind"] != "convert":
        return []
    return [
        RunPoint(f"{row['method']}, N = {row['num_steps']}", row["test_accuracy"],
                 row["synaptic_events_per_inference"], row["energy_pj"][1])
        for place, row in enumerate(record["conversions"]) if place != record["shown"]
    ]


def run_point(
    name: str, record: Mapping[str, Any], report: Mapping[str, Any] | None = None
) -> RunPoint | None:
    """A run as a point to compare with; None where its record has no accuracy or no cost."""
    metrics = record["metrics"]
    accuracy = metrics.get("test_accuracy", metrics.get("accuracy"))
    events = metrics.get("event_syn_per_inference", metrics.get("synaptic_events_per_token"))
    energy = None if report is None else report["total"]["energy_pj"]["total"][1]
    known = accuracy is not None and (events is not None or energy is not None)
    return RunPoint(name, accuracy, events, energy) if known else None


def check_runs(where: str, runs: Any) -> list[RunPoint]:
    """The points to compare with; ValueError or TypeError unless each is a complete one."""
    check(isinstance(runs, Sequence) and len(runs) <= MAX_POINTS, where,
          f"runs must be a list of at most {MAX_POINTS} points", runs)
    points = []
    for run in runs:
        if not isinstance(run, Sequence) or isinstance(run, str) or not 3 <= len(run) <= 4:
            raise fail(where, "a run must be (name, accuracy, events, energy_pj)", repr(run))
        point = RunPoint(*run)
        check(isinstance(point.name, str), where, "the name of a run must be text", point.name)
        check_number(where, f"accuracy of {point.name}", point.accuracy, at_least=0, at_most=100)
        costs = [(name, cost) for name, cost in point._asdict().items()
                 if name in ("events", "energy_pj") and cost is not None]
        check(bool(costs), where, f"{point.name} must have events or energy_pj", "neither")
        for name, cost in costs:
            check_number(where, f"{name} of {point.name}", cost, at_least=0, at_most=1e300)
        points.append(point)
    return points

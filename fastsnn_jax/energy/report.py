"""The energy report: exact counts, a device profile, a mapping, and what follows from the three."""

import json
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fastsnn_jax._checks import check, check_choice, check_number
from fastsnn_jax.energy.accountant import COMPLETE
from fastsnn_jax.energy.break_even import (
    baseline_energy,
    break_even,
    floor,
    headroom,
    is_complete,
    spike_rate,
    spikes_per_synapse,
    verdict,
)
from fastsnn_jax.energy.interval import Interval
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.mapping import BASELINES, Mapping
from fastsnn_jax.energy.pricing import (
    FREE,
    PARTS,
    STATE_BITS,
    WEIGHT_BITS,
    amount,
    energy,
    event_bits,
    snn_bill,
    state_memory,
    unpriced,
    weight_memory,
)
from fastsnn_jax.energy.profiles import Profile, load_profile
from fastsnn_jax.energy.proxies import proxies
from fastsnn_jax.energy.schema import check_schema, read_schema

SCHEMA = "snn-energy/1"
SCHEMA_FILE = Path(__file__).parent / "report_schema.json"
UNITS = ("inference", "token")
_AS_ASSUMED = Mapping()
_PACKAGE = "fastsnn-jax"
_WORK = ("ac", "mac", "updates", "weight_bits", "state_bits", "event_bits")

Report = dict[str, Any]


def report(
    counts: Dictionary[str, LayerCounts], profile: Profile | str = "horowitz45",
    mapping: Mapping = _AS_ASSUMED, *, unit: str = "inference",
    health: Dictionary[str, Any] | None = None, coverage: float | None = None,
    warnings: Sequence[str] = (),
) -> Report:
    """Energy per inference or token, layer by layer, with bounds, baselines and a verdict.

    Args:
      counts: of every layer, in the order of the network, over the same samples; `count_layers`.
      profile: a profile, its name or the path of its JSON file.
      mapping: where numbers live, their widths, and the baseline of the verdict.
      unit: what ``samples`` counts, "inference" or "token".
      health: what is known of the neurons: "dead" and "saturated" (layer -> how many) and
        "peak_events_per_step"; whatever is missing is null.
      coverage: share of XLA's operations that the counts cover, from ``energy.count``.
      warnings: what the reader must know of the counts, put before the report's own.

    Returns:
      Plain JSON data that follows ``report_schema.json``. Energies are picojoules
      ``[low, nominal, high]``; what is not defined is None.

    Raises:
      ValueError: no counts, layers over different samples, a bad profile, health or coverage, or
        a mapping that the profile's memories do not fit.
    """
    profile = load_profile(profile)
    check_choice("report", "unit", unit, UNITS)
    check(len(counts) > 0, "report", "counts must hold a layer", "none")
    sizes = sorted({layer.samples for layer in counts.values()})
    check(len(sizes) == 1, "report", "all layers must be counted over the same samples", sizes)
    if coverage is not None:
        check_number("report", "coverage", coverage, at_least=0)
    samples = sizes[0]
    layers = {name: _Line(layer, profile, mapping) for name, layer in counts.items()}
    total = _total(list(layers.values()))
    whole = total["energy_pj"]["total"][1]
    partial = coverage is not None and coverage < COMPLETE
    made = {
        "schema": SCHEMA,
        "estimate": True,
        "tool": {"name": "fastsnn_jax", "version": _version()},
        "unit": unit,
        "samples": samples,
        "counts": {name: layer.to_json() for name, layer in counts.items()},
        "profile": profile.to_json(),
        "mapping": mapping.to_json(),
        "layers": {name: line.figures(whole) for name, line in layers.items()},
        "total": total,
        "proxies": proxies(counts),
        "coverage": coverage,
        "partial": partial,
        "warnings": [*warnings, *_warnings(layers, profile, partial)],
    }
    made["answers"] = _answers(made, counts, mapping, health or {})
    validate_report(made)
    return made


def to_bytes(report: Report) -> bytes:
    """The report as canonical JSON: the same report is the same bytes everywhere."""
    text = json.dumps(report, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def validate_report(report: Any, where: str = "report") -> None:
    """Raises ValueError, naming the field, unless ``report`` follows ``report_schema.json``."""
    check_schema(where, report, read_schema(SCHEMA_FILE))


class _Line:
    """One layer priced: its figures per sample."""

    def __init__(self, counts: LayerCounts, profile: Profile, mapping: Mapping) -> None:
        self.counts = counts
        self.bill = snn_bill(counts, profile, mapping)
        per_sample = 1 / counts.samples
        self.energy = {part: pj * per_sample for part, pj in energy(self.bill).items()}
        self.floor = floor(self.bill) * per_sample
        self.baselines = {
            name: None if pj is None else pj * per_sample
            for name in BASELINES
            for pj in [baseline_energy(counts, profile, mapping, name)]
        }
        self.baseline = self.baselines[mapping.baseline]
        self.complete = is_complete(counts, self.bill)
        self.break_even = break_even(counts, profile, mapping)
        levels = (weight_memory(counts, profile, mapping), state_memory(counts, profile, mapping))
        self.memories = [None if level is None else level.name for level in levels]

    def work(self) -> dict[str, float]:
        """Operations and traffic per sample."""
        totals = {
            **{name: getattr(self.counts, name) for name in ("ac", "mac", "updates")},
            "weight_bits": amount(self.bill, WEIGHT_BITS),
            "state_bits": amount(self.bill, STATE_BITS),
            "event_bits": self.counts.events * event_bits(self.counts),
        }
        return {name: value / self.counts.samples for name, value in totals.items()}

    def figures(self, whole: float) -> dict[str, Any]:
        """The layer's entry in a report; ``whole`` is the nominal energy of all layers."""
        return {
            "rate": spike_rate(self.counts),
            "spsi": spikes_per_synapse(self.counts),
            **self.work(),
            **_entry(self.energy, whole, self.baselines),
            "break_even_rate": self.break_even.rate,
            "break_even_spsi": self.break_even.spsi,
            "margin": self.break_even.margin,
            "verdict": verdict(self.energy["total"], self.baseline, self.floor, self.complete),
            "memories": dict(zip(("weights", "state"), self.memories, strict=True)),
        }


def _total(lines: list[_Line]) -> dict[str, Any]:
    """All layers together, the fields of a layer but rate and memories."""
    summed = {part: _sum([line.energy[part] for line in lines]) for part in (*PARTS, "total")}
    baselines = {name: _sum([line.baselines[name] for line in lines]) for name in BASELINES}
    baseline, still = _sum([line.baseline for line in lines]), _sum([x.floor for x in lines])
    spiking = [x.counts for x in lines if x.counts.drive == "spikes" and x.counts.connections]
    ac = sum(layer.ac / layer.samples for layer in spiking)
    synapses = sum(layer.connections for layer in spiking)
    spsi = ac / synapses if synapses else None
    assert still is not None, "every layer has a floor"
    energies = {part: interval or FREE for part, interval in summed.items()}
    whole = energies["total"]
    factor = None if baseline is None else headroom(
        baseline.nominal, still.nominal, whole.nominal - still.nominal
    )
    return {
        "spsi": spsi,
        **{name: sum(line.work()[name] for line in lines) for name in _WORK},
        **_entry(energies, whole.nominal, baselines),
        "break_even_rate": None,
        "break_even_spsi": None if factor is None or spsi is None else factor * spsi,
        "margin": None if factor is None else 1 / factor,
        "verdict": verdict(whole, baseline, still, all(line.complete for line in lines)),
    }


def _entry(
    energies: dict[str, Interval], whole: float, baselines: dict[str, Interval | None]
) -> dict[str, Any]:
    return {
        "energy_pj": {part: pj.to_json() for part, pj in energies.items()},
        "share": energies["total"].nominal / whole if whole else None,
        "baselines_pj": {
            name: None if pj is None else pj.to_json() for name, pj in baselines.items()
        },
    }


def _sum(terms: Sequence[Interval | None]) -> Interval | None:
    """The sum, or None where a term is."""
    known = [term for term in terms if term is not None]
    return sum(known, FREE) if len(known) == len(terms) else None


def _answers(
    made: Report, counts: Dictionary[str, LayerCounts], mapping: Mapping,
    health: Dictionary[str, Any],
) -> dict[str, Any]:
    """The questions that a report opens with."""
    layers = made["layers"]
    first = next(iter(counts))
    margin = layers[first]["margin"]
    dead, saturated = health.get("dead", {}), health.get("saturated", {})
    weight_bits = sum(layer.weights for layer in counts.values()) * mapping.weight_bits
    states = sum(layer.outputs * layer.state_words for layer in counts.values())
    return {
        "dominant_layer": max(layers, key=lambda name: layers[name]["energy_pj"]["total"][1]),
        "input_layer": first,
        "input_share": layers[first]["share"],
        "input_too_dense": margin is not None and margin > 1,
        "dead": {name: dead.get(name) for name in {**dict.fromkeys(counts), **dead}},
        "saturated": {name: saturated.get(name) for name in {**dict.fromkeys(counts), **saturated}},
        "peak_events_per_step": health.get("peak_events_per_step"),
        "weight_bytes": -(-weight_bits // 8),
        "state_bytes": -(-states * mapping.state_bits * mapping.batch // 8),
    }


def _warnings(lines: dict[str, _Line], profile: Profile, partial: bool) -> list[str]:
    found = []
    if partial:
        found.append(f"PARTIAL: less than {100 * COMPLETE:.0f} % of the work was counted")
    if profile.obsolete:
        found.append(f"{profile.name} is obsolete: for comparison with published tables only")
    if any(pj is None for line in lines.values() for pj in line.baselines.values()):
        found.append(f"{profile.name} cannot price every conventional network: no verdict there")
    missing: dict[str, float] = {}
    for line in lines.values():
        for item, number in unpriced(line.bill).items():
            missing[item] = missing.get(item, 0) + number / line.counts.samples
    if missing:
        items = ", ".join(f"{item} ({number:.6g})" for item, number in missing.items())
        found.append(f"{profile.name} has no price for, and the total leaves out: {items}")
    return found


def _version() -> str | None:
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return None

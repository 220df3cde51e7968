"""The energy report as text: answers first, then the table, other models, and what was assumed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastsnn_jax.energy.pricing import PARTS

_UNITS = (("pJ", 1.0), ("nJ", 1e3), ("uJ", 1e6), ("mJ", 1e9), ("J", 1e12))
_BASELINES = {"ann_float32": "ANN float32", "ann_int8": "ANN int8", "ann_matched": "ANN matched"}
_TITLE_WIDTH = 22


def format_report(report: Mapping[str, Any]) -> str:
    """A whole report as fixed-width text; undefined figures are shown as "-".

    The same report is the same text everywhere.
    """
    unit = report["unit"]
    blocks = {
        f"energy per {unit} on {report['profile']['name']}: {_stamp(report)}": _answers(report),
        f"work per {unit}": _work(report),
        f"energy per {unit}, nominal": _energy(report),
        "beside it, always: other models of the same counts": _proxies(report),
        "assumptions": _assumptions(report),
    }
    return "\n\n".join(
        "\n".join([title, *(f"  {line}".rstrip() for line in lines)])
        for title, lines in blocks.items()
    )


def compare_reports(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per report: what the runs cost, one below the other."""
    rows: list[Sequence[str]] = [
        ("run", "device", "unit", "energy", "low", "high", *_BASELINES.values(), "SPSI", "SPSI*",
         "margin", "verdict"),
    ]
    for name, report in reports.items():
        total = report["total"]
        low, nominal, high = total["energy_pj"]["total"]
        rows.append((
            name, report["profile"]["name"], report["unit"], joules(nominal), joules(low),
            joules(high), *_baselines(total), number(total["spsi"]),
            number(total["break_even_spsi"]), number(total["margin"]), total["verdict"],
        ))
    return "\n".join(table(rows))


def joules(picojoules: float | None) -> str:
    """An energy in the unit that suits it, "-" where there is none.

    >>> joules(27.9e6), joules(0.0339), joules(None)
    ('27.9 uJ', '0.0339 pJ', '-')
    """
    if picojoules is None:
        return "-"
    unit, size = next(
        ((unit, size) for unit, size in reversed(_UNITS) if picojoules >= size), _UNITS[0]
    )
    return f"{picojoules / size:.4g} {unit}"


def number(value: float | None, scale: float = 1.0) -> str:
    """A number with separators and at most five digits, "-" where there is none."""
    if value is None:
        return "-"
    value = value * scale
    return f"{value:,.0f}" if value >= 1e4 else f"{value:.5g}"


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned columns: the first and the last to the left, the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others, last in rows:
        inner = [cell.rjust(width) for cell, width in zip(others, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *inner, last]).rstrip())
    return lines


def _stamp(report: Mapping[str, Any]) -> str:
    return "PARTIAL ESTIMATE" if report["partial"] else "ESTIMATE"


def _answers(report: Mapping[str, Any]) -> list[str]:
    answers, layers, total = report["answers"], report["layers"], report["total"]
    dominant, first = answers["dominant_layer"], answers["input_layer"]
    name = report["mapping"]["baseline"]
    against = total["baselines_pj"][name]
    low, nominal, high = total["energy_pj"]["total"]
    entry = layers[first]
    dense = "too dense" if answers["input_too_dense"] else (
        "sparse enough" if entry["margin"] is not None else "no break-even"
    )
    return _pairs({
        "verdict": f"{total['verdict']}: {joules(nominal)} [{joules(low)}, {joules(high)}] against "
                   f"{joules(against and against[1])} of {_BASELINES[name]}",
        "dominant layer": f"{dominant}, {number(layers[dominant]['share'], 100)} % of the energy",
        "is the input too dense": f"{dense}: {first} at rate {number(entry['rate'], 100)} %, "
                                  f"break-even at {number(entry['break_even_rate'], 100)} %, "
                                  f"{number(entry['share'], 100)} % of the energy",
        "dead neurons": _by_layer(answers["dead"]),
        "saturated neurons": _by_layer(answers["saturated"]),
        "peak events per step": number(answers["peak_events_per_step"]),
        "memory": f"{answers['weight_bytes']:,} bytes of weights, "
                  f"{answers['state_bytes']:,} bytes of state",
    })


def _work(report: Mapping[str, Any]) -> list[str]:
    columns = ("ac", "mac", "updates", "weight_bits", "state_bits", "event_bits")
    rows: list[Sequence[str]] = [
        ("layer", "in", "out", "T", "rate %", "SPSI", "AC", "MAC", "updates", "weight bits",
         "state bits", "event bits", "memory"),
    ]
    for name, entry in report["layers"].items():
        counts, places = report["counts"][name], entry["memories"]
        held = ", ".join(dict.fromkeys(level for level in places.values() if level)) or "-"
        rows.append((
            name, *(f"{int(counts[key]):,}" for key in ("inputs", "outputs", "num_steps")),
            number(entry["rate"], 100), number(entry["spsi"]),
            *(number(entry[key]) for key in columns), held,
        ))
    total = report["total"]
    rows.append(("total", "", "", "", "", number(total["spsi"]),
                 *(number(total[key]) for key in columns), ""))
    return table(rows)


def _energy(report: Mapping[str, Any]) -> list[str]:
    rows: list[Sequence[str]] = [
        ("layer", *PARTS[:-1], "routing", "total", "low", "high", "share %",
         *_BASELINES.values(), "rate* %", "margin", "verdict"),
    ]
    for name, entry in {**report["layers"], "total": report["total"]}.items():
        parts = entry["energy_pj"]
        low, nominal, high = parts["total"]
        rows.append((
            name, *(joules(parts[part][1]) for part in PARTS), joules(nominal), joules(low),
            joules(high), number(entry["share"], 100), *_baselines(entry),
            number(entry["break_even_rate"], 100), number(entry["margin"]), entry["verdict"],
        ))
    return table(rows)


def _proxies(report: Mapping[str, Any]) -> list[str]:
    p = report["proxies"]
    published = (f"published {p['spikingbrain_published_pj_per_mac']:.4f} pJ, saves "
                 f"{100 * p['spikingbrain_published_saving_fp16']:.2f} % of fp16, "
                 f"{100 * p['spikingbrain_published_saving_int8']:.2f} % of int8")

    def pair(name: str, snn: str, ann: str | None, remark: str = "") -> tuple[str, ...]:
        return name, joules(p[snn]), joules(None if ann is None else p[ann]), remark

    return [
        f"notebook: {number(p['notebook_event_syn'])} synaptic events of "
        f"{number(p['notebook_dense'])} dense ones, ratio {number(p['notebook_ratio'])}",
        f"SpikingBrain, equation 24: {number(p['spikingbrain_pj_per_mac'])} pJ per MAC; "
        f"{published}",
        *table([
            ("model", "SNN", "ANN", ""),
            pair("Horowitz, arithmetic only", "horowitz_compute_only_pj", "horowitz_ann_pj"),
            pair("  neuron updates, not in it", "horowitz_updates_pj", None),
            pair("SpikingBrain, int8 sums", "spikingbrain_pj", "spikingbrain_ann_int8_pj"),
            pair("  int32 sums", "spikingbrain_int32_pj", "spikingbrain_int32_ann_pj"),
            pair("Lemaire, SRAM", "lemaire_pj", "lemaire_ann_pj"),
            pair("Yan, weights in DRAM", "yan_pj", "yan_ann_pj"),
            pair("KerasSpiking, Loihi", "keras_spiking_loihi_pj", "keras_spiking_cpu_pj",
                 "cpu of 2013"),
            pair("KerasSpiking, SpiNNaker2", "keras_spiking_spinnaker2_pj",
                 "keras_spiking_gpu_pj", "gpu of 2014"),
        ]),
    ]


def _assumptions(report: Mapping[str, Any]) -> list[str]:
    profile, coverage = report["profile"], report["coverage"]
    obsolete = ", OBSOLETE" if profile["obsolete"] else ""
    covered = "not measured" if coverage is None else f"{100 * coverage:.1f} % of XLA's operations"
    mapping = ", ".join(f"{key} {value}" for key, value in report["mapping"].items())
    lines = _pairs({
        "device": f"{profile['title']}; scope {profile['scope']}{obsolete}",
        "profile sha256": profile["sha256"],
        "mapping": mapping,
        "counted over": f"{report['samples']:,} samples; coverage {covered}",
        "left out": "leakage, control, clock; every layer has its memory to itself",
    })
    lines += [f"note: {note}" for note in profile.get("notes", ())]
    return lines + [f"warning: {warning}" for warning in report["warnings"]]


def _baselines(entry: Mapping[str, Any]) -> list[str]:
    return [joules(pj and pj[1]) for pj in (entry["baselines_pj"][name] for name in _BASELINES)]


def _by_layer(numbers: Mapping[str, int | None]) -> str:
    known = [f"{name} {value:,}" for name, value in numbers.items() if value is not None]
    return ", ".join(known) or "-"


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{title:<{_TITLE_WIDTH}}  {value}" for title, value in values.items()]

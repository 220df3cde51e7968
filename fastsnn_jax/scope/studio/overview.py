"""The first card of the page: the verdict, the figures and the answers, complete without a script.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from ...record.text import cell
from .blocks import facts, sentences, tiles
from .conversion import conversion_tiles, leftovers
from .panels import NO_REPORT
from .quantities import bits_text, count_text, energy_text, interval_text, percent_text

Json = Mapping[str, Any]

VERDICT_STYLE = {
    "wins": ("wins", "▲ "), "loses": ("loses", "▼ "), "undetermined": ("open", "◆ "),
    "cannot win at any rate": ("cannot", "■ "),
}
BASELINES = {
    "ann_matched": "bit-matched ANN", "ann_int8": "int8 ANN", "ann_float32": "float32 ANN",
}
PROXIES = {
    "notebook_event_syn": "synaptic events, as the notebook counts them",
    "notebook_dense": "dense operations of the notebook, synapses times steps",
    "notebook_ratio": "the notebook's ratio of the two",
    "horowitz_compute_only_pj": "Horowitz 2014, additions and products alone",
    "horowitz_ann_pj": "Horowitz 2014, the ANN's products alone",
    "spikingbrain_pj_per_mac": "SpikingBrain's equation 24, per MAC",
    "spikingbrain_pj": "SpikingBrain's equation 24",
}
SHARES = ("ratio", "saving")


def title_of(record: Json) -> str:
    """One line that names the run."""
    return f"{record['model_class']} on {record['dataset']['name']}, seed {record['seed']}"


def overview(data: Json) -> str:
    """The HTML of the card."""
    record, report = data["record"], data["report"]
    stamps = _stamps(report)
    parts = [
        '<section class="card wide" id="overview" aria-labelledby="overview-title">',
        f'<div class="head"><h1 id="overview-title">{escape(title_of(record))}</h1>{stamps}</div>',
        _verdict(report), tiles([*_task(record), *_conversion(data), *_cost(report)]),
    ]
    if data["conversion"] is not None:
        parts.append(sentences(leftovers(data["conversion"]), warning=True))
    if report is not None:
        parts += [
            sentences(_answers(report)), sentences(report["warnings"], warning=True),
            facts("Other ways to put a number on it, for comparison", _proxies(report)),
            facts("Device and mapping behind the estimate", _assumptions(report)),
        ]
    parts += [facts("The run", _facts(record)), "</section>"]
    return "\n".join(part for part in parts if part)


def _stamps(report: Json | None) -> str:
    if report is None:
        return ""
    stamps = ["ESTIMATE"] * report["estimate"] + ["PARTIAL"] * report["partial"]
    return "".join(f'<span class="stamp">{stamp}</span>' for stamp in stamps)


def _verdict(report: Json | None) -> str:
    if report is None:
        return f'<p class="reason">{escape(NO_REPORT)}</p>'
    verdict = report["total"]["verdict"]
    style, mark = VERDICT_STYLE[verdict]
    words = {
        "wins": "The spiking network wins against its ANN",
        "loses": "The spiking network loses against its ANN",
        "undetermined": "Undetermined: the intervals of the two networks overlap",
        "cannot win at any rate": "The spiking network cannot win at any rate",
    }[verdict]
    device = f"{report['profile']['name']}, {report['profile']['title']}"
    against = BASELINES[report["mapping"]["baseline"]]
    covered = report["coverage"]
    partial = ""
    if report["partial"]:
        share = "" if covered is None else f", {percent_text(covered)} of the operations"
        partial = f" Only part of the work is counted{share}."
    return (
        f'<p class="verdict"><span class="{style}">{mark}{escape(words)}</span></p>'
        f'<p class="lead">{escape(f"Exact counts, priced by {device}; against the {against}.")}'
        f"{escape(partial)}</p>"
    )


def _task(record: Json) -> list[tuple[str, str, str]]:
    metrics = record["metrics"]
    figures = [
        ("accuracy", metrics.get("test_accuracy", metrics.get("accuracy")), "{} %", ""),
        ("validation loss", metrics.get("val_loss"), "{}", "nats per token"),
        ("loss without spikes", metrics.get("ann_val_loss"), "{}", "the twin"),
    ]
    return [(name, form.format(cell(round(value, 4))), note)
            for name, value, form, note in figures if value is not None]


def _conversion(data: Json) -> list[tuple[str, str, str]]:
    metrics = data["record"]["metrics"]
    if data["record"]["kind"] != "convert":
        return []
    before, after = (count_text(metrics[f"{name}_per_inference"])
                     for name in ("dense_ops", "event_syn"))
    return [
        ("before conversion", f"{cell(round(metrics['ann_test_accuracy'], 4))} %",
         f"{cell(round(metrics['drop'], 4))} points are lost"),
        ("method", metrics["method"], f"N = {metrics['num_steps']}"),
        ("additions per inference", after, f"{before} multiply-adds before"),
        *([] if data["conversion"] is None else conversion_tiles(data["conversion"])),
    ]


def _cost(report: Json | None) -> list[tuple[str, str, str]]:
    if report is None:
        return []
    total, per = report["total"], report["unit"]
    figures = [
        (f"energy per {per}", energy_text(total["energy_pj"]["total"][1]),
         interval_text(total["energy_pj"]["total"])),
        *[(f"the {name}", energy_text(total["baselines_pj"][key][1]),
           interval_text(total["baselines_pj"][key]))
          for key, name in BASELINES.items() if total["baselines_pj"][key] is not None],
    ]
    if total["spsi"] is not None:
        figures.append(("spikes per synapse", cell(round(total["spsi"], 4)), f"per {per}"))
    if total.get("margin") is not None:
        figures.append(("margin", cell(round(total["margin"], 4)), "rate over break-even rate"))
    return figures


def _answers(report: Json) -> list[str]:
    answers, layers = report["answers"], report["layers"]
    name = answers["dominant_layer"]
    lines = []
    if name is not None:
        share = percent_text(layers[name]["share"]) if name in layers else "most"
        lines.append(f"{name} dominates: {share} of the energy.")
    if answers["input_share"] is not None:
        first = answers["input_layer"]
        lines.append(_input(first, layers[first]["margin"], percent_text(answers["input_share"])))
    for key in ("dead", "saturated"):
        known = {layer: n for layer, n in answers[key].items() if n is not None}
        found = ", ".join(f"{count_text(n)} in {layer}" for layer, n in known.items() if n)
        if known:
            lines.append(f"{key.capitalize()} neurons: {found or 'none'}.")
    if answers["peak_events_per_step"] is not None:
        lines.append(f"At most {count_text(answers['peak_events_per_step'])} events in one step.")
    lines.append(
        f"Weights take {bits_text(8 * answers['weight_bytes'])}, "
        f"states {bits_text(8 * answers['state_bytes'])}."
    )
    return lines


def _input(layer: str, margin: float | None, share: str) -> str:
    if margin is None:
        density = "has no rate at which it would break even"
    elif margin > 1:
        density = "is too dense, above its break-even rate"
    else:
        density = "is not too dense, it stays below its break-even rate"
    return f"The input of {layer} {density}; the layer takes {share} of the energy."


def _proxies(report: Json) -> list[tuple[str, str]]:
    rows = []
    for key, value in report["proxies"].items():
        words = PROXIES.get(key, key.removesuffix("_pj").replace("_", " "))
        form = energy_text if "_pj" in key else count_text
        if any(share in key for share in SHARES):
            form = percent_text
        rows.append((words, "–" if value is None else form(value)))
    return rows


def _assumptions(report: Json) -> list[tuple[str, str]]:
    rows = [(key, cell(value)) for key, value in report["profile"].items()
            if isinstance(value, (str, int, float, bool))]
    return rows + [(f"mapping: {key}", cell(value)) for key, value in report["mapping"].items()]


def _facts(record: Json) -> list[tuple[str, str]]:
    dataset = record["dataset"]
    return [
        ("dataset", f"{dataset['name']}, {dataset['source']}"), ("data sha256", dataset["sha256"]),
        ("recorded", record["timestamp"]), ("source", record["git_hash"] or "–"),
        *[(key, cell(value)) for key, value in record["versions"].items()],
        *[(f"device {key}", cell(value)) for key, value in record["device"].items()],
        *[(key, cell(value)) for key, value in record["metrics"].items()],
    ]

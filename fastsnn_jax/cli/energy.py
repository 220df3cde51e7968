"""The door to the energy of recorded runs."""

from pathlib import Path
from typing import Any

from fastsnn_jax import scope
from fastsnn_jax.cli.common import Parser, path, read_record
from fastsnn_jax.energy.files import save_report
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.profiles import load_profile
from fastsnn_jax.energy.report import report
from fastsnn_jax.energy.text import compare_reports, format_report
from fastsnn_jax.recipes.run_directory import runs_in
from fastsnn_jax.record import RecordError, energy_report

DESCRIPTION = """Says what recorded runs cost in energy on a device, against conventional networks.

    {command} RUN                         on 45 nm operations and memory
    {command} RUN RUN --device loihi1     several runs, another device
    {command} RUN --device my_chip.json   a profile of your own
    {command} RUN --json                  the report itself

RUN is the directory of a run, or its record.json. Figures are estimates: exact counts, cited
constants, stated assumptions; see docs/energy.md. --json prints one JSON document: an object for
one run, a list for several. --smoke takes a published example, 784-400-10 over 50 steps, instead
of runs.
"""
EXAMPLE = "example"


def main(arguments: list[str], command: str) -> Any:
    """Runs the command line and returns what its last line says."""
    options = build_parser(command).parse_args(arguments)
    if bool(options.runs) == bool(options.smoke):
        raise ValueError("expected at least one RUN, or --smoke without any")
    profile = load_profile(options.device)
    if options.smoke:
        records, reports = {}, {EXAMPLE: example_report(profile)}
    else:
        runs = [str(part) for run in options.runs for part in runs_in(run)]
        records = {run: read_record(run) for run in dict.fromkeys(runs)}
        reports = {run: run_report(run, record, profile) for run, record in records.items()}
    documents = list(reports.values())
    document = documents[0] if len(documents) == 1 else documents
    texts = [f"{name}\n\n{format_report(made)}" for name, made in reports.items()]
    text = "\n\n\n".join([*texts, compare_reports(reports)])
    if options.out:
        save_report(Path(options.out), document, text)
        if records:
            write_page(Path(options.out), records, reports)
    if options.json:
        return document
    print(text)
    return {
        "device": profile.name,
        "runs": {name: headline(made) for name, made in reports.items()},
        "out": options.out,
    }


def run_report(run: str, record: dict[str, Any], profile: Any) -> dict[str, Any]:
    """The energy report of one recorded run; RecordError names it where it has none."""
    try:
        return energy_report(record, profile)
    except RecordError as error:
        raise RecordError(f"{run}: {error}") from error


def write_page(out: Path, records: dict[str, Any], reports: dict[str, Any]) -> None:
    """SpikeScope of the first run; accuracy and cost beside those of the others of its kind."""
    first, *others = records
    points = [scope.run_point(run, records[run], reports[run]) for run in others
              if records[run]["kind"] == records[first]["kind"]]
    runs = [point for point in points if point is not None]
    scope.write(first, out / "scope.html", reports[first], runs=runs)


def example_report(profile: Any) -> dict[str, Any]:
    """784-400-10 over 50 steps, 409.875 input and 1000 hidden spikes in the mean of 8 images."""

    def layer(inputs: int, outputs: int, spikes: int, emitted: int) -> LayerCounts:
        samples, steps = 8, 50
        updates = samples * steps * outputs
        return LayerCounts(
            kind="synapse", drive="spikes", coding="binary", samples=samples, num_steps=steps,
            inputs=inputs, outputs=outputs, weights=inputs * outputs,
            connections=inputs * outputs, active=spikes, events=spikes, saturated=0,
            ac=spikes * outputs, mac=0, product=0, bias_add=updates, updates=updates,
            update_ops=(("add", 1), ("compare", 1), ("mul", 1), ("reset", 1)), elementwise=(),
            state_words=1, emitted=emitted, activation_words=0, kv_words=0,
        )

    hidden, output = layer(784, 400, 3279, 8000), layer(400, 10, 8000, 0)
    return report({"dense0/kernel": hidden, "dense1/kernel": output}, profile)


def headline(made: dict[str, Any]) -> dict[str, Any]:
    """The figures of a report that the last line shows; energies are nominal."""
    total = made["total"]
    return {
        "unit": made["unit"],
        "energy_pj": total["energy_pj"]["total"][1],
        "baselines_pj": {
            name: None if pj is None else pj[1] for name, pj in total["baselines_pj"].items()
        },
        "spsi": total["spsi"],
        "margin": total["margin"],
        "verdict": total["verdict"],
    }


def build_parser(command: str) -> Parser:
    """The flags."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    parser.add_argument("runs", type=path, metavar="RUN", nargs="*",
                        help="directory of a run, or its record")
    parser.add_argument("--device", metavar="NAME|FILE", default="horowitz45",
                        help="profile of a device, or a JSON file with one (default: horowitz45)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=path, metavar="DIR",
                        help="also write energy.json, energy.txt and scope.html there")
    parser.add_argument("--smoke", action="store_true", help="a published example, no run needed")
    return parser


"""The door to SpikeScope: a run as one page."""

from pathlib import Path
from typing import Any

from fastsnn_jax import scope
from fastsnn_jax.cli.common import Parser, path, read_record
from fastsnn_jax.recipes.scope_page import PAGE_FILE
from fastsnn_jax.record import energy_report

DESCRIPTION = """Writes a finished run as one offline page: spikes, rates, training, energy.

    {command} RUN                        the page of the run, scope.html beside its record
    {command} RUN --compare RUN2 RUN3    with others in its picture of accuracy against cost
    {command} RUN --device loihi1        priced by another device
"""


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line and returns where the page is."""
    options = build_parser(command).parse_args(arguments)
    record = read_record(options.run)
    folder = Path(options.run) if Path(options.run).is_dir() else Path(options.run).parent
    page = scope.write(
        options.run, Path(options.out) if options.out else folder / PAGE_FILE,
        report=_report(record, options.device),
        runs=[_point(run, record["kind"], options.device) for run in options.compare],
    )
    return {"page": str(page), "device": options.device, "compared": options.compare}


def build_parser(command: str) -> Parser:
    """The flags."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    parser.add_argument("run", type=path, metavar="RUN", help="directory of a run, or its record")
    parser.add_argument("--compare", type=path, metavar="RUN", nargs="+", default=[],
                        help="other runs to show beside it")
    parser.add_argument("--device", metavar="NAME|FILE", default="horowitz45",
                        help="profile of a device, or a JSON file with one (default: horowitz45)")
    parser.add_argument("--out", type=path, metavar="FILE",
                        help=f"the page, .html (default: {PAGE_FILE} beside the record)")
    return parser


def _report(record: dict[str, Any], device: str) -> dict[str, Any] | None:
    """None for a network without spikes."""
    return energy_report(record, device) if record["activity"] else None


def _point(run: str, kind: str, device: str) -> scope.RunPoint:
    """Accuracy and cost of another run of that kind."""
    record = read_record(run)
    if record["kind"] != kind:
        raise ValueError(f"{run}: expected a run of kind {kind} to compare, got {record['kind']}")
    report = _report(record, device)
    point = None if report is None else scope.run_point(Path(run).name, record, report)
    if point is None:
        raise ValueError(f"{run}: expected a run with an accuracy and spikes to compare, got none")
    return point

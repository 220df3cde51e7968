"""The door to the conversion recipe."""

from collections.abc import Callable
from typing import Any

from fastsnn_jax.cli.common import (
    Flags,
    Parser,
    add_common_flags,
    add_flags,
    given_fields,
    inspect,
    say,
    settle,
)
from fastsnn_jax.recipes import convert
from fastsnn_jax.record import conversion_table
from fastsnn_jax.train import stream_progress

DESCRIPTION = """Trains conventional networks on MNIST, turns them into spikes by every method, and
compares accuracy and energy over the number of time steps.

    {command}                              an MLP and a CNN, minutes each on two cores
    {command} --model cnn                  one of them
    {command} --num-steps 2,4 --methods max,qcfs
    {command} inspect DIR                  print the records of a run

Thresholds and fine-tuning see training images only; the test images are run once for each figure.
--data-dir holds MNIST either as TensorFlow Datasets prepared it or as its four IDX files, plain or
.gz. --smoke takes the first 640 training and 256 test images, two epochs, one method, N = 2.
"""
KIND = "convert"


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A type of a flag: several values of one kind, with commas between them."""

    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"list of {kind.__name__}"  # as argparse calls it in its complaints
    return parse


_FLAGS: Flags = {
    "dataset": ("dataset", str, "auto, mnist or digits"),
    "model": ("model", str, "mlp, cnn or both"),
    "methods": ("methods", listed(str), "of conversion, with commas between them"),
    "num_steps": ("num_steps", listed(int), "time steps N, with commas between them"),
    "calibration_samples": ("calibration_samples", int, "training images that set thresholds"),
    "epochs": ("epochs", int, "passes over the training images; None: what network and data need"),
    "batch_size": ("batch_size", int, "images per update"),
    "learning_rate": ("learning_rate", float, "of Adam"),
    "fine_tune_epochs": ("fine_tune_epochs", int, "of the converted network; 0: none"),
    "fine_tune_steps": ("fine_tune_steps", int, "N of the network that is fine-tuned"),
}


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line, prints the tables, and returns the headline figures by model."""
    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:], KIND, f"{command} inspect")
    options = build_parser(command).parse_args(arguments)
    given = given_fields(options, _FLAGS, ("seed", "smoke"))
    wanted = convert.preset(**given)  # in the form that a configuration has
    config, out = settle(options, "mnist_convert", convert.saved_config,
                         {name: getattr(wanted, name) for name in given},
                         lambda fields: convert.preset(**{**fields, **given}))
    records = convert.run(
        config, out, data_dir=options.data_dir, download=options.download,
        resume=bool(options.resume), say=say, progress=stream_progress(),
    )
    print("\n".join(conversion_table(record) for record in records.values()))
    return {name: convert.headline(record, out) for name, record in records.items()}


def build_parser(command: str) -> Parser:
    """The flags, with their defaults in the help."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    add_common_flags(parser)
    add_flags(parser, _FLAGS, convert.ConvertConfig)
    parser.add_argument("--download", action="store_true",
                        help="fetch and prepare MNIST first (needs TensorFlow)")
    return parser

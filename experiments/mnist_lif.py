"""Trains a surrogate-gradient LIF network on MNIST and records every spike.

    python -m experiments.mnist_lif                          best accuracy, 784-400-10, T=50
    python -m experiments.mnist_lif --protocol few-events    under 50,000 synaptic events
    python -m experiments.mnist_lif --protocol notebook      the MNIST notebook's own recipe
    python -m experiments.mnist_lif inspect DIR              print the record of a run
"""

import argparse
import sys
from typing import Any

from experiments._cli import Parser, add_common_flags, default_out, execute, say

_FLAGS = {  # field of the configuration: (type, what it is)
    "dataset": (str, "auto, mnist or digits"),
    "protocol": (str, "default, few-events or notebook"),
    "model": (str, "mlp or cnn"),
    "encoder": (str, "poisson, latency or direct"),
    "input_synapse": (str, "auto, dense or event"),
    "epochs": (int, "passes over the training images; None: 25 on MNIST, 80 on the digits"),
    "batch_size": (int, "images per update"),
    "num_steps": (int, "time steps of 1 ms"),
    "max_rate": (float, "Poisson rate of a white pixel in Hz"),
    "learning_rate": (float, "of Adam"),
}
_RENAMED = {"max_rate": "max_rate_hz"}


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    options = build_parser().parse_args(arguments)
    given = {
        _RENAMED.get(name, name): value for name, value in vars(options).items()
        if name in (*_FLAGS, "seed", "smoke") and value is not None
    }
    from fastsnn_jax.recipes import mnist
    from fastsnn_jax.train import stream_progress

    if options.resume:
        out, config = options.resume, mnist.saved_config(options.resume)
        if options.out or options.config:
            raise ValueError("--resume continues in its own directory with its own configuration; "
                             "leave out --out and --config")
        conflicts = [
            f"{name} is {getattr(config, name)}, not {value}" for name, value in given.items()
            if getattr(config, name) != value
        ]
        if conflicts:
            raise ValueError(f"--resume {out}: this run's " + "; ".join(conflicts))
    else:
        fields = {**(mnist.read_config(options.config) if options.config else {}), **given}
        config = mnist.preset(**fields)
        out = options.out or default_out("mnist_lif")
    record = mnist.run(
        config, out, data_dir=options.data_dir, download=options.download,
        resume=bool(options.resume), say=say, progress=stream_progress(),
    )
    return mnist.headline(record, out)


def inspect(arguments: list[str]) -> dict[str, Any]:
    """Prints a record readably and returns its headline figures."""
    from fastsnn_jax.recipes.mnist import headline
    from fastsnn_jax.record import format_record, load_record

    parser = Parser("Prints the record of a run.")
    parser.add_argument("directory", metavar="DIR")
    directory = parser.parse_args(arguments).directory
    record = load_record(directory)
    print(format_record(record))
    return headline(record, directory)


def build_parser() -> argparse.ArgumentParser:
    """The flags, with the defaults of the default protocol in their help."""
    from fastsnn_jax.recipes.mnist import MnistConfig

    parser = Parser(__doc__)
    add_common_flags(parser)
    for name, (kind, text) in _FLAGS.items():
        default = getattr(MnistConfig, _RENAMED.get(name, name))
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=name.upper(),
                            help=f"{text} (default: {default})")
    parser.add_argument("--download", action="store_true",
                        help="fetch and prepare MNIST first (needs TensorFlow)")
    return parser


if __name__ == "__main__":
    command = sys.argv[1:]
    if command[:1] == ["inspect"]:
        execute(lambda: inspect(command[1:]))
    execute(lambda: main(command))

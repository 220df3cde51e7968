"""Trains a surrogate-gradient LIF network on MNIST and records every spike.

    python -m experiments.mnist_lif                          best accuracy, 784-400-10, T=50
    python -m experiments.mnist_lif --protocol few-events    under 50,000 synaptic events
    python -m experiments.mnist_lif --protocol notebook      the MNIST notebook's own recipe
    python -m experiments.mnist_lif inspect DIR              print the record of a run

--data-dir holds MNIST either as TensorFlow Datasets prepared it or as its four IDX files, plain or
.gz. --smoke takes the first 640 training and 256 test images and, without --epochs, two epochs.
"""

import argparse
import sys
from typing import Any

from experiments._cli import (
    Parser,
    add_common_flags,
    default_out,
    execute,
    inspect,
    refuse_conflicts,
    say,
)

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
    "latency_window": (int, "steps over which latency spikes spread"),
    "learning_rate": (float, "of Adam"),
    "energy_weight": (float, "price of the synaptic operations that training can save"),
}
_RENAMED = {"max_rate": "max_rate_hz"}


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    from fastsnn_jax.config import read_fields
    from fastsnn_jax.recipes import mnist
    from fastsnn_jax.train import stream_progress

    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:], "mnist", mnist.headline)
    options = build_parser().parse_args(arguments)
    given = {
        _RENAMED.get(name, name): value for name, value in vars(options).items()
        if name in (*_FLAGS, "seed", "smoke") and value is not None
    }

    if options.resume:
        out, config = options.resume, mnist.saved_config(options.resume)
        refuse_conflicts(options, config, given)
    else:
        fields = {**(read_fields("config", options.config) if options.config else {}), **given}
        config = mnist.preset(**fields)
        out = options.out or default_out("mnist_lif")
    record = mnist.run(
        config, out, data_dir=options.data_dir, download=options.download,
        resume=bool(options.resume), say=say, progress=stream_progress(),
    )
    return mnist.headline(record, out)


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
    execute(lambda: main(sys.argv[1:]))

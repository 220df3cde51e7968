"""The door to the MNIST recipe."""

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
from fastsnn_jax.cli.cores import use_cores
from fastsnn_jax.recipes import mnist
from fastsnn_jax.train import stream_progress

DESCRIPTION = """Trains a surrogate-gradient LIF network on MNIST and records every spike.

    {command}                          best accuracy, 784-400-10, T=50
    {command} --protocol few-events    under 40,000 synaptic events
    {command} --protocol notebook      the MNIST notebook's own recipe
    {command} inspect DIR              print the record of a run

--data-dir holds MNIST either as TensorFlow Datasets prepared it or as its four IDX files, plain or
.gz. --smoke takes the first 640 training and 256 test images and, without --epochs, two epochs.
On a CPU up to as many JAX devices as cores share the batch, a power of 2 with 32 images or more
each: two at the default. JAX_NUM_CPU_DEVICES=1 in the environment keeps to one.
"""
_FLAGS: Flags = {
    "dataset": ("dataset", str, "auto, mnist or digits"),
    "protocol": ("protocol", str, "default, few-events or notebook"),
    "model": ("model", str, "mlp or cnn"),
    "encoder": ("encoder", str, "poisson, latency or direct"),
    "input_synapse": ("input_synapse", str, "auto, dense or event"),
    "epochs": ("epochs", int,
               "passes over the images; None: 25 on MNIST, 80 on the digits, notebook: 20"),
    "batch_size": ("batch_size", int, "images per update"),
    "num_steps": ("num_steps", int, "time steps of 1 ms"),
    "max_rate": ("max_rate_hz", float, "Poisson rate of a white pixel in Hz"),
    "latency_window": ("latency_window", int, "steps over which latency spikes spread"),
    "latency_winners": ("latency_winners", int, "how many of each 2 x 2 pixels may spike"),
    "learning_rate": ("learning_rate", float, "of Adam"),
    "energy_weight": ("energy_weight", float,
                      "price of the synaptic operations that training can save"),
}


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:], "mnist", f"{command} inspect")
    options = build_parser(command).parse_args(arguments)
    given = given_fields(options, _FLAGS, ("seed", "smoke"))
    config, out = settle(options, "mnist_lif", mnist.saved_config, given,
                         lambda fields: mnist.preset(**{**fields, **given}))
    use_cores(config.batch_size)
    record = mnist.run(
        config, out, data_dir=options.data_dir, download=options.download,
        resume=bool(options.resume), say=say, progress=stream_progress(),
    )
    return mnist.headline(record, out)


def build_parser(command: str) -> Parser:
    """The flags, with the defaults of the default protocol in their help."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    add_common_flags(parser)
    add_flags(parser, _FLAGS, mnist.MnistConfig)
    parser.add_argument("--download", action="store_true",
                        help="fetch and prepare MNIST first (needs TensorFlow)")
    return parser

"""Trains a surrogate-gradient LIF network on MNIST and records every spike.

    python -m experiments.mnist_lif                          best accuracy, 784-400-10, T=50
    python -m experiments.mnist_lif --protocol few-events    under 40,000 synaptic events
    python -m experiments.mnist_lif --protocol notebook      the MNIST notebook's own recipe
    python -m experiments.mnist_lif inspect DIR              print the record of a run

docs/mnist.md has what they give. The same as ``fastsnn train mnist``.
"""

import sys
from typing import Any

from experiments._cli import execute

COMMAND = "python -m experiments.mnist_lif"


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    from fastsnn_jax.cli import train_mnist

    return train_mnist.main(arguments, COMMAND)


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))

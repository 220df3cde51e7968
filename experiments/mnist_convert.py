"""Trains conventional networks on MNIST, turns them into spikes by every method, and compares.

    python -m experiments.mnist_convert                  an MLP and a CNN, minutes each on two cores
    python -m experiments.mnist_convert --model cnn      one of them
    python -m experiments.mnist_convert --num-steps 2,4 --methods max,qcfs
    python -m experiments.mnist_convert inspect DIR      print the records of a run

docs/mnist_convert.md has what they give. The same as ``fastsnn convert``.
"""

import sys
from typing import Any

from experiments._cli import execute

COMMAND = "python -m experiments.mnist_convert"


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures of each network."""
    from fastsnn_jax.cli import convert

    return convert.main(arguments, COMMAND)


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))

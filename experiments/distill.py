"""Distils a language model into a hybrid, spiking student with its own weights to begin with.

    python -m experiments.distill                        a small teacher first, minutes on two cores
    python -m experiments.distill --teacher DIR          a published model, or a run of spiking_lm
    python -m experiments.distill --attn softmax         spikes alone: attention stays
    python -m experiments.distill --no-spikes            attention alone
    python -m experiments.distill inspect DIR            print the record of a run

docs/distill.md has what they give. The same as ``fastsnn distill``.
"""

import sys
from typing import Any

from experiments._cli import execute

COMMAND = "python -m experiments.distill"


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    from fastsnn_jax.cli import distill

    return distill.main(arguments, COMMAND)


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))

"""Trains a spiking language model on text, counts its spikes and lets it write.

    python -m experiments.spiking_lm                          a small hybrid, minutes on two cores
    python -m experiments.spiking_lm --preset nanogpt-cpu     nanoGPT's CPU budget, Shakespeare
    python -m experiments.spiking_lm --compare-ann            its twin without spikes as well
    python -m experiments.spiking_lm --resume DIR --generate "To be"   text from a finished run
    python -m experiments.spiking_lm inspect DIR              print the record of a run

docs/language_model.md has what they give. The same as ``fastsnn train lm``.
"""

import sys
from typing import Any

from experiments._cli import execute

COMMAND = "python -m experiments.spiking_lm"


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    from fastsnn_jax.cli import train_lm

    return train_lm.main(arguments, COMMAND)


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))

"""Says what recorded runs cost in energy on a device, against conventional networks.

    python -m experiments.energy_table RUN                         on 45 nm operations and memory
    python -m experiments.energy_table RUN RUN --device loihi1     several runs, another device
    python -m experiments.energy_table RUN --device my_chip.json   a profile of your own
    python -m experiments.energy_table RUN --json                  the report itself

docs/energy.md has what the figures mean. The same as ``fastsnn energy``.
"""

import sys
from typing import Any

from experiments._cli import execute

COMMAND = "python -m experiments.energy_table"


def main(arguments: list[str]) -> Any:
    """Runs the command line and returns what its last line says."""
    from fastsnn_jax.cli import energy

    return energy.main(arguments, COMMAND)


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))

"""A tour of a minute: a language model run and trained, a network converted, priced and shown.

    python -m experiments.oneclick               leaves runs/oneclick/<time>/scope.html
    python -m experiments.oneclick --out DIR

Each step is printed with its result; a step that fails is named, and the exit status is not 0. The
same as ``fastsnn demo``.
"""

import sys
from typing import Any

from experiments._cli import execute

COMMAND = "python -m experiments.oneclick"


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the figures of every step."""
    from fastsnn_jax.cli import demo

    return demo.main(arguments, COMMAND)


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))

"""The door to the tour."""

from typing import Any

from fastsnn_jax.cli.common import Parser, add_out, default_out, say
from fastsnn_jax.recipes import tour

DESCRIPTION = """A tour of a minute: a spiking language model run and trained for ten steps, a
conventional network converted in one line, energy, and a page to look through.

    {command}
    {command} --out DIR --seed 3

Each step is printed with its result; a step that fails is named, and the exit status is not 0.
--smoke takes smaller networks.
"""


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line and returns the figures of every step."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    add_out(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--smoke", action="store_true", help="smaller networks")
    options = parser.parse_args(arguments)
    out = options.out or default_out("oneclick")
    return tour.run(out, seed=options.seed, smoke=options.smoke, say=say) | {"out": str(out)}

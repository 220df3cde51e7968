"""The console command: which words lead to which door."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from fastsnn_jax._checks import check
from fastsnn_jax.cli import convert, demo, distill, energy, generate, scope, train_lm, train_mnist
from fastsnn_jax.cli.common import execute, inspect

NAME = "fastsnn"


class Command(NamedTuple):
    """A door: ``run(arguments, command) -> figures``, and what it does in a line."""

    run: Callable[[list[str], str], Any]
    about: str


COMMANDS = {
    "demo": Command(demo.main, "a tour of a minute: every part once, with its figures"),
    "train mnist": Command(train_mnist.main, "a spiking classifier on MNIST, every spike counted"),
    "train lm": Command(train_lm.main, "a spiking language model on text"),
    "generate": Command(generate.main, "text from a trained language model"),
    "convert": Command(convert.main, "a conventional network to spikes, by every method"),
    "distill": Command(distill.main, "a trained language model to a hybrid, spiking one"),
    "energy": Command(energy.main, "what recorded runs cost on a device"),
    "scope": Command(scope.main, "a run as one page to look through"),
    "inspect": Command(lambda arguments, command: inspect(arguments, command=command),
                       "the record of a run as text"),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line, ``sys.argv`` by default, and exits."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    execute(lambda: run(given))


def run(arguments: list[str]) -> Any:
    """Goes through the door that the first words name; its figures.

    Raises:
      ValueError: no such door, or what the door refuses.
      SystemExit: after ``--help``, with 0, and on flags that are wrong, with 2.
    """
    if arguments[-1:] in ([], ["-h"], ["--help"]) and " ".join(arguments[:-1]) in ("", "train"):
        print(overview())
        raise SystemExit(0)
    for size in (2, 1):
        words = " ".join(arguments[:size])
        if words in COMMANDS:
            return COMMANDS[words].run(arguments[size:], f"{NAME} {words}")
    inner = [name for name in COMMANDS if name.startswith(arguments[0] + " ")]
    check(False, NAME, f"command must be one of {', '.join(inner or COMMANDS)}",
          repr(" ".join(arguments[:2] if inner else arguments[:1])), f"see {NAME} --help")


def overview() -> str:
    """Every command with what it does."""
    width = max(map(len, COMMANDS))
    lines = [f"  {NAME} {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join([
        "Spiking neural networks as pure JAX functions, with every spike counted.", "", *lines, "",
        f"{NAME} COMMAND --help has the flags of a command. Progress goes to standard error; the",
        "last line of standard output is one JSON object.",
    ])

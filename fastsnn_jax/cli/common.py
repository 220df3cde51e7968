"""What every command line shares: flags, exit codes, the last line.

Progress goes to standard error; the last line of standard output is one JSON object. Exit status:
0 done, 2 bad input or no room (one line says what), 130 interrupted, 1 a defect (its traceback).
"""

import argparse
import contextlib
import datetime
import json
import linecache
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from fastsnn_jax.config import read_fields
from fastsnn_jax.recipes import recipe_of
from fastsnn_jax.recipes.run_directory import CONFIG_FILE, runs_in
from fastsnn_jax.record import FILE_NAME, format_record, load_record

Flags = Mapping[str, tuple[str, Callable[[str], Any], str]]
"""Flag -> (field of the configuration, type, what it is)."""
Config = TypeVar("Config")
_OURS = ("fastsnn_jax", "experiments")


class Parser(argparse.ArgumentParser):
    """Parser whose complaints are one line and whose help shows defaults."""

    def __init__(self, description: str, command: str | None = None):
        super().__init__(
            prog=command, description=description, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)


def add_flags(parser: argparse.ArgumentParser, flags: Flags, config: Any) -> None:
    """A flag for each field of a configuration, with the field's value as the default told."""
    for flag, (field, kind, text) in flags.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", type=kind, metavar=flag.upper(),
                            help=f"{text} (default: {getattr(config, field)})")


def given_fields(
    options: argparse.Namespace, flags: Flags, others: Sequence[str] = ()
) -> dict[str, Any]:
    """Field -> value of the flags that were given; ``others`` are called as their fields are."""
    fields = {flag: field for flag, (field, *_) in flags.items()} | {name: name for name in others}
    return {
        field: getattr(options, flag) for flag, field in fields.items()
        if getattr(options, flag) is not None
    }


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that are the same wherever something is trained."""
    add_out(parser)
    parser.add_argument("--resume", type=path, metavar="DIR",
                        help="continue the run in DIR, with its configuration")
    parser.add_argument("--seed", type=int, help="of everything random (default: 0)")
    parser.add_argument("--smoke", action="store_true", default=None,
                        help="a few hundred samples only, to see in a minute that everything runs")
    parser.add_argument("--data-dir", type=path, metavar="DIR",
                        help="where the data lies (default: TFDS_DATA_DIR, else "
                             "~/tensorflow_datasets)")
    parser.add_argument("--config", type=path, metavar="FILE",
                        help="JSON or YAML file with fields of the configuration; flags win over "
                             "it")


def add_out(parser: argparse.ArgumentParser) -> None:
    """The flag --out of a run."""
    parser.add_argument("--out", type=path, metavar="DIR",
                        help="directory of the run (default: runs/<experiment>/<time>)")


def default_out(experiment: str) -> Path:
    """Directory for a run without --out."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / experiment / f"{now}-{os.getpid()}"


def say(line: str) -> None:
    """Tells the user, on standard error."""
    print(line, file=sys.stderr, flush=True)


def settle(
    options: argparse.Namespace, experiment: str, saved: Callable[[str], Config],
    given: dict[str, Any], build: Callable[[dict[str, Any]], Config],
) -> tuple[Config, str | Path]:
    """Configuration and directory of the run that the flags ask for.

    Args:
      experiment: whose runs a new one without --out is among.
      saved: the configuration that the run in a directory, to be resumed, began with.
      given: fields that flags set, and which that configuration must have.
      build: the configuration of a new run, from the fields of --config.

    Raises ValueError, TypeError for what contradicts the run to resume, or is no configuration.
    """
    if options.resume:
        config = saved(options.resume)
        refuse_conflicts(options, config, given)
        return config, options.resume
    fields = read_fields("config", options.config) if options.config else {}
    return build(fields), options.out or default_out(experiment)


def refuse_conflicts(options: argparse.Namespace, config: Any, given: dict[str, Any]) -> None:
    """Raises ValueError where flags contradict the configuration of the run to resume."""
    if options.out or options.config:
        raise ValueError("--resume continues in its own directory with its own configuration; "
                         "leave out --out and --config")
    conflicts = [
        f"{name} is {getattr(config, name)}, not {value}" for name, value in given.items()
        if getattr(config, name) != value
    ]
    if conflicts:
        raise ValueError(f"--resume {options.resume}: this run's " + "; ".join(conflicts))


def read_record(directory: str | Path) -> dict[str, Any]:
    """The record of a finished run, from its directory or file.

    Raises ValueError where the run was begun and has no record yet, has none that is sound, or one
    for each of several models.
    """
    run, *others = runs_in(directory)
    if others:
        raise ValueError(f"{directory}: expected one run, got {1 + len(others)}; name one of "
                         f"{', '.join(map(str, (run, *others)))}")
    begun, finished = ((run / name).exists() for name in (CONFIG_FILE, FILE_NAME))
    if begun and not finished:
        raise ValueError(f"{directory}: expected a finished run, got one without a record yet; "
                         f"continue it with --resume {directory}")
    return load_record(run)


def inspect(
    arguments: list[str], kind: str | None = None, command: str | None = None
) -> dict[str, Any]:
    """Prints the record of a finished run readably and returns its headline figures.

    ``kind`` is the only one to take; None takes any. Of a run of several models it is a record for
    each, and headlines by the names of the models.
    """
    parser = Parser("Prints the record of a run.", command)
    parser.add_argument("directory", type=path, metavar="DIR")
    directory = parser.parse_args(arguments).directory
    figures = {}
    for run in runs_in(directory):
        record = read_record(run)
        if kind not in (None, record["kind"]):
            raise ValueError(f"{run}: expected a run of kind {kind}, got {record['kind']}")
        print(format_record(record))
        figures[run.name] = recipe_of(record).headline(record, run)
    return figures if len(figures) > 1 else next(iter(figures.values()))


def execute(main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Runs ``main``, prints what it returns as the last line, and exits."""
    signal.signal(signal.SIGINT, _leave)  # until training, which saves first, puts its own there
    try:
        print(json.dumps(main()), flush=True)
        status = 0
    except BrokenPipeError:  # whoever reads has read enough
        status = 0
    except (ValueError, TypeError, OSError, OverflowError, MemoryError, RuntimeError) as error:
        if not is_refusal(error):
            raise
        say("error: " + " ".join((str(error) or type(error).__name__).split()))
        status = 2
    except KeyboardInterrupt as interrupt:
        say(str(interrupt) or "interrupted")
        status = 130
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    # Not sys.exit: after Ctrl-C the interpreter would wait for a compilation to finish.
    os._exit(status)


def is_refusal(error: Exception) -> bool:
    """Whether bad input or a lack of room raised ``error``, and not a defect of the program.

    A refusal is a ValueError or TypeError that a ``raise`` of ours ends in; one that comes out of
    any other expression was not foreseen. The system and the memory refuse from anywhere.
    """
    if isinstance(error, (OSError, OverflowError, MemoryError)):
        return True
    if isinstance(error, RuntimeError):  # what jax raises when a device's memory is full
        return str(error).startswith("RESOURCE_EXHAUSTED")
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    ours = str(frame.f_globals.get("__package__")).partition(".")[0] in _OURS
    source = linecache.getline(frame.f_code.co_filename, line)
    return ours and source.lstrip().startswith("raise ")


def path(text: str) -> str:
    """A path as it was given; an empty one is a mistake, as of a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def _leave(number, frame) -> NoReturn:
    """Exits at once: a KeyboardInterrupt that strikes inside a garbage collection would be lost."""
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(130)

"""What every experiment's command line shares: flags, exit codes, the last line.

Progress goes to standard error; the last line of standard output is one JSON object. Exit status:
0 done, 2 bad input (one line says what), 130 interrupted.
"""

import argparse
import datetime
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Parser whose complaints are one line and whose help shows defaults."""

    def __init__(self, description: str):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that are the same in every experiment."""
    parser.add_argument("--out", metavar="DIR",
                        help="directory of the run (default: runs/<experiment>/<time>)")
    parser.add_argument("--resume", metavar="DIR",
                        help="continue the run in DIR, with its configuration")
    parser.add_argument("--seed", type=int, help="of everything random (default: 0)")
    parser.add_argument("--smoke", action="store_true", default=None,
                        help="a few hundred samples only, to see that everything runs")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies (default: "
                        "TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    parser.add_argument("--config", metavar="FILE",
                        help="JSON file with fields of the configuration; flags win over it")


def default_out(experiment: str) -> Path:
    """Directory for a run without --out."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / experiment / f"{now}-{os.getpid()}"


def say(line: str) -> None:
    """Tells the user, on standard error."""
    print(line, file=sys.stderr, flush=True)


def execute(main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Runs ``main``, prints what it returns as the last line, and exits."""
    signal.signal(signal.SIGINT, _leave)  # until training, which saves first, puts its own there
    try:
        figures = main()
    except (ValueError, TypeError, OSError) as error:
        say("error: " + " ".join(str(error).split()))
        status = 2
    except KeyboardInterrupt as interrupt:
        say(str(interrupt) or "interrupted")
        status = 130
    else:
        print(json.dumps(figures), flush=True)
        status = 0
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after Ctrl-C the interpreter would wait for a compilation to finish.
    os._exit(status)


def _leave(number, frame) -> NoReturn:
    """Exits at once: a KeyboardInterrupt that strikes inside a garbage collection would be lost."""
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(130)

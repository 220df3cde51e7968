"""What every experiment starts with: Ctrl-C, before the seconds that importing the library takes.

Everything else that command lines share is in ``fastsnn_jax.cli``.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn


def execute(main: Callable[[], Any]) -> NoReturn:
    """Runs ``main``, prints what it returns as the last line, and exits."""
    signal.signal(signal.SIGINT, _leave)
    from fastsnn_jax import cli

    cli.execute(main)


def _leave(number, frame) -> NoReturn:
    """Exits at once: nothing is begun yet that would have to be left in order."""
    os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(130)

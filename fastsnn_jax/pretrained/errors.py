"""What goes wrong with checkpoints of other libraries, as one type of error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastsnn_jax._checks import fail


class PretrainedError(ValueError):
    """A checkpoint that is missing, damaged, unsupported or at odds with itself: one line."""


def pretrained_error(where: Any, expected: str, got: Any, remedy: str = "") -> PretrainedError:
    """Returns the PretrainedError to raise: ``where: expected, got ...; remedy``, on one line."""
    return PretrainedError(" ".join(str(fail(str(where), expected, got, remedy)).split()))


@contextlib.contextmanager
def faults_of(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turns what is wrong with what ``path`` holds into a PretrainedError that names it.

    Args:
      path: a file or directory.
      also: further types of errors that its reader raises.
    """
    try:
        yield
    except PretrainedError:
        raise
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, *also) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PretrainedError(f"{path}: {reason.removeprefix(f'{path.name}: ')}") from error

"""Files written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; renames it into place when the block succeeds.

    What stood at ``path`` stays until then, and after any error. Raises OSError when the disk
    refuses.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` as UTF-8, all of it or nothing."""
    with written_whole(path) as scratch:
        scratch.write_text(text, encoding="utf-8")

"""Files written whole or not at all, directories made, JSON objects read."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastsnn_jax._checks import fail


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


def make_directory(where: str, path: Path) -> None:
    """Makes ``path`` and those above it; ValueError where a file is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise fail(where, "out must be a directory", f"a file in {path}") from error


def parse_object(text: str, **fields: type) -> dict[str, Any]:
    """The JSON object in ``text``; ValueError unless it has ``fields`` of those types."""
    found = json.loads(text)
    for name, kind in fields.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            raise ValueError(f"a file without {name}")
    return found

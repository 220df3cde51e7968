"""Texts as bytes, with the place where training ends: Shakespeare, Python's sources, a user's file.
"""

import platform
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastsnn_jax.data.dataset import data_error
from fastsnn_jax.data.prepared import find_prepared, read_prepared

STDLIB_BYTES = 1_000_000
NOT_A_TEXT = "give the path of a text file of your own"


class Text(NamedTuple):
    """A text in UTF-8, uint8 [n]; training sees the first ``num_train`` bytes, and no other."""

    name: str
    source: str
    data: np.ndarray
    num_train: int


def find_shakespeare(directory: Path) -> Path | None:
    """Where tiny_shakespeare lies prepared under ``directory``; DataError if it is unreadable."""
    try:
        return find_prepared(directory, "tiny_shakespeare")
    except OSError as error:
        raise data_error(directory, "a directory that can be searched", error) from error


def read_shakespeare(path: Path) -> Text:
    """Tiny Shakespeare from a prepared TFDS directory: 1,115,394 bytes, the first 90 % to train on.

    TFDS cuts the text twice, into train, validation and test; here the last two are one part again,
    the 10 % on which nanoGPT reports its loss. Raises DataError when files are missing or corrupt.

    Source: A. Karpathy, The Unreasonable Effectiveness of Recurrent Neural Networks, 2015.
    """
    parts = [
        b"".join(row["text"] for row in read_prepared(path, split))
        for split in ("train", "validation", "test")
    ]
    data = np.frombuffer(b"".join(parts), np.uint8)
    return Text("tiny_shakespeare", f"prepared TFDS directory {path}", data, len(parts[0]))


def read_stdlib() -> Text:
    """Sources of Python's standard library: its first modules by name, whole, up to 1 MB.

    Modules only, no packages, hence no tests; and none with a leading underscore, since some of
    those are written for one machine. Another Python version gives another text: compare hashes.
    Raises DataError where Python was installed without its sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    modules: dict[str, bytes] = {}
    try:
        for path in sorted(folder.glob("[!_]*.py"), key=lambda path: path.name):
            source = path.read_bytes()
            if sum(map(len, modules.values())) + len(source) > STDLIB_BYTES:
                break
            modules[path.stem] = source
    except OSError as error:
        raise data_error(folder, "readable sources", error, NOT_A_TEXT) from error
    if not modules:
        raise data_error(folder, "the standard library's sources", "none", NOT_A_TEXT)
    first, last = next(iter(modules)), next(reversed(modules))
    data = np.frombuffer(b"".join(modules.values()), np.uint8)
    version = platform.python_version()
    source = f"Python {version} standard library, {len(modules)} modules from {first} to {last}"
    return Text("stdlib", source, data, _nine_tenths(data))


def map_file(path: Path) -> Text:
    """A file mapped into memory, not read; the first 90 % of its bytes to train on.

    Raises DataError when it is missing, empty, unreadable or no plain file.
    """
    try:
        if not path.exists():
            raise data_error(
                path, "auto, tiny_shakespeare, stdlib or the path of a text file", "no such file"
            )
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "something else"
            raise data_error(path, "a text file", kind)
        if path.stat().st_size == 0:
            raise data_error(path, "a text", "an empty file")
        data = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise data_error(path, "a readable text file", error) from error
    return Text(path.name, f"text file {path}", data, _nine_tenths(data))


def _nine_tenths(data: np.ndarray) -> int:
    """Nine tenths of the bytes, less what would be the beginning of a character cut in two."""
    end = data.size * 9 // 10
    is_inner = data[max(end - 3, 0):end + 1] & 0b1100_0000 == 0b1000_0000  # of a UTF-8 character
    steps_back = int(np.argmin(is_inner[::-1]))  # 0 if all four are: then it is not UTF-8
    return end - steps_back

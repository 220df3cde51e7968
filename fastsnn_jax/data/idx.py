"""IDX files, plain or gzipped: the format in which MNIST was published."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from fastsnn_jax.data.dataset import data_error

UINT8_CODE = 0x08  # third byte of the magic number; the fourth is the number of axes
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | Path, num_axes: int) -> np.ndarray:
    """Reads a whole IDX file of unsigned bytes with ``num_axes`` axes.

    Layout: ``00 00 08 num_axes``, then one big-endian uint32 per axis, then the values in row-major
    order, and nothing after them. Whether the file is gzipped is read from its first two bytes.
    Raises DataError when the file is unreadable, corrupt, of another type, too short or too long.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database, file formats.
    """
    try:
        with open(path, "rb") as raw:
            zipped = raw.peek(2)[:2] == GZIP_MAGIC
            with gzip.GzipFile(fileobj=raw) if zipped else raw as stream:
                return _read(path, stream, num_axes)
    except (OSError, EOFError, zlib.error) as error:
        raise data_error(path, "a readable IDX file", error, "copy the file again") from error


def _read(path: str | Path, stream, num_axes: int) -> np.ndarray:
    magic = bytes([0, 0, UINT8_CODE, num_axes])
    start = stream.read(4)
    if start != magic:
        raise data_error(
            path, f"IDX magic {magic.hex(' ')} (unsigned bytes, {num_axes} axes) or gzip",
            start.hex(" ") or "an empty file",
        )
    sizes = stream.read(4 * num_axes)
    if len(sizes) < 4 * num_axes:
        raise data_error(path, f"{num_axes} axis lengths", f"{len(sizes)} bytes; truncated")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    count = math.prod(shape)
    if count == 0:
        raise data_error(path, "at least one value", f"shape {list(shape)}")
    values = stream.read()  # to the end, where gzip verifies its checksum
    if len(values) != count:
        got = f"only {len(values)}; truncated" if len(values) < count else "trailing bytes"
        raise data_error(path, f"{count} values for shape {list(shape)}", got)
    return np.frombuffer(values, np.uint8).reshape(shape)

"""The safetensors format: a header that says where each array lies, then the arrays.

    8 bytes little endian: N  |  N bytes of JSON  |  the arrays, one after the other

The JSON maps names to ``{"dtype", "shape", "data_offsets": [begin, end]}``, counted from its end,
and ``__metadata__`` to texts. Nothing in it is believed before it has been held against the size
of the file: huggingface.co/docs/safetensors, "Format".
"""

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastsnn_jax.pretrained.errors import faults_of, pretrained_error

MAX_HEADER = 100_000_000  # bytes, the format's own limit
MAX_AXES = 8
NUMPY_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}
_FIELDS = ["data_offsets", "dtype", "shape"]


class Stored(NamedTuple):
    """An array in a file, of which nothing has been read yet.

    Attributes:
      path: of the file.
      dtype: NumPy's name of it.
      shape: its shape.
      offset: of its first byte in the file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> np.ndarray:
        """The array, mapped into memory: its bytes are read when they are used."""
        with faults_of(self.path):
            if 0 in self.shape:
                return np.zeros(self.shape, jnp.dtype(self.dtype))
            return np.memmap(self.path, jnp.dtype(self.dtype), "r", self.offset, self.shape)


def read_header(path: Path) -> dict[str, Stored]:
    """The arrays of a file, by name; reads its header alone.

    Raises:
      PretrainedError: if the file is missing, cut short or longer than it says, or its header is
        no such JSON, is too long, names a dtype that is unknown or an array twice, or places the
        arrays otherwise than one after the other.
    """
    with faults_of(path):
        if not path.is_file():
            raise pretrained_error(path, "it must be a file", "none")
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise pretrained_error(
                    path, f"its header must be 2 to {min(MAX_HEADER, max(size - 8, 2))} bytes long",
                    length, "the file is cut short or no safetensors file",
                )
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_distinct)
        if not isinstance(header, dict):
            raise pretrained_error(path, "its header must be an object", type(header).__name__)
        header.pop("__metadata__", None)
        stored = {name: _entry(path, name, entry) for name, entry in header.items()}
        _check_places(path, stored, size - 8 - length)
    return {
        name: Stored(path, dtype, shape, 8 + length + begin)
        for name, (dtype, shape, begin, _) in stored.items()
    }


def write_arrays(
    path: Path, arrays: Mapping[str, Any], transposed: Collection[str] = ()
) -> None:
    """Writes arrays to a new file, one in memory at a time, some of them transposed.

    Raises OSError when the disk refuses, and leaves what it wrote to be removed.
    """
    names = {numpy_name: name for name, numpy_name in NUMPY_NAMES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # what transformers asks for
    begin = 0
    for name, array in arrays.items():
        end = begin + array.nbytes
        header[name] = {
            "dtype": names[str(array.dtype)], "data_offsets": [begin, end],
            "shape": list(array.shape[::-1] if name in transposed else array.shape),
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in arrays.items():
            array = np.asarray(array).T if name in transposed else np.asarray(array)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"{name!r} must stand in the header once, got it twice")
        fields[name] = value
    return fields


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape, begin and end of an array, after a check of each by itself."""
    if not isinstance(entry, dict) or sorted(entry) != _FIELDS:
        raise pretrained_error(path, f"{name} must have the fields {', '.join(_FIELDS)}",
                               f"{entry!r:.200}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMPY_NAMES:
        raise pretrained_error(path, f"dtype of {name} must be one of {', '.join(NUMPY_NAMES)}",
                               f"{dtype!r:.200}")
    if not _are_counts(shape) or len(shape) > MAX_AXES:
        raise pretrained_error(path, f"shape of {name} must be at most {MAX_AXES} counts",
                               f"{shape!r:.200}")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise pretrained_error(path, f"data_offsets of {name} must be two counts",
                               f"{offsets!r:.200}")
    begin, end = offsets
    needed = math.prod(shape) * jnp.dtype(NUMPY_NAMES[dtype]).itemsize
    if end - begin != needed:
        raise pretrained_error(path, f"{name} must be {needed} bytes long, {dtype} {shape}",
                               end - begin)
    return NUMPY_NAMES[dtype], tuple(shape), begin, end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_places(path: Path, stored: Mapping[str, tuple[Any, Any, int, int]], size: int) -> None:
    """The arrays must follow one another and fill the file."""
    reached = 0
    for name, (_, _, begin, end) in sorted(stored.items(), key=lambda item: item[1][2:]):
        if begin != reached:
            raise pretrained_error(path, f"{name} must begin at byte {reached}, where the array "
                                   "before it ends", begin)
        reached = end
    if reached != size:
        raise pretrained_error(path, f"its arrays must take {reached} bytes, as its header says",
                               size, "the file is cut short or was added to")

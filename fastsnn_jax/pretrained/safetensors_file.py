"""Arrays in safetensors files, by the package of that format: huggingface.co/docs/safetensors."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fastsnn_jax.pretrained.errors import faults_of, pretrained_error


class Stored(NamedTuple):
    """An array in a file, of which nothing has been read yet.

    Attributes:
      path: of the file.
      name: in the file.
      dtype: as the format spells it: "F32", "BF16", ...
      shape: its shape.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """A copy of the array, read alone from the file, which is mapped into memory."""
        with faults_of(self.path, SafetensorError), safe_open(self.path, "np") as file:
            return file.get_tensor(self.name)


def read_header(path: Path) -> dict[str, Stored]:
    """The arrays of a file, by name; reads its header alone.

    Raises:
      PretrainedError: if the file is missing, cut short, longer than its header says, or damaged.
    """
    with faults_of(path, SafetensorError):
        if not path.is_file():
            raise pretrained_error(path, "it must be a file", "none")
        with safe_open(path, "np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {
                name: Stored(path, name, part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }


def write_arrays(
    path: Path, arrays: Mapping[str, Any], transposed: Collection[str] = ()
) -> None:
    """Writes arrays to a file, some of them transposed, under a copy of them all in memory.

    Raises PretrainedError when the disk refuses, and leaves what it wrote to be removed.
    """
    on_host = {
        name: np.ascontiguousarray(np.asarray(array).T if name in transposed else array)
        for name, array in arrays.items()
    }
    with faults_of(path, SafetensorError):
        save_file(on_host, path, {"format": "pt"})  # which is what transformers asks for

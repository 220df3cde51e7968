"""The arrays of a checkpoint directory, in one file or in several."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsnn_jax.pretrained.errors import faults_of, pretrained_error
from fastsnn_jax.pretrained.safetensors_file import Stored, read_header

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_JSON = 100_000_000  # bytes
SHOWN = 20  # how many names a message holds


def find_arrays(directory: Path) -> dict[str, Stored]:
    """The arrays of ``model.safetensors``, or of the files its index names; reads no weights.

    Raises:
      PretrainedError: if there are neither, a file is damaged, or the index does not say just what
        the files hold, or names files outside the directory.
    """
    single, index = directory / WEIGHTS_FILE, directory / INDEX_FILE
    if single.exists():
        return read_header(single)
    if not index.exists():
        found = sorted(path.name for path in directory.iterdir() if path.is_file())
        raise pretrained_error(
            directory, f"it must hold {WEIGHTS_FILE} or {INDEX_FILE}", shown(found) or "no files",
            "weights in pickles (.bin, .pt) are never read: convert them first",
        )
    places = _places(index)
    arrays: dict[str, Stored] = {}
    for file in sorted(set(places.values())):
        named = {name for name, place in places.items() if place == file}
        held = read_header(directory / file)
        check_names(f"{directory / file} against {INDEX_FILE}", named, set(held))
        arrays |= held
    return arrays


def check_names(where: str, expected: set[str], found: set[str]) -> None:
    """Raises PretrainedError naming what is missing and what is too many."""
    faults = [
        f"{kind} {shown(sorted(names))}"
        for kind, names in (("missing", expected - found), ("too many", found - expected)) if names
    ]
    if faults:
        raise pretrained_error(where, f"the {len(expected)} arrays must be there and no others",
                               "; ".join(faults))


def shown(items: Sequence[str], separator: str = ", ") -> str:
    """The first of them, and how many more there are."""
    more = f"{separator}and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return separator.join(items[:SHOWN]) + more


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; PretrainedError naming it when there is none."""
    with faults_of(path):
        if not path.is_file():
            raise pretrained_error(path, "it must be a file", "none")
        size = path.stat().st_size
        if size > MAX_JSON:
            raise pretrained_error(path, f"it must be at most {MAX_JSON} bytes", size)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise pretrained_error(path, "it must be a readable JSON file", error) from error
        if not isinstance(fields, dict):
            raise pretrained_error(path, "it must hold an object", type(fields).__name__)
    return fields


def _places(index: Path) -> dict[str, str]:
    """File of each array, by name: plain names of files beside the index and nothing else."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise pretrained_error(index, "weight_map must map arrays to files", f"{places!r:.200}")
    for name, file in places.items():
        plain = isinstance(file, str) and file.endswith(".safetensors") and not (
            set(file) & set("/\\:\0") or file.startswith(".")
        )
        if not plain:
            raise pretrained_error(
                index, f"the file of {name} must be the plain name of a .safetensors file beside "
                "it", f"{file!r:.200}")
    return places

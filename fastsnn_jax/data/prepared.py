"""Prepared TensorFlow Datasets directories, read without TensorFlow.

Everything is looked up on disk first: asked for a dataset that is not there, TFDS would try the
network for minutes.
"""

import importlib.util
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsnn_jax.data.dataset import data_error


def find_prepared(directory: Path, name: str) -> Path | None:
    """The newest version of dataset ``name`` under ``directory``, or None.

    ``directory`` is a TFDS root (``directory/name/version``), or one of the two levels below it.
    Raises DataError when a description there cannot be read, or names a format that needs
    TensorFlow.
    """
    found = {}
    for path in (directory, *directory.glob("*"), *directory.glob(f"{name}/*")):
        info_path = path / "dataset_info.json"
        if info_path.is_file():
            info = _read_info(info_path)
            if info.get("name") == name:
                found[_version(info)] = path, info
    if not found:
        return None
    path, info = found[max(found)]
    if info.get("fileFormat") != "array_record":
        raise data_error(
            path, "file format array_record, which is read without TensorFlow",
            info.get("fileFormat"), 'prepare it with tfds.builder(..., file_format="array_record")',
        )
    return path


def read_prepared(path: Path, split: str, undecoded: Sequence[str] = ()) -> list[Mapping[str, Any]]:
    """All examples of a split, in file order; features named in ``undecoded`` stay bytes.

    Raises DataError when files are missing or corrupt.
    """
    import tensorflow_datasets as tfds

    decoders: Any = {feature: tfds.decode.SkipDecoding() for feature in undecoded}
    try:
        builder = tfds.builder_from_directory(path)
        source: Any = builder.as_data_source(split=split, decoders=decoders)
        return list(source.__getitems__(range(len(source))))
    except (OSError, RuntimeError, ValueError, LookupError) as error:  # what TFDS and readers raise
        raise data_error(
            path, f"a readable split {split!r}", error, "prepare or copy the dataset again"
        ) from error


def download_prepared(directory: Path, name: str) -> Path:
    """Downloads and prepares a dataset under ``directory``; returns its path.

    Prepared beside its place and moved there when whole, so a failure leaves nothing behind.
    Raises DataError when TensorFlow, which preparing needs, is not installed, or when the download
    fails.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise data_error(
            f"download of {name}", "TensorFlow, which preparing the files needs", "none installed",
            "pip install tensorflow, or put MNIST's four IDX files into a directory of your own",
        )
    import tensorflow_datasets as tfds

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as staging:
            builder = tfds.builder(name, data_dir=staging, file_format="array_record")
            builder.download_and_prepare()
            prepared = Path(builder.data_dir)
            target = directory / prepared.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            return prepared.rename(target)
    except (OSError, RuntimeError, ValueError, tfds.download.DownloadError) as error:
        raise data_error(f"download of {name}", "a finished download", error) from error


def _read_info(path: Path) -> dict:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise data_error(path, "a readable description", error) from error
    if not isinstance(info, dict):
        raise data_error(path, "a JSON object", type(info).__name__)
    return info


def _version(info: dict) -> tuple[int, ...]:
    return tuple(int(part) for part in str(info.get("version")).split(".") if part.isdecimal())

"""The directory of a run: who may write into it, and what it was begun with."""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastsnn_jax._checks import fail
from fastsnn_jax._files import make_directory, parse_object, write_text
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.record import FILE_NAME, load_record
from fastsnn_jax.train import Interrupted

Config = TypeVar("Config")
CONFIG_FILE, CHECKPOINTS = "config.json", "checkpoints"


def begin(out: Path, config: Mapping[str, Any], dataset_sha256: str) -> None:
    """Takes ``out`` for a run that starts; ValueError when it holds one already or is a file."""
    if any((out / name).exists() for name in (CONFIG_FILE, FILE_NAME, CHECKPOINTS)):
        raise fail("run", "out must be a directory without a run", out, "resume it instead")
    make_directory("run", out)
    text = json.dumps({"config": config, "dataset_sha256": dataset_sha256}, indent=2)
    write_text(out / CONFIG_FILE, text + "\n")


def check_resumable(out: Path, config: Mapping[str, Any], dataset_sha256: str) -> None:
    """Raises CheckpointError unless ``out`` holds a sound run with this configuration and data."""
    begun, sha256 = _read(out, dict)
    if sha256 != dataset_sha256:
        raise CheckpointError(
            f"{out}: this run was trained on other data; point --data-dir to the same files"
        )
    if begun != config:
        raise CheckpointError(f"{out}: this run was begun with another configuration")
    if (checkpoints := Checkpoints(out / CHECKPOINTS)).labels():
        checkpoints.restore()  # a damaged one is refused before anything starts


def finished_record(out: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the run in ``out``, None where it is not finished.

    Raises CheckpointError where that run was begun with another configuration, RecordError where
    its record is damaged.
    """
    if not (out / FILE_NAME).exists():
        return None
    if _read(out, dict)[0] != config:
        raise CheckpointError(f"{out}: this run was begun with another configuration")
    return load_record(out)


def resumable(stopped: Interrupted, out: Path, data_dir: str | Path | None) -> Interrupted:
    """The same interruption, with the flags to go on with; only the data's digest binds a run."""
    flags = ["--resume", str(out)] + ([] if data_dir is None else ["--data-dir", str(data_dir)])
    return Interrupted(f"{stopped}; continue with {shlex.join(flags)}")


def read_begun(out: str | Path, build: Callable[[dict[str, Any]], Config]) -> Config:
    """The configuration the run in ``out`` began with, which ``build`` makes of its JSON data.

    Raises CheckpointError when there is none or it is damaged.
    """
    return _read(out, build)[0]


def runs_in(directory: str | Path) -> list[Path]:
    """The runs that a directory holds: itself, or, of a run of several models, theirs."""
    directory = Path(directory)
    inner = directory.iterdir() if (directory / CONFIG_FILE).exists() else ()
    return sorted(path for path in inner if (path / CONFIG_FILE).exists()) or [directory]


def _read(out: str | Path, build: Callable[[dict[str, Any]], Config]) -> tuple[Config, str]:
    path = Path(out) / CONFIG_FILE
    if not path.exists():
        raise CheckpointError(f"{out}: expected a run with {CONFIG_FILE}, got none")
    try:
        text = path.read_text(encoding="utf-8")
        saved = parse_object(text, config=dict, dataset_sha256=str)
        return build(saved["config"]), saved["dataset_sha256"]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected the configuration of a run, got {error}; start it anew elsewhere"
        ) from error

"""Checkpoints of a run on disk: written whole or not at all, verified before they are read.

``directory/00000007/`` is one checkpoint: an Orbax composite with one item per pytree (nested
dicts of arrays), and ``manifest.json`` with the host's journal, the name, dtype and shape of
every array and the SHA-256 of every file. All of it is written under another name and renamed at
the end, so a killed write leaves no checkpoint; its leftovers go at the next save. The newest
two are kept. A finished checkpoint that does not verify is an error that names it: it is never
passed over in silence.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fastsnn_jax._files import parse_object

KEPT = 2
_SPARE_BYTES = 2**20  # for the manifest and what Orbax adds
_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished"
# What Orbax and TensorStore raise on full disks, lost rights and bad files.
_IO_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)


class CheckpointError(ValueError):
    """A checkpoint could not be written, found, read or matched."""


class Checkpoint(NamedTuple):
    """What ``Checkpoints.restore`` returns: its path, the pytrees by name, the journal."""

    path: Path
    items: dict[str, Any]
    journal: dict[str, Any]


class Checkpoints:
    """The checkpoints below one directory.

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> path = checkpoints.save({"params": {"w": np.arange(3.0)}}, {"epoch": 1})
    >>> checkpoints.restore().items["params"]["w"], checkpoints.restore().journal
    (array([0., 1., 2.]), {'epoch': 1})
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory).expanduser().resolve()

    def labels(self) -> list[int]:
        """Numbers of the finished checkpoints, those with a manifest, oldest first."""
        return [label for label in self._numbers() if (self.path(label) / _MANIFEST).exists()]

    def path(self, label: int) -> Path:
        """Where checkpoint ``label`` lies."""
        return self.directory / f"{label:08d}"

    def prepare(self) -> None:
        """Makes the directory, clears what a killed write left and loads Orbax, before time counts.

        Raises:
          CheckpointError: if the directory cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob(f"*{_UNFINISHED}*"):
                shutil.rmtree(leftover)
            (probe := self.directory / f"probe{_UNFINISHED}").mkdir()
            probe.rmdir()
        except OSError as error:
            raise self._cannot_write(self.directory, error) from error
        with _orbax():
            pass

    def save(self, items: dict[str, Any], journal: dict[str, Any]) -> Path:
        """Writes the next checkpoint and returns its path; earlier ones stay until it is whole.

        Args:
          items: pytrees of arrays by name.
          journal: what JSON can hold; floats come back exactly.
        Raises:
          CheckpointError: if it cannot be written (no space, no rights).
        """
        nested = {name: _nested(tree) for name, tree in jax.device_get(items).items()}
        path = self.path(max(self._numbers(), default=-1) + 1)
        unfinished = path.with_name(path.name + _UNFINISHED)
        self.prepare()
        self._check_space(path, nested)
        try:
            with _orbax() as ocp, ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
                parts = {name: ocp.args.StandardSave(tree) for name, tree in nested.items()}
                writer.save(unfinished, args=ocp.args.Composite(**parts))
            arrays = {name: _specs(_named(tree)) for name, tree in nested.items()}
            _write_manifest(unfinished, journal, arrays)
            unfinished.rename(path)
        except _IO_ERRORS as error:
            for leftover in self.directory.glob(f"{unfinished.name}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            raise self._cannot_write(path, error) from error
        for label in self.labels()[:-KEPT]:
            # Renamed first: a kill during the removal must not leave half a checkpoint.
            old = self.path(label)
            shutil.rmtree(old.rename(old.with_name(old.name + _UNFINISHED)))
        return path

    def restore(self, like: dict[str, Any] | None = None) -> Checkpoint:
        """Reads the newest checkpoint.

        Args:
          like: templates by name. An item with a template comes back in its structure, after a
            check of names, shapes and dtypes; others as nested dicts of numpy arrays.
        Raises:
          CheckpointError: if there is none, it is damaged, or it does not match a template.
        """
        labels = self.labels()
        if not labels:
            raise CheckpointError(f"checkpoint: no finished checkpoint in {self.directory}")
        path = self.path(labels[-1])
        try:
            manifest = _read_manifest(path)
            with _orbax() as ocp, ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                parts = {
                    name: ocp.args.StandardRestore(_templates(specs))
                    for name, specs in manifest["arrays"].items()
                }
                nested = reader.restore(path, args=ocp.args.Composite(**parts))
        except _IO_ERRORS as error:
            remedy = "remove it to go back to the one before" if len(labels) > 1 else "start anew"
            raise CheckpointError(
                f"checkpoint: {path} is damaged: {_first_line(error)}; {remedy}"
            ) from error
        items = {}
        for name in parts:
            template = (like or {}).get(name)
            items[name] = (
                nested[name] if template is None else _fill(path, name, template, nested[name])
            )
        return Checkpoint(path, items, manifest["journal"])

    def _check_space(self, path: Path, nested: dict[str, Any]) -> None:
        """Refuses a full disk beforehand: Orbax's threads would print their own tracebacks."""
        size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(nested))
        needed, free = size + _SPARE_BYTES, shutil.disk_usage(self.directory).free
        if free < needed:
            raise self._cannot_write(path, OSError(f"it needs {needed:,} bytes, {free:,} are free"))

    def _cannot_write(self, path: Path, error: BaseException) -> CheckpointError:
        intact = "; earlier ones are intact" if self.labels() else ""
        return CheckpointError(f"checkpoint: cannot write {path}: {_first_line(error)}{intact}")

    def _numbers(self) -> list[int]:
        names = [path.name for path in self.directory.glob("*")]
        return sorted(int(name) for name in names if re.fullmatch(r"\d{8}", name))


def _write_manifest(path: Path, journal: Any, arrays: dict[str, Any]) -> None:
    manifest = {"journal": journal, "arrays": arrays, "files": _file_digests(path)}
    text = json.dumps(manifest, sort_keys=True)
    (path / _MANIFEST).write_text(json.dumps({"sha256": _sha256(text.encode()), "manifest": text}))


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, after a check of every file: TensorStore must never meet a bad one."""
    sealed = parse_object((path / _MANIFEST).read_text(), sha256=str, manifest=str)
    if sealed["sha256"] != _sha256(sealed["manifest"].encode()):
        raise ValueError(f"{_MANIFEST} does not match its checksum")
    manifest = parse_object(sealed["manifest"], journal=dict, arrays=dict, files=dict)
    found = _file_digests(path)
    for name, digest in manifest["files"].items():
        if found.get(name) != digest:
            raise ValueError(f"{name} is {'changed' if name in found else 'missing'}")
    return manifest


def _file_digests(path: Path) -> dict[str, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != _MANIFEST)
    return {str(file.relative_to(path)): _sha256(file.read_bytes()) for file in files}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _nested(tree: Any) -> dict[str, Any]:
    """The tree as nested dicts of numpy arrays, keyed by field, key or position."""
    nested: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        _put(nested, _path(keys), np.asarray(leaf))
    return nested


def _path(keys: Any) -> tuple[str, ...]:
    fields = ("key", "name", "idx")
    names = [str(getattr(key, f)) for key in keys for f in fields if hasattr(key, f)]
    return tuple(names) or ("value",)


def _named(nested: Any, parents: tuple[str, ...] = ()) -> dict[tuple[str, ...], np.ndarray]:
    """Leaves of nested dicts by their path, in order of the paths."""
    if not isinstance(nested, dict):
        return {parents: np.asarray(nested)}
    leaves: dict[tuple[str, ...], np.ndarray] = {}
    for name in sorted(nested):
        leaves |= _named(nested[name], (*parents, name))
    return leaves


def _specs(leaves: dict[tuple[str, ...], np.ndarray]) -> list[list[Any]]:
    return [[list(path), str(leaf.dtype), list(leaf.shape)] for path, leaf in leaves.items()]


def _templates(specs: list[list[Any]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, dtype, shape in specs:
        _put(nested, path, np.zeros(shape, jax.numpy.dtype(dtype)))
    return nested


def _put(nested: dict[str, Any], path: Sequence[str], leaf: np.ndarray) -> None:
    for name in path[:-1]:
        nested = nested.setdefault(name, {})
    nested[path[-1]] = leaf


def _fill(path: Path, item: str, template: Any, nested: Any) -> Any:
    """The leaves of ``nested`` in the structure of ``template``."""
    expected, found = _shown(_nested(template)), _shown(nested)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"checkpoint: {path} is of another model or optimiser: {item}/{name} should be "
                f"{expected.get(name, 'absent')}, got {found.get(name, 'absent')}"
            )
    by_path = _named(nested)
    leaves = [by_path[_path(keys)] for keys, _ in jax.tree_util.tree_leaves_with_path(template)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _shown(nested: Any) -> dict[str, str]:
    return {"/".join(path): f"{dtype}{shape}" for path, dtype, shape in _specs(_named(nested))}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Imports Orbax and silences its remarks through absl for the while."""
    import orbax.checkpoint as ocp

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield ocp
    finally:
        logger.setLevel(level)

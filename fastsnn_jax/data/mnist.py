"""MNIST from disk: a prepared TFDS directory or the four IDX files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fastsnn_jax.data.dataset import Dataset, Examples, data_error
from fastsnn_jax.data.directory import data_directory
from fastsnn_jax.data.idx import read_idx
from fastsnn_jax.data.png import decode_grey_pngs
from fastsnn_jax.data.prepared import download_prepared, find_prepared, read_prepared

SIDE = 28
REMEDY = (
    "point data_dir (--data-dir) or TFDS_DATA_DIR to a directory with MNIST's IDX files or with "
    "mnist prepared by tensorflow_datasets, or download it (--download)"
)


def load_mnist(data_dir: str | Path | None = None, download: bool = False) -> Dataset:
    """Loads MNIST: 60,000 + 10,000 images ``uint8[n, 28, 28, 1]``, in the order of the files.

    ``data_dir``, else ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets`` holds either a prepared
    TFDS directory (``mnist/3.0.1``, array_record; about 4 s) or the four IDX files, plain or .gz
    (under 1 s), directly or in ``mnist/`` or ``MNIST/raw/``. The network is used with ``download``
    only. Raises DataError when there is none, or when it is incomplete or corrupt.
    """
    directory = data_directory(data_dir, REMEDY)
    read = find_mnist(directory)
    if read is None and download:
        read = partial(_read_tfds, download_prepared(directory, "mnist"))
    if read is None:
        missing = "a directory without it" if directory.is_dir() else "no such directory"
        raise data_error(directory, "MNIST", missing, REMEDY)
    return read()


def find_mnist(directory: Path) -> Callable[[], Dataset] | None:
    """The reader of the MNIST in ``directory``, or None; raises DataError on an incomplete one."""
    try:
        prepared = find_prepared(directory, "mnist")
        if prepared is not None:
            return partial(_read_tfds, prepared)
        for folder in (directory, directory / "mnist", directory / "MNIST" / "raw"):
            found = {stem: _find_idx(folder, stem) for stem in _IDX_STEMS}
            files = {stem: path for stem, path in found.items() if path is not None}
            missing = [stem for stem in _IDX_STEMS if stem not in files]
            if not missing:
                return partial(_read_idx_files, folder, files)
            if files:
                raise data_error(folder, "MNIST's four IDX files", f"no {', no '.join(missing)}")
        return None
    except OSError as error:
        raise data_error(directory, "a directory that can be searched", error) from error


_IDX_STEMS = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)


def _find_idx(folder: Path, stem: str) -> Path | None:
    """The file of that name, plain before gzipped; some copies have a dot before idx."""
    names = (stem, stem.replace("-idx", ".idx"))
    paths = [folder / f"{name}{suffix}" for suffix in ("", ".gz") for name in names]
    return next((path for path in paths if path.is_file()), None)


def _read_idx_files(folder: Path, files: dict[str, Path]) -> Dataset:
    arrays = [read_idx(files[stem], num_axes=3 if "images" in stem else 1) for stem in _IDX_STEMS]
    return _mnist(Examples(*arrays[:2]), Examples(*arrays[2:]), f"IDX files in {folder}")


def _read_tfds(path: Path) -> Dataset:
    parts = {}
    for split in ("train", "test"):
        rows = read_prepared(path, split, undecoded=("image",))
        images = decode_grey_pngs([row["image"] for row in rows], f"{path} {split}")
        parts[split] = Examples(images, np.array([row["label"] for row in rows]))
    return _mnist(parts["train"], parts["test"], f"prepared TFDS directory {path}")


def _mnist(train: Examples, test: Examples, source: str) -> Dataset:
    for images, _ in (train, test):
        if images.shape[1:] != (SIDE, SIDE):
            raise data_error(source, f"images of {SIDE} x {SIDE}", list(images.shape))
    return Dataset(
        name="mnist",
        train_images=train.images[..., None],
        train_labels=train.labels.astype(np.int32),
        test_images=test.images[..., None],
        test_labels=test.labels.astype(np.int32),
        source=source,
    )

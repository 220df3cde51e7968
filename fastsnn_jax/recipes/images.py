"""The images of a run, whole or a few hundred of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastsnn_jax.data import Dataset, load_images

SMOKE_SIZES = {"train": 640, "test": 256}


def load_dataset(
    name: str, smoke: bool, data_dir: str | Path | None = None, download: bool = False,
    say: Callable[[str], Any] = lambda line: None,
) -> Dataset:
    """A dataset of `load_images`; ``say`` is told what it is, and of a fallback.

    Args:
      name, data_dir, download: as ``load_images`` takes them.
      smoke: the first of its images only, see `SMOKE_SIZES`.

    Raises DataError as ``load_images``.
    """
    dataset = load_images(name, data_dir, download, warn=say)
    if smoke:
        sizes = SMOKE_SIZES
        dataset = Dataset(
            dataset.name, *(part[: sizes["train"]] for part in dataset.train),
            *(part[: sizes["test"]] for part in dataset.test), source=dataset.source,
        )
    say(f"data: {dataset.name}, {len(dataset.train_labels)} training and "
        f"{len(dataset.test_labels)} test images from {dataset.source}")
    return dataset

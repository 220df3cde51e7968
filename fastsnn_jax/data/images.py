"""The one door to image data: by name, with an honest fallback."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastsnn_jax._checks import check_choice
from fastsnn_jax.data.dataset import Dataset, data_error
from fastsnn_jax.data.digits import load_digits
from fastsnn_jax.data.directory import data_directory
from fastsnn_jax.data.mnist import REMEDY, find_mnist, load_mnist

IMAGE_DATASETS = ("auto", "mnist", "digits")


def load_images(
    dataset: str = "auto", data_dir: str | Path | None = None, download: bool = False,
    warn: Callable[[str], Any] = warnings.warn,
) -> Dataset:
    """Loads "mnist", "digits", or with "auto" MNIST where there is one and else the digits.

    "auto" falls back only when nothing was asked for and nothing is there, and tells ``warn`` so; a
    ``data_dir`` without MNIST, a failed ``download`` and corrupt files are errors always. Raises
    ValueError for an unknown name, DataError for data that is missing or bad.

    >>> load_images("digits").name
    'digits'
    """
    check_choice("load_images", "dataset", dataset, IMAGE_DATASETS)
    if dataset == "digits":
        if data_dir is not None or download:
            asked = "download" if data_dir is None else f"data_dir {data_dir}"
            raise data_error("digits", "no data_dir and no download: they are embedded", asked)
        return load_digits()
    directory = data_directory(data_dir, REMEDY)
    asked_for = dataset == "mnist" or data_dir is not None or download
    if asked_for or find_mnist(directory) is not None:
        return load_mnist(data_dir, download)
    warn(
        f"no MNIST in {directory}: using scikit-learn's embedded digits instead (1,797 images of "
        f"8 x 8, upsampled), whose accuracies say nothing about MNIST; for MNIST {REMEDY}"
    )
    return load_digits()

"""A labelled image dataset in memory, and its validation split."""

import dataclasses
import hashlib
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastsnn_jax._checks import check, check_count, fail

NUM_CLASSES = 10
VALIDATION_SHARE = 1 / 12  # 5,000 of MNIST's 60,000


class DataError(ValueError):
    """Data that is missing, unreadable or not what it says it is: one line, with the file."""


def data_error(where: Any, expected: str, got: Any, remedy: str = "") -> DataError:
    """Returns the DataError to raise: ``where: expected ..., got ...; remedy``, on one line."""
    return DataError(" ".join(str(fail(str(where), f"expected {expected}", got, remedy)).split()))


class Examples(NamedTuple):
    """Images ``uint8[n, H, W, 1]`` and their labels ``int32[n]``."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images ``uint8[n, H, W, 1]`` and labels ``int32[n]`` in 0..9, for training and for test.

    ``source`` says where they come from, in words. Raises DataError when there are no examples, or
    when shapes, lengths, dtypes or labels do not fit.

    >>> images, labels = np.zeros((2, 3, 4, 1), np.uint8), np.array([7, 9], np.int32)
    >>> Dataset("tiny", images, labels, images, labels, source="by hand").train.labels
    array([7, 9], dtype=int32)
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: str

    def __post_init__(self):
        for part, (images, labels) in {"train": self.train, "test": self.test}.items():
            _check_examples(f"{self.name} {part} ({self.source})", images, labels)
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise data_error(
                f"{self.name} ({self.source})", f"test images of {self.train_images.shape[1:]}",
                self.test_images.shape[1:],
            )

    @property
    def train(self) -> Examples:
        return Examples(self.train_images, self.train_labels)

    @property
    def test(self) -> Examples:
        return Examples(self.test_images, self.test_labels)

    def describe(self, num_validation: int = 0) -> dict[str, Any]:
        """What a record says of it, ``num_validation`` examples being held out of training."""
        train, test = len(self.train_labels) - num_validation, len(self.test_labels)
        sizes = {"train": train, "validation": num_validation, "test": test}
        return {"name": self.name, "source": self.source, "sha256": self.sha256, "sizes": sizes}

    @cached_property
    def sha256(self) -> str:
        """Hex digest of shapes and values, in order; the same examples give the same digest."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(little_endian).data)
        return digest.hexdigest()


def split_validation(
    dataset: Dataset, num_validation: int | None = None, seed: int = 0
) -> tuple[Examples, Examples]:
    """Splits the training examples into (train, validation), each in its original order.

    ``num_validation`` examples are drawn without replacement; by default one in twelve, which is
    5,000 of MNIST's 60,000. The same seed gives the same split. Test examples take no part.
    Raises ValueError unless at least one example is left to train on.

    >>> images, labels = np.zeros((24, 3, 4, 1), np.uint8), np.arange(24, dtype=np.int32) % 10
    >>> tiny = Dataset("tiny", images, labels, images, labels, source="by hand")
    >>> [len(part.labels) for part in split_validation(tiny)]
    [22, 2]
    """
    count = len(dataset.train_labels)
    if num_validation is None:
        num_validation = round(count * VALIDATION_SHARE)
    check_count("split_validation", "num_validation", num_validation, at_least=0)
    check(
        num_validation < count, "split_validation",
        f"num_validation must be below the {count} training examples", num_validation,
    )
    held_out = np.zeros(count, bool)
    held_out[frozen_permutation(count, seed)[:num_validation]] = True
    return (
        Examples(dataset.train_images[~held_out], dataset.train_labels[~held_out]),
        Examples(dataset.train_images[held_out], dataset.train_labels[held_out]),
    )


def frozen_permutation(count: int, seed: int) -> np.ndarray:
    """A permutation of ``range(count)``; RandomState's stream is the one NumPy promises to keep."""
    check_count("permutation", "seed", seed, at_least=0)
    check(seed < 2**32, "permutation", "seed must be < 2**32", seed)
    return np.random.RandomState(seed).permutation(count)


def _check_examples(where: str, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 1:
        raise data_error(
            where, "images uint8[n, H, W, 1]", f"{images.dtype}{list(images.shape)}"
        )
    if labels.dtype != np.int32 or labels.ndim != 1:
        raise data_error(where, "labels int32[n]", f"{labels.dtype}{list(labels.shape)}")
    if len(images) != len(labels):
        raise data_error(where, "as many labels as images", f"{len(labels)} and {len(images)}")
    if images.size == 0:
        raise data_error(where, "at least one image", f"images of shape {list(images.shape)}")
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        raise data_error(
            where, f"labels in 0..{NUM_CLASSES - 1}", f"{labels.min()}..{labels.max()}"
        )

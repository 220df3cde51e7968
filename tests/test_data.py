"""Laws of the image data: what is on disk is what arrives, or one clear error."""

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fastsnn_jax.data import (
    DataError,
    Dataset,
    load_digits,
    load_images,
    load_mnist,
    split_validation,
)
from fastsnn_jax.data.digits import upsample

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
IDX, TFDS = SHARED / "mnist_idx", SHARED / "tfds"
needs_idx = pytest.mark.skipif(not IDX.is_dir(), reason="no ../shared/data/mnist_idx")
needs_tfds = pytest.mark.skipif(not TFDS.is_dir(), reason="no ../shared/data/tfds")

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx_bytes(values):
    values = np.asarray(values, np.uint8)
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.tobytes()


def write_mnist(folder, num_train=7, num_test=3, suffix="", side=28):
    """Four small IDX files with random pixels; returns the training images."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (num_train, side, side))
    files = {
        TRAIN_IMAGES: images,
        TRAIN_LABELS: np.arange(num_train) % 10,
        TEST_IMAGES: draw.integers(0, 256, (num_test, side, side)),
        TEST_LABELS: 9 - np.arange(num_test) % 10,
    }
    for name, values in files.items():
        data = idx_bytes(values)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return images


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and "expected" in message and "got" in message
    return message


def tiny(count=24, name="tiny"):
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1) * np.ones((2, 3, 1), np.uint8)
    labels = (np.arange(count) % 10).astype(np.int32)
    return Dataset(name, images, labels, images[:5], labels[:5], source="by hand")


# MNIST directories


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_mnist_is_read_from_idx_files(tmp_path, suffix, folder):
    images = write_mnist(tmp_path / folder, suffix=suffix)
    dataset = load_mnist(tmp_path)
    assert dataset.name == "mnist" and str(tmp_path) in dataset.source
    np.testing.assert_array_equal(dataset.train_images[..., 0], images)
    np.testing.assert_array_equal(dataset.train_labels, [0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(dataset.test_labels, [9, 8, 7])
    assert dataset.train_images.dtype == np.uint8 and dataset.train_labels.dtype == np.int32


def test_names_with_a_dot_before_idx_are_found(tmp_path):
    write_mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert len(load_mnist(tmp_path).test_labels) == 3


def test_the_environment_variable_names_the_directory(tmp_path, monkeypatch):
    write_mnist(tmp_path / "here")
    write_mnist(tmp_path / "explicit", num_train=5)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "here"))
    assert len(load_mnist().train_labels) == 7
    assert len(load_mnist(tmp_path / "explicit").train_labels) == 5


def test_without_directions_the_home_directory_is_searched(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mnist(tmp_path / "tensorflow_datasets")
    assert len(load_images("auto").train_labels) == 7


def spoil_labels(folder, values):
    (folder / TRAIN_LABELS).write_bytes(idx_bytes(values))


def cut(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-5])


SPOILED = {
    "labels short": (lambda d: spoil_labels(d, np.zeros(6)), "as many labels as images"),
    "label 10": (lambda d: spoil_labels(d, [0, 1, 2, 3, 4, 5, 10]), "labels in 0..9"),
    "truncated": (lambda d: cut(d, TEST_IMAGES), "truncated"),
    "file absent": (lambda d: (d / TEST_LABELS).unlink(), "t10k-labels-idx1-ubyte"),
    "other size": (lambda d: write_mnist(d, side=27), "images of 28 x 28"),
}


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_files_are_an_error_and_never_a_fallback(tmp_path, monkeypatch, dataset, case):
    spoil, expected = SPOILED[case]
    write_mnist(tmp_path)
    spoil(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError) as error:
        load_images(dataset, warn=pytest.fail)
    assert str(tmp_path) in one_line(error) and expected in str(error.value)


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
@pytest.mark.parametrize("place", ["missing", "empty", "a file", "a name too long", "no name"])
def test_a_data_dir_without_mnist_is_an_error(tmp_path, dataset, place):
    path = tmp_path / "data"
    if place == "empty":
        path.mkdir()
    elif place == "a file":
        path.write_text("not a directory")
    elif place == "a name too long":
        path = tmp_path / ("x" * 300)
    elif place == "no name":
        path = ""
    with pytest.raises(DataError) as error:
        load_images(dataset, path, warn=pytest.fail)
    one_line(error)


def test_mnist_fails_clearly_where_auto_falls_back_loudly(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match="--data-dir"):
        load_images("mnist", warn=pytest.fail)
    said = []
    dataset = load_images("auto", warn=said.append)
    assert dataset.name == "digits"
    (message,) = said
    assert str(tmp_path) in message and "digits" in message and "--data-dir" in message


def test_auto_takes_mnist_when_it_is_there_and_says_nothing(tmp_path):
    write_mnist(tmp_path)
    assert load_images("auto", tmp_path, warn=pytest.fail).name == "mnist"


def test_an_unknown_dataset_lists_the_choices():
    with pytest.raises(ValueError, match="auto, mnist, digits, got 'cifar'"):
        load_images("cifar")


@pytest.mark.parametrize("asked", [{"data_dir": "anywhere"}, {"download": True}])
def test_digits_take_no_directory_and_no_download(asked):
    with pytest.raises(DataError, match="embedded"):
        load_images("digits", **asked)


# Real MNIST

# Label counts as published with the data set (LeCun, Cortes and Burges).
TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def check_real_mnist(dataset):
    assert dataset.train_images.shape == (60000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), TRAIN_COUNTS)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), TEST_COUNTS)
    assert abs(dataset.train_images.mean() / 255 - 0.1307) < 5e-5


@needs_idx
def test_real_mnist_from_idx_files_is_complete():
    dataset = load_images("mnist", IDX)
    check_real_mnist(dataset)
    np.testing.assert_array_equal(dataset.train_labels[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])


@needs_idx
@needs_tfds
@pytest.mark.slow
def test_real_mnist_from_tfds_has_the_examples_of_the_idx_files(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(TFDS))
    prepared, idx = load_images("auto", warn=pytest.fail), load_images("mnist", IDX)
    check_real_mnist(prepared)
    for one, other in ((prepared.train, idx.train), (prepared.test, idx.test)):
        assert in_any_order(one) == in_any_order(other)


def in_any_order(examples):
    return sorted(
        image.tobytes() + bytes([label])
        for image, label in zip(examples.images, examples.labels, strict=True)
    )


# Digits


def test_digits_are_scikit_learns_in_a_fixed_split_without_overlap():
    datasets = pytest.importorskip("sklearn.datasets")
    digits, original = load_digits(), datasets.load_digits()
    assert len(digits.train_labels) == 1437 and len(digits.test_labels) == 360
    both = np.concatenate([digits.train_images, digits.test_images])[..., 0]
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    expected = upsample(original.images.astype(int))
    assert sorted(zip(map(bytes, both), labels, strict=True)) == sorted(
        zip(map(bytes, expected), original.target, strict=True)
    )
    assert digits.sha256 == load_digits().sha256
    assert set(digits.test_labels) == set(range(10))


def test_upsampling_is_bilinear_between_pixel_centres_and_full_range():
    images = np.random.default_rng(2).integers(0, 17, (3, 8, 8))
    position = np.clip((np.arange(20) + 0.5) * 8 / 20 - 0.5, 0, 7)
    along_x = np.array([[np.interp(position, range(8), row) for row in image] for image in images])
    expected = np.array(
        [[np.interp(position, range(8), row) for row in image.T] for image in along_x]
    ).transpose(0, 2, 1) * 255 / 16
    got = upsample(images)
    assert got.shape == (3, 28, 28) and got.dtype == np.uint8
    assert np.abs(got[:, 4:24, 4:24] - expected).max() <= 0.5 + 1e-9
    frame = np.ones((28, 28), bool)
    frame[4:24, 4:24] = False
    assert not got[:, frame].any()
    assert upsample(np.full((1, 8, 8), 16))[0, 4:24, 4:24].min() == 255


# Datasets and their split


@pytest.mark.parametrize("change, expected", [
    ({"train_images": np.zeros((24, 2, 3), np.uint8)}, "uint8[n, H, W, 1]"),
    ({"train_images": np.zeros((24, 2, 3, 1), np.float32)}, "got float32[24, 2, 3, 1]"),
    ({"train_labels": np.zeros(24, np.int64)}, "labels int32[n]"),
    ({"train_labels": np.zeros(23, np.int32)}, "as many labels as images, got 23 and 24"),
    ({"train_labels": np.full(24, -1, np.int32)}, "labels in 0..9, got -1..-1"),
    ({"test_images": np.zeros((5, 2, 2, 1), np.uint8)}, "test images of (2, 3, 1)"),
    ({"test_images": np.zeros((0, 2, 3, 1), np.uint8), "test_labels": np.zeros(0, np.int32)},
     "at least one image"),
])
def test_a_dataset_that_does_not_fit_together_is_an_error(change, expected):
    with pytest.raises(DataError) as error:
        dataclasses.replace(tiny(), **change)
    assert expected in one_line(error)


def test_the_split_parts_every_example_once_and_keeps_images_with_labels():
    dataset = tiny()
    train, validation = split_validation(dataset, num_validation=7, seed=3)
    assert len(train.labels) == 17 and len(validation.labels) == 7
    places = np.concatenate([train.images, validation.images])[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(places), np.arange(24))
    np.testing.assert_array_equal(
        np.concatenate([train.labels, validation.labels]), places % 10
    )
    assert (np.diff(train.images[:, 0, 0, 0].astype(int)) > 0).all()


def test_the_split_depends_on_the_seed_alone():
    one, again, other = (split_validation(tiny(), 7, seed)[1].images for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("count, expected", [(24, 2), (60, 5), (240, 20)])
def test_one_example_in_twelve_is_held_out_by_default(count, expected):
    assert len(split_validation(tiny(count))[1].labels) == expected


def test_nothing_may_be_held_out_but_not_everything():
    train, validation = split_validation(tiny(), num_validation=0)
    assert len(train.labels) == 24 and len(validation.labels) == 0
    for count in (24, -1):
        with pytest.raises(ValueError, match="num_validation"):
            split_validation(tiny(), num_validation=count)
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="seed"):
            split_validation(tiny(), seed=seed)


def test_the_digest_tells_values_order_and_part():
    dataset = tiny()
    assert dataset.sha256 == dataclasses.replace(dataset, name="other", source="copy").sha256
    flipped = dataclasses.replace(dataset, train_images=dataset.train_images[::-1])
    relabelled = dataclasses.replace(dataset, test_labels=dataset.test_labels[::-1])
    assert len({dataset.sha256, flipped.sha256, relabelled.sha256}) == 3


def test_the_description_counts_the_parts():
    description = tiny().describe(num_validation=2)
    assert description["sizes"] == {"train": 22, "validation": 2, "test": 5}
    assert description["name"] == "tiny" and description["source"] == "by hand"
    assert description["sha256"] == tiny().sha256

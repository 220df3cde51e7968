"""The four IDX files of a small MNIST, and ways to damage them."""

import gzip
import struct

import numpy as np


def idx(array):
    """The array as an IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder):
    """A valid little MNIST of 40 + 20 images; returns the folder."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        images = idx(draw.integers(0, 256, (count, 28, 28)))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return folder


def cut_short(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1000])


def flip_bytes(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def other_magic(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x0d\1" + bytes(40))


def another_length(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(39) % 10))


def no_digit(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(40)))


def one_missing(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()

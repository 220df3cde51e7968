"""Images to train on: MNIST from disk, or scikit-learn's digits, as uint8 arrays."""

from fastsnn_jax.data.dataset import DataError, Dataset, Examples, split_validation
from fastsnn_jax.data.digits import load_digits
from fastsnn_jax.data.idx import read_idx
from fastsnn_jax.data.images import load_images
from fastsnn_jax.data.mnist import load_mnist

__all__ = [
    "DataError", "Dataset", "Examples", "load_digits", "load_images", "load_mnist", "read_idx",
    "split_validation",
]

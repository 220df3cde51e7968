"""The record of an MNIST run, key for key the notebook's."""

from fastsnn_jax.record.mnist.build import (
    Architecture,
    History,
    SpikeTotals,
    build_mnist_record,
)

__all__ = ["Architecture", "History", "SpikeTotals", "build_mnist_record"]

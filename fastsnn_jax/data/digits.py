"""The embedded default: scikit-learn's 8 x 8 digits, upsampled to MNIST's frame."""

import numpy as np

from fastsnn_jax.data.dataset import Dataset, frozen_permutation

SPLIT_SEED = 0
NUM_TEST = 360  # of 1,797: one in five
GREATEST = 16  # pixels are 0..16
SIDE, UPSAMPLED, MARGIN = 8, 20, 4  # MNIST's own digits fill 20 x 20 of 28 x 28


def load_digits() -> Dataset:
    """Loads scikit-learn's digits: 1,437 + 360 images ``uint8[n, 28, 28, 1]``, no download.

    8 x 8 pixels of 0..16 are interpolated bilinearly to 20 x 20 of 0..255 and centred in 28 x 28,
    as MNIST's digits are. The split is a fixed random one: the copy does not say who wrote which
    digit, so writers may be in both parts and the test accuracy is no estimate for new writers.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.

    >>> load_digits().train_images.shape
    (1437, 28, 28, 1)
    """
    from sklearn import datasets  # imported here: it takes longer than the rest together

    pixels, target = datasets.load_digits(return_X_y=True)
    images = upsample(np.asarray(pixels, np.int64).reshape(-1, SIDE, SIDE))[..., None]
    labels = np.asarray(target, np.int32)
    order = frozen_permutation(len(labels), SPLIT_SEED)
    train, test = np.sort(order[NUM_TEST:]), np.sort(order[:NUM_TEST])
    return Dataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        source="scikit-learn digits, 8 x 8 upsampled to 28 x 28, random split",
    )


def upsample(images: np.ndarray) -> np.ndarray:
    """Interpolates ``int[n, 8, 8]`` in 0..16 to ``uint8[n, 28, 28]`` in 0..255.

    Bilinear between pixel centres, in whole numbers: the same bytes on every machine.
    """
    weights = _tenths()
    hundredths = np.einsum("yi,nij,xj->nyx", weights, images, weights)
    scale = 100 * GREATEST
    pixels = (255 * hundredths + scale // 2) // scale
    return np.pad(pixels.astype(np.uint8), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))


def _tenths() -> np.ndarray:
    """Interpolation weights [20, 8] in tenths: target y lies at source 0.4 y - 0.3."""
    position = np.clip(4 * np.arange(UPSAMPLED) - 3, 0, 10 * (SIDE - 1))
    return np.maximum(10 - abs(position[:, None] - 10 * np.arange(SIDE)), 0)

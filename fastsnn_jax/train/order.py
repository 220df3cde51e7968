"""Which samples each step sees."""

import numpy as np

from fastsnn_jax._checks import check, check_count


def epoch_order(seed: int, epoch: int, size: int, batch_size: int) -> np.ndarray:
    """Random order of one epoch, int32 [size // batch_size, batch_size].

    It depends on the arguments alone: sample indices sorted by the raw 64-bit stream of Philox
    seeded with (seed, epoch), which numpy keeps stable over versions (it does not promise that
    for ``permutation``). The last ``size % batch_size`` samples of the order are left out in
    this epoch; another epoch leaves out others.

    Raises:
      ValueError: if a number is out of range or the batch is larger than the data.

    >>> epoch_order(seed=0, epoch=0, size=7, batch_size=3).shape
    (2, 3)
    """
    check_count("epoch_order", "seed", seed, at_least=0)
    check_count("epoch_order", "epoch", epoch, at_least=0)
    check_count("epoch_order", "batch_size", batch_size)
    check(batch_size <= size, "epoch_order", f"batch_size must be <= {size}, the number of samples",
          batch_size)
    steps = size // batch_size
    order = _permutation([seed, epoch], size)[: steps * batch_size]
    return order.astype(np.int32).reshape(steps, batch_size)


def hold_out(seed: int, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits ``size`` samples at random into (kept, ``count`` held out), both ascending indices.

    >>> kept, held = hold_out(seed=0, size=5, count=2)
    >>> sorted([*kept.tolist(), *held.tolist()])
    [0, 1, 2, 3, 4]
    """
    check_count("hold_out", "seed", seed, at_least=0)
    check_count("hold_out", "count", count, at_least=0)
    check(count < size, "hold_out", f"count must be < {size}, the number of samples", count)
    # A word that no epoch number reaches, so that the split is drawn apart from every order.
    order = _permutation([seed, 2**32 - 1], size)
    return np.sort(order[count:]), np.sort(order[:count])


def full_order(size: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every sample once, in order: (int32 index, bool mask), both [ceil(size / B), B].

    The last batch is padded with index 0 where the mask is False.

    >>> full_order(size=3, batch_size=2)[1]
    array([[ True,  True],
           [ True, False]])
    """
    steps = -(-size // batch_size)
    index = np.zeros(steps * batch_size, np.int32)
    index[:size] = np.arange(size)
    mask = np.arange(steps * batch_size) < size
    return index.reshape(steps, batch_size), mask.reshape(steps, batch_size)


def _permutation(entropy: list[int], size: int) -> np.ndarray:
    draws = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(size)
    return np.argsort(draws, kind="stable")

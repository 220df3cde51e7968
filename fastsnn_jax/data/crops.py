"""Windows of a row of tokens: random ones to train on, or all of them once to evaluate on."""

from typing import NamedTuple

import numpy as np

from fastsnn_jax._checks import check, check_count


class Windows(NamedTuple):
    """Windows int32 [n, context + 1] and a mask [n, context], False where a target is padding."""

    tokens: np.ndarray
    mask: np.ndarray


def random_crops(
    tokens: np.ndarray, context: int, count: int, seed: int, epoch: int
) -> np.ndarray:
    """Windows at ``count`` random places of ``tokens [n]``: int32 [count, context + 1].

    Inputs are ``[:, :-1]`` and targets ``[:, 1:]``. Every place in 0..n - context - 1 is equally
    likely, and drawn with replacement. They depend on the arguments alone: places come from the raw
    64-bit stream of Philox seeded with (seed, epoch, 1), which numpy keeps stable over versions.
    Of a mapped file, only the windows are read.

    Raises:
      ValueError: if ``tokens`` are fewer than context + 1, or a number is out of range.

    >>> crops = random_crops(np.arange(9), context=3, count=2, seed=0, epoch=0)
    >>> (crops - crops[:, :1]).tolist()
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    _check_tokens("random_crops", tokens, context)
    check_count("random_crops", "count", count)
    check_count("random_crops", "seed", seed, at_least=0)
    check_count("random_crops", "epoch", epoch, at_least=0)
    # A third word, so that the places are drawn apart from the order of the epoch (train.order).
    draws = np.random.Philox(np.random.SeedSequence([seed, epoch, 1])).random_raw(count)
    places = draws % (len(tokens) - context)  # one place is likelier by at most n / 2**64
    return np.lib.stride_tricks.sliding_window_view(tokens, context + 1)[places].astype(np.int32)


def windows(tokens: np.ndarray, context: int) -> Windows:
    """All windows of ``tokens [n]`` side by side: int32 [ceil((n - 1) / context), context + 1].

    Window i is ``tokens[i * context : (i + 1) * context + 1]``: each begins with the last target of
    the one before, so every token but the first is a target exactly once. The last window is padded
    with 0, where its mask is False. The tokens are copied to memory; pass a slice of a large file.

    Raises:
      ValueError: if ``tokens`` are fewer than context + 1, or ``context`` < 1.

    >>> parts = windows(np.array([5, 6, 7, 8]), context=2)
    >>> parts.tokens.tolist(), parts.mask.tolist()
    ([[5, 6, 7], [7, 8, 0]], [[True, True], [True, False]])
    """
    _check_tokens("windows", tokens, context)
    targets = len(tokens) - 1
    count = -(-targets // context)
    padded = np.zeros(count * context + 1, np.int32)
    padded[:len(tokens)] = tokens
    rows = np.lib.stride_tricks.sliding_window_view(padded, context + 1)[::context]
    return Windows(rows, (np.arange(count * context) < targets).reshape(count, context))


def _check_tokens(where: str, tokens: np.ndarray, context: int) -> None:
    check_count(where, "context", context)
    if not np.issubdtype(tokens.dtype, np.integer):
        raise TypeError(f"{where}: tokens must be integers, got dtype {tokens.dtype}")
    check(tokens.ndim == 1, where, "tokens must be one-dimensional", f"shape {list(tokens.shape)}")
    check(
        len(tokens) > context, where, f"tokens must be at least context + 1 = {context + 1}",
        len(tokens), "take a longer text or a shorter context",
    )

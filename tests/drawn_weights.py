"""Weights of the models in ``tests/golden/transformers_*.json``, drawn alike by generator and test.

They follow from a seed and the published name of each array alone, by the raw bits of a generator
whose stream NumPy guarantees, so the file need not hold them.
"""

import math
import zlib

import numpy as np


def draw(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that name, float32."""
    bits = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw(math.prod(shape))
    uniform = ((bits >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)  # -1 .. 1
    if name.endswith(".bias"):
        values = 0.5 * uniform
    elif len(shape) == 1:  # a norm
        values = 1 + 0.25 * uniform
    elif "embed" in name:
        values = 0.5 * uniform
    else:
        values = 2 * math.sqrt(3 / shape[-1]) * uniform
    return values.astype(np.float32)

"""The work that every peer does, and the four calls through which it is asked for.

Work: 784-400-10 spiking network, membrane decay 0.9, threshold 1, spike-sum logits over T steps of
1 ms, Poisson input of at most 80 Hz, cross entropy; gradients clipped to norm 1, then L2 1e-5, then
Adam 3e-3; float32. Input, hidden and output spikes are counted in every call.

A peer module has ``make(batch_size, num_steps, seed) -> Peer``. Reset and surrogate are the
library's own choice; initial weights are the same for all.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS = 784, 400, 10
DECAY = 0.9
THRESHOLD = 1.0
SPIKE_PROBABILITY = 80 / 1000  # 80 Hz at 1 ms, for a white pixel
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-5
MAX_NORM = 1.0


class Result(NamedTuple):
    """Of one batch: the loss (None at inference), and the spikes of each layer as host integers."""

    loss: float | None
    input: int
    hidden: int
    output: int


class Peer(Protocol):
    """Images are float32 [B, 784] in [0, 1] and labels int64 [B], both NumPy."""

    def spikes(self, array: np.ndarray) -> Any:
        """Places float32 spikes [T, B, 784] in the library's own array type, outside the timing."""

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> Result:
        """Encodes, and updates the parameters."""

    def train_step_given(self, spikes: Any, labels: np.ndarray) -> Result:
        """Updates the parameters on spikes from ``self.spikes``."""

    def infer(self, images: np.ndarray) -> Result:
        """Encodes, and runs forward."""

    def infer_given(self, spikes: Any) -> Result:
        """Runs forward on spikes from ``self.spikes``."""


def initial_weights(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(kernel [in, out], bias [out]) of both synapses, wide enough that every layer fires at once.

    The width is 2.5 times the usual 1/sqrt(fan-in): of 784 inputs only about 8 are on in a step.
    """
    random = np.random.default_rng(seed)
    sizes = NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS
    return [
        (
            (2.5 / fan_in**0.5 * random.standard_normal((fan_in, fan_out))).astype(np.float32),
            np.zeros(fan_out, np.float32),
        )
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True)
    ]


def poisson(images: np.ndarray, num_steps: int, seed: int) -> np.ndarray:
    """Spikes [T, B, 784] for the calls that are given them."""
    random = np.random.default_rng(seed)
    uniform = random.random((num_steps, *images.shape), dtype=np.float32)
    return (uniform < images * SPIKE_PROBABILITY).astype(np.float32)


def digit_like(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with about MNIST's share of ink (a fifth of the pixels, mean 0.13), random labels."""
    random = np.random.default_rng(seed)
    ink = random.random((num_images, NUM_INPUTS)) < 0.2
    shade = random.uniform(0.3, 1.0, (num_images, NUM_INPUTS))
    labels = random.integers(0, NUM_OUTPUTS, num_images)
    return (ink * shade).astype(np.float32), labels.astype(np.int64)

"""From uint8 images to the spikes a network reads."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax import encoding
from fastsnn_jax._typing import Array, Float, Int, Key
from fastsnn_jax.kernels.event_synapse import preferred_synapse
from fastsnn_jax.recipes.mnist.config import BLOCK_PIXELS, STEP_MS, MnistConfig
from fastsnn_jax.spikes import SpikeTensor


class InputPlan(NamedTuple):
    """How spikes enter the network, decided once on the host.

    Attributes:
      synapse: "event" or "dense".
      capacity: event slots per row.
      density: expected spikes per step of the busiest image, as a fraction of the pixels; None
        for encoders whose spikes are no event lists: there it decides nothing.
    """

    synapse: str
    capacity: int
    density: float | None


class Distortion(Protocol):
    """How far `augment` may go: the part of a configuration that it reads."""

    @property
    def shift(self) -> float: ...

    @property
    def stretch(self) -> float: ...


def plan_inputs(config: MnistConfig, images: Int[np.ndarray, "n H W 1"]) -> InputPlan:
    """Measures the density of ``images`` under the encoder and chooses the input synapse.

    The slots leave room for what `augment` may enlarge.
    """
    if config.encoder != "poisson":
        return InputPlan("dense", 0, None)
    pixels = images.reshape(len(images), -1)
    busiest = pixels.sum(axis=1, dtype=np.int64).max() / 255 * _probability(config)
    density = min(float(busiest) / pixels.shape[1], 1.0)
    synapse = config.input_synapse
    if synapse == "auto":
        able = config.model == "mlp"
        synapse = preferred_synapse(jax.default_backend(), density) if able else "dense"
    largest = busiest * (1 - config.stretch) ** -2  # both sides sampled that much more densely
    return InputPlan(synapse, encoding.event_capacity(largest, pixels.shape[1]), density)


def encode(
    config: MnistConfig, plan: InputPlan, key: Key, images: Float[Array, "B H W 1"],
    start: int | Array = 0, steps: int | None = None, first_sample: int | Array = 0,
) -> Float[Array, "T B *N"] | SpikeTensor:
    """Spikes of images in [0, 1]: flat for the mlp, maps for the cnn.

    All T, or ``steps`` from ``start`` on. ``first_sample`` is the first one's number in its batch.
    """
    steps = config.num_steps if steps is None else steps
    if config.encoder == "latency" and config.latency_winners < BLOCK_PIXELS:
        images = encoding.local_winners(images, config.latency_winners)
    x = images.reshape(len(images), -1) if config.model == "mlp" else images
    if config.encoder == "poisson":
        probability = x * _probability(config)
        if plan.synapse == "event":
            return encoding.poisson_events(
                key, probability, steps, plan.capacity, start=start, first_sample=first_sample
            )
        return encoding.poisson(key, probability, steps, start=start, first_sample=first_sample)
    if config.encoder == "latency":
        return encoding.latency(
            x, steps, threshold=config.latency_threshold, window=config.latency_window,
            start=start,
        )
    return encoding.direct(x, steps)


def augment(
    config: Distortion, key: Key, images: Float[Array, "B H W 1"]
) -> Float[Array, "B H W 1"]:
    """Random shift, stretch and shear of each image, bilinear, zeros beyond the border.

    Up to ``config.shift`` pixels each way, and ``config.stretch`` as relative change of size and as
    shear. Each factor acts on one axis at a time, so it is a product with small matrices.
    """
    if config.shift == 0 and config.stretch == 0:
        return images
    batch, height, width, _ = images.shape
    x = images[..., 0]
    keys = jax.random.split(key, 6)

    def draw(key, bound):
        return jax.random.uniform(key, (batch, 1), minval=-bound, maxval=bound)

    def sampling(size, offset):
        """Rows of bilinear weights [..., size out, size in] for out positions moved by offset."""
        centre = jnp.arange(size) - (size - 1) / 2
        position = centre * offset[0] + offset[1]
        return jnp.maximum(0, 1 - jnp.abs(position[..., None] - centre))

    rows = sampling(height, (1 + draw(keys[0], config.stretch), draw(keys[1], config.shift)))
    columns = sampling(width, (1 + draw(keys[2], config.stretch), draw(keys[3], config.shift)))
    x = jnp.einsum("bij,bjk,blk->bil", rows, x, columns)
    if config.stretch > 0:
        x = _shear(x, draw(keys[4], config.stretch))
        x = _shear(x.swapaxes(1, 2), draw(keys[5], config.stretch)).swapaxes(1, 2)
    return jnp.clip(x, 0, 1)[..., None]


def _shear(x: Float[Array, "B H W"], slope: Float[Array, "B 1"]) -> Float[Array, "B H W"]:
    """Moves row r by ``slope * r`` pixels."""
    height, width = x.shape[1:]
    row, column = jnp.arange(height) - (height - 1) / 2, jnp.arange(width)
    position = column + (slope * row)[..., None]
    weights = jnp.maximum(0, 1 - jnp.abs(position[..., None] - column))
    return jnp.einsum("brij,brj->bri", weights, x)


def _probability(config: MnistConfig) -> float:
    """Chance of a spike per step for a white pixel."""
    return config.max_rate_hz * STEP_MS / 1000

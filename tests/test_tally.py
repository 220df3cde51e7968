"""Sums of counts in one pass are the sums one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.activity import count_tokens
from fastsnn_jax.kernels.tally import tally
from fastsnn_jax.neurons import adaptive_threshold, lif_sint
from fastsnn_jax.nn.projection import Coding

# (channels, limit): sums that share words to their last bit, and some that no word holds.
SIZES = [(5, 127), (4095, 127), (4096, 127), (512, 1023), (514, 1023), (3, 2**24)]


@pytest.mark.parametrize(("channels", "limit"), SIZES)
@pytest.mark.parametrize("fill", ["drawn", "full"])
def test_the_sums_are_those_of_numpy(channels, limit, fill):
    random = np.random.default_rng(channels)
    size = random.integers(0, limit + 1, (2, 3, channels))
    clipped = random.random(size.shape) < 0.3
    if fill == "full":
        size, clipped = np.full_like(size, limit), np.ones_like(clipped)
    found = jax.jit(tally, static_argnums=2)(jnp.asarray(size, jnp.int32), clipped, limit)
    planes = np.vectorize(lambda count: int(count).bit_count())(size)
    for name, expected in (("active", size != 0), ("unary", size), ("bit_plane", planes),
                           ("saturated", clipped)):
        np.testing.assert_array_equal(getattr(found, name), expected.sum(-1), name)


NEURONS = [
    adaptive_threshold(k=2.0), adaptive_threshold(k=4.0, limit=3, signed=False),
    adaptive_threshold(rounding="down", limit=2), lif_sint(threshold=0.3, limit=5),
]


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda neuron: f"{type(neuron).__name__}")
def test_a_coding_counts_the_spikes_it_makes(neuron):
    x = jax.random.normal(jax.random.key(0), (2, 3, 17))
    coding = Coding(neuron)
    coded = coding.apply(coding.init(jax.random.key(1), x), x)
    expected = count_tokens(coded.spikes)
    assert coded.counted.unary.any() and coded.counted.unary.dtype == jnp.int32
    for found, wanted in zip(coded.counted, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)

"""spyx: the whole network scanned over time by ``spyx.nn.run``, the whole step jitted.

Running layer after layer instead, or its synapses folded over time by hand, was no faster on a CPU,
and its own float16 ``rate_code`` slower than a Bernoulli draw in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from spyx import nn

from .common import DECAY, THRESHOLD, initial_weights
from .jax_peer import JaxPeer, poisson_encoder


class Network(nnx.Module):
    """Puts out, per step, the output spikes and how many hidden neurons fired."""

    def __init__(self, hidden: nn.Sequential, output: nn.Sequential) -> None:
        self.hidden = hidden
        self.output = output

    def initial_state(self, batch_size: int) -> tuple:
        return self.hidden.initial_state(batch_size), self.output.initial_state(batch_size)

    def __call__(self, x: jax.Array, state: tuple) -> tuple:
        hidden, hidden_state = self.hidden(x, state[0])
        output, output_state = self.output(hidden, state[1])
        return (output, hidden.sum()), (hidden_state, output_state)


def make(batch_size: int, num_steps: int, seed: int) -> JaxPeer:
    """spyx; any batch size. The decay is held at 0.9, as in the other peers."""
    rngs = nnx.Rngs(seed)
    parts = []
    for kernel, bias in initial_weights(seed):
        dense = nnx.Linear(*kernel.shape, rngs=rngs)
        dense.kernel[...], dense.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
        neuron = nn.LIF((bias.size,), beta=DECAY, threshold=THRESHOLD, rngs=rngs)
        parts.append(nn.Sequential(dense, neuron))
    graph, weights, decays = nnx.split(Network(*parts), is_weight, ...)

    def forward(weights, spikes):
        (output, hidden), _ = nn.run(nnx.merge(graph, weights, decays), spikes)
        logits = output.sum(0)
        return logits, hidden.sum(), logits.sum()

    return JaxPeer(forward, weights, poisson_encoder(num_steps), seed)


def is_weight(path: tuple, value: object) -> bool:
    return path[-1] in ("kernel", "bias")

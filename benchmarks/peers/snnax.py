"""snnax: ``StatefulModel`` of ``SimpleLIF``, a sample per ``vmap`` lane, the whole step jitted."""

import sys
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

# The released package imports two modules that it does not contain.
for absent in ("snnax.functional.functional", "snnax.snn.init"):
    sys.modules.setdefault(absent, types.ModuleType(absent))

from snnax.snn import GraphStructure, SimpleLIF, StatefulModel  # noqa: E402
from snnax.snn.architecture import default_forward_fn  # noqa: E402

from .common import DECAY, NUM_INPUTS, THRESHOLD, initial_weights  # noqa: E402
from .jax_peer import JaxPeer, poisson_encoder  # noqa: E402

# Written out, since ``Sequential`` of the released package cannot be constructed.
CHAIN = GraphStructure(
    num_layers=4, input_layer_ids=[[0], [], [], []], final_layer_ids=[3],
    input_connectivity=[[], [0], [1], [2]],
)
INPUT_GAIN = 1 - DECAY  # of SimpleLIF: v = 0.9 v + 0.1 x


def make(batch_size: int, num_steps: int, seed: int) -> JaxPeer:
    """snnax; any batch size. Initial weights make up for the neuron's input gain."""
    key = jax.random.key(seed)
    weights = [linear(kernel, bias, key) for kernel, bias in initial_weights(seed)]
    lif0, lif1 = (SimpleLIF([DECAY], threshold=THRESHOLD) for _ in range(2))

    def forward(weights, spikes):
        layers = [weights[0], lif0, weights[1], lif1]
        model = StatefulModel(CHAIN, layers, forward_fn=forward_with_hidden)
        state = model.init_state((NUM_INPUTS,), key)
        run = jax.vmap(lambda train: model(state, train, key)[1], in_axes=1)
        output, hidden = run(spikes)
        logits = output.sum(1)
        return logits, hidden.sum(), logits.sum()

    return JaxPeer(forward, weights, poisson_encoder(num_steps), seed)


def linear(kernel: np.ndarray, bias: np.ndarray, key: jax.Array) -> eqx.nn.Linear:
    layer = eqx.nn.Linear(*kernel.shape, key=key)
    values = jnp.asarray(kernel.T) / INPUT_GAIN, jnp.asarray(bias) / INPUT_GAIN
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, values)


def forward_with_hidden(layers, structure, key, carry, data):
    """The library's own step, which also puts out how many hidden neurons fired."""
    states, outputs = default_forward_fn(layers, structure, key, carry, data)
    return states, [*outputs, states[1][-1].sum()]

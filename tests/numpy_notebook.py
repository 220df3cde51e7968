"""The notebook's network in NumPy, forward and by hand backward: the oracle of the parity tests.

Per layer, with charged membrane u and membrane v after reset:

    u[t] = decay * v[t-1] + x[t] @ kernel + bias;  s[t] = u[t] >= 1;  v[t] = u[t] * (1 - s[t])

logits = sum over t of the last layer's s. The backward slope of s is 0.3 at every u; the spike that
resets is a constant to the gradient:

    du[t] = (1 - s[t]) * dv[t] + 0.3 * ds[t];  dv[t-1] = decay * du[t]

Computes in the dtype of its weights; knows nothing of the package under test.
"""

from typing import NamedTuple

import numpy as np

THRESHOLD = 1.0
SLOPE = 0.3

Weights = list[tuple[np.ndarray, np.ndarray]]
"""(kernel [in, out], bias [out]) of each layer."""


class Layer(NamedTuple):
    """What one layer did: charged membranes and spikes, both [T, B, out]."""

    charged: np.ndarray
    spikes: np.ndarray


def forward(weights: Weights, spikes: np.ndarray, decay: float) -> list[Layer]:
    """Runs input spikes [T, B, in] through every layer."""
    layers = []
    for kernel, bias in weights:
        spikes = spikes.astype(kernel.dtype)
        currents = spikes @ kernel + bias
        v = np.zeros_like(currents[0])
        charged, fired = np.empty_like(currents), np.empty_like(currents)
        for t, current in enumerate(currents):
            charged[t] = kernel.dtype.type(decay) * v + current
            fired[t] = charged[t] >= THRESHOLD
            v = charged[t] * (1 - fired[t])
        layers.append(Layer(charged, fired))
        spikes = fired
    return layers


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over the batch, and its gradient [B, K]."""
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_softmax)
    gradient[rows, labels] -= 1
    return -log_softmax[rows, labels].mean(), gradient / len(labels)


def loss_and_gradient(
    weights: Weights, spikes: np.ndarray, labels: np.ndarray, decay: float
) -> tuple[float, Weights]:
    """Cross entropy of the spike counts, and its gradient for every kernel and bias."""
    layers = forward(weights, spikes, decay)
    loss, d_logits = cross_entropy(layers[-1].spikes.sum(0), labels)
    d_spikes = np.broadcast_to(d_logits, layers[-1].spikes.shape)
    inputs = [spikes.astype(layers[0].spikes.dtype), *(layer.spikes for layer in layers[:-1])]
    gradient = []
    for layer, x, (kernel, _) in zip(layers[::-1], inputs[::-1], weights[::-1], strict=True):
        d_currents = pull_back(layer, d_spikes, decay)
        gradient.append((np.einsum("tbi,tbo->io", x, d_currents), d_currents.sum((0, 1))))
        d_spikes = d_currents @ kernel.T
    return loss, gradient[::-1]


def pull_back(layer: Layer, d_spikes: np.ndarray, decay: float) -> np.ndarray:
    """The gradient of the currents [T, B, out], given that of the spikes."""
    d_currents = np.empty_like(layer.charged)
    d_v = np.zeros_like(layer.charged[0])
    for t in reversed(range(len(d_currents))):
        d_currents[t] = (1 - layer.spikes[t]) * d_v + SLOPE * d_spikes[t]
        d_v = decay * d_currents[t]
    return d_currents

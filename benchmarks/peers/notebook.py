"""The torch notebook's own logic: one image at a time through a NumPy encoder, one time step at a
time through the network, a host synchronisation for every spike count.

    v[t] = 0.9 v[t-1] + W x[t] + b;  spikes[t] = v[t] >= 1;  v[t] <- v[t] (1 - spikes[t])

The spike's backward slope is 0.3 everywhere, and the reset carries no gradient.
"""

import numpy as np
import torch

from .common import DECAY, SPIKE_PROBABILITY, THRESHOLD
from .torch_peer import TorchPeer, linear_layers

SLOPE = 0.3


class NotebookNetwork(torch.nn.Module):
    """Takes spikes [B, T, 784], batch first."""

    def __init__(self, dense0: torch.nn.Linear, dense1: torch.nn.Linear) -> None:
        super().__init__()
        self.dense0 = dense0
        self.dense1 = dense1

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, int, int]:
        batch_size, num_steps = spikes.shape[:2]
        v_hidden = torch.zeros(batch_size, self.dense0.out_features)
        v_output = torch.zeros(batch_size, self.dense1.out_features)
        logits = torch.zeros_like(v_output)
        hidden_total = output_total = 0
        for t in range(num_steps):
            hidden, v_hidden = fire(v_hidden, self.dense0(spikes[:, t]))
            output, v_output = fire(v_output, self.dense1(hidden))
            logits = logits + output
            hidden_total += hidden.sum().item()
            output_total += output.sum().item()
        return logits, hidden_total, output_total


class NotebookPeer(TorchPeer):
    """A peer whose spikes are batch first and are drawn image by image."""

    def spikes(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.swapaxes(0, 1)))

    def encode(self, images: np.ndarray) -> torch.Tensor:
        trains = []
        for image in images:
            uniform = np.random.rand(self.num_steps, image.size)
            trains.append((uniform < image * SPIKE_PROBABILITY).astype(np.float32))
        return torch.from_numpy(np.stack(trains))


def make(batch_size: int, num_steps: int, seed: int) -> NotebookPeer:
    """The notebook; any batch size."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    return NotebookPeer(NotebookNetwork(*linear_layers(seed)), num_steps)


def fire(v: torch.Tensor, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the neuron: spikes and membrane."""
    v = DECAY * v + current
    spikes = (v >= THRESHOLD).float() + SLOPE * (v - v.detach())
    return spikes, v * (1 - spikes.detach())

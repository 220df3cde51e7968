"""Encoding, training step and counting, shared by the peers written in torch."""

from collections.abc import Callable

import numpy as np
import torch

from . import common
from .common import Result


class TorchPeer:
    """Runs a module ``network(spikes[T, B, 784]) -> (logits [B, 10], hidden total, output total)``.

    ``before`` is called ahead of every pass, for libraries that keep their state in the module.
    """

    def __init__(
        self, network: torch.nn.Module, num_steps: int, before: Callable[[], None] = lambda: None
    ) -> None:
        self.network = network
        self.num_steps = num_steps
        self.before = before
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=common.LEARNING_RATE, weight_decay=common.WEIGHT_DECAY
        )

    def spikes(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def encode(self, images: np.ndarray) -> torch.Tensor:
        rate = torch.from_numpy(images) * common.SPIKE_PROBABILITY
        return (torch.rand(self.num_steps, *rate.shape) < rate).float()

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> Result:
        return self.train_step_given(self.encode(images), labels)

    def infer(self, images: np.ndarray) -> Result:
        return self.infer_given(self.encode(images))

    def train_step_given(self, spikes: torch.Tensor, labels: np.ndarray) -> Result:
        self.before()
        self.optimizer.zero_grad()
        logits, hidden, output = self.network(spikes)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), common.MAX_NORM)
        self.optimizer.step()
        return Result(loss.item(), int(spikes.sum()), int(hidden), int(output))

    def infer_given(self, spikes: torch.Tensor) -> Result:
        self.before()
        with torch.no_grad():
            _, hidden, output = self.network(spikes)
        return Result(None, int(spikes.sum()), int(hidden), int(output))


def linear_layers(
    seed: int, make: Callable[..., torch.nn.Linear] = torch.nn.Linear, input_gain: float = 1.0
) -> list[torch.nn.Linear]:
    """Both synapses with the common initial weights, divided by what the neuron scales them by."""
    layers = []
    for kernel, bias in common.initial_weights(seed):
        layers.append(make(*kernel.shape))
        with torch.no_grad():
            layers[-1].weight.copy_(torch.from_numpy(kernel.T) / input_gain)
            layers[-1].bias.copy_(torch.from_numpy(bias) / input_gain)
    return layers

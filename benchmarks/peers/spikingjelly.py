"""SpikingJelly: multi-step layers on the torch backend."""

from functools import partial

import numpy as np
import torch
from spikingjelly.activation_based import encoding, functional, layer, neuron

from .common import DECAY, SPIKE_PROBABILITY, THRESHOLD
from .torch_peer import TorchPeer, linear_layers


class Network(torch.nn.Module):
    """Every layer takes all steps at once."""

    def __init__(self, dense0: layer.Linear, dense1: layer.Linear) -> None:
        super().__init__()
        self.dense0 = dense0
        self.lif0 = lif()
        self.dense1 = dense1
        self.lif1 = lif()

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.lif0(self.dense0(spikes))
        logits = self.lif1(self.dense1(hidden)).sum(0)
        return logits, hidden.sum(), logits.sum()


class SpikingJellyPeer(TorchPeer):
    """A peer that draws its spikes with SpikingJelly's encoder."""

    def encode(self, images: np.ndarray) -> torch.Tensor:
        rate = torch.from_numpy(images) * SPIKE_PROBABILITY
        return encoding.PoissonEncoder()(rate.expand(self.num_steps, *rate.shape))


def make(batch_size: int, num_steps: int, seed: int) -> SpikingJellyPeer:
    """SpikingJelly; any batch size."""
    torch.manual_seed(seed)
    network = Network(*linear_layers(seed, partial(layer.Linear, step_mode="m")))
    return SpikingJellyPeer(network, num_steps, before=lambda: functional.reset_net(network))


def lif() -> neuron.LIFNode:
    """Hard reset; ``tau = 1 / (1 - decay)``, input not scaled."""
    return neuron.LIFNode(
        tau=1 / (1 - DECAY), decay_input=False, v_threshold=THRESHOLD, step_mode="m"
    )

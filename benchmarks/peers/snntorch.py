"""snnTorch: ``Leaky`` stepped in a Python loop, as in its tutorials."""

import torch
from snntorch import Leaky

from .common import DECAY, THRESHOLD
from .torch_peer import TorchPeer, linear_layers


class Network(torch.nn.Module):
    """The synapse into the hidden layer sees all steps at once: faster than in the loop."""

    def __init__(self, dense0: torch.nn.Linear, dense1: torch.nn.Linear) -> None:
        super().__init__()
        self.dense0 = dense0
        self.leaky0 = Leaky(beta=DECAY, threshold=THRESHOLD)
        self.dense1 = dense1
        self.leaky1 = Leaky(beta=DECAY, threshold=THRESHOLD)

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        v_hidden, v_output = self.leaky0.reset_mem(), self.leaky1.reset_mem()
        hidden_trace, output_trace = [], []
        for current in self.dense0(spikes):
            hidden, v_hidden = self.leaky0(current, v_hidden)
            output, v_output = self.leaky1(self.dense1(hidden), v_output)
            hidden_trace.append(hidden.detach())
            output_trace.append(output)
        logits = torch.stack(output_trace).sum(0)
        return logits, torch.stack(hidden_trace).sum(), logits.sum()


def make(batch_size: int, num_steps: int, seed: int) -> TorchPeer:
    """snnTorch; any batch size."""
    torch.manual_seed(seed)
    return TorchPeer(Network(*linear_layers(seed)), num_steps)

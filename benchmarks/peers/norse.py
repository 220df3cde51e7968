"""norse: ``LIFBoxCell`` lifted over time."""

import torch
from norse.torch import LIFBoxCell, Lift

from .torch_peer import TorchPeer, linear_layers

INPUT_GAIN = 0.1  # of LIFBoxCell: v = 0.9 v + 0.1 x with its default time constant


class Network(torch.nn.Module):
    """Every layer takes all steps at once."""

    def __init__(self, dense0: torch.nn.Linear, dense1: torch.nn.Linear) -> None:
        super().__init__()
        self.dense0 = dense0
        self.lif0 = Lift(LIFBoxCell())
        self.dense1 = dense1
        self.lif1 = Lift(LIFBoxCell())

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden, _ = self.lif0(self.dense0(spikes))
        output, _ = self.lif1(self.dense1(hidden))
        logits = output.sum(0)
        return logits, hidden.sum(), logits.sum()


def make(batch_size: int, num_steps: int, seed: int) -> TorchPeer:
    """norse; any batch size."""
    torch.manual_seed(seed)
    return TorchPeer(Network(*linear_layers(seed, input_gain=INPUT_GAIN)), num_steps)

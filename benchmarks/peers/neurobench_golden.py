"""Records what NeuroBench counts on drawn networks: ``tests/golden/neurobench.json``.

Run from the repository's root with the peers' Python (``benchmarks/requirements-peers.txt``):

    peers/bin/python -m benchmarks.peers.neurobench_golden

The networks and their tensors are those of ``tests/drawn_networks.py``; the file holds each
network's layers, a checksum of its tensors and NeuroBench's sums before it divides by the samples.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import snntorch
import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel
from torch import nn

from tests.drawn_networks import DECAY, THRESHOLD, Network, Weights, checksum, draw, draw_tensors

NUM_NETWORKS = 60
EXACT = 2**24  # operations of a call, from where NeuroBench's float32 sums may be wrong
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "neurobench.json"
CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def main() -> None:
    """Writes the file, a network a line."""
    networks = [draw(seed) for seed in range(NUM_NETWORKS)]
    lines = [json.dumps(network | count(network)) for network in networks]
    versions = {name: importlib.metadata.version(name) for name in ("neurobench", "snntorch")}
    head = {"source": "neurobench.metrics", "versions": versions}
    GOLDEN.write_text(
        json.dumps(head)[:-1] + ', "networks": [\n' + ",\n".join(lines) + "\n]}\n"
    )
    print(GOLDEN.name, versions, len(lines), "networks")


def count(network: Network) -> dict[str, Any]:
    """Checksum of the tensors and NeuroBench's counts over all batches."""
    weights, inputs = draw_tensors(network)
    net = Net(network, weights)
    model = SNNTorchModel(net)
    model.register_hooks()
    operations, updates, sparsities = SynapticOperations(), MembraneUpdates(), []
    for batch in np.split(inputs, np.cumsum(network["batches"])[:-1], axis=1):
        data = torch.from_numpy(batch.swapaxes(0, 1).copy())
        model.reset_hooks()
        outputs = model(data)
        operations(model, outputs, (data, None))
        updates(model, outputs, (data, None))
        sparsities.append(ActivationSparsity()(model, outputs, (data, None)))
    assert operations.total_synops < EXACT
    spiking = any(isinstance(layer, snntorch.Leaky) for layer in net.modules())
    active = spiking or any(isinstance(layer, nn.ReLU) for layer in net.modules())
    counts = {
        "Effective_MACs": operations.MAC, "Effective_ACs": operations.AC,
        "Dense": operations.total_synops, "samples": operations.total_samples,
        "ConnectionSparsity": ConnectionSparsity()(model),
        "ActivationSparsity": sparsities if active else None,
        "MembraneUpdates": sum(updates.neuron_membrane_updates.values()) if spiking else None,
        "Footprint": None if spiking else Footprint()(model),  # neurons bring buffers of their own
    }
    return {"checksum": checksum(weights, inputs), "counts": counts}


class Net(nn.Module):
    """A drawn network; a call is a time step, and layers keep their states in between."""

    def __init__(self, network: Network, weights: Weights) -> None:
        super().__init__()
        self.specs = network["layers"]
        self.layers = nn.ModuleList(map(build, self.specs))
        with torch.no_grad():
            for layer, tensors in zip(self.layers, weights, strict=True):
                for name, tensor in tensors.items():
                    getattr(layer, name).copy_(torch.from_numpy(tensor))
        neurons = {
            str(index): leaky(spec) for index, spec in enumerate(self.specs)
            if spec["op"] == "wired"
        }
        self.wired = nn.ModuleDict(neurons)
        self.states: dict[int, Any] = {}

    def reset(self) -> None:
        self.states = {}
        for layer in self.modules():
            if isinstance(layer, snntorch.Leaky):
                layer.reset_mem()

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        for index, (spec, layer) in enumerate(zip(self.specs, self.layers, strict=True)):
            x = self.step(index, spec, layer, x)
        return x, None

    def step(self, index: int, spec: dict[str, Any], layer: nn.Module, x: torch.Tensor):
        op = spec["op"]
        if op == "again":
            return self.layers[spec["layer"]](x)
        if op == "wired":
            spikes = self.states.get(index, torch.zeros_like(x))
            self.states[index] = self.wired[str(index)](x + layer(spikes))
            return self.states[index]
        if not spec.get("stated"):
            return layer(x)
        zeros = torch.zeros(len(x), spec["out"])
        state = self.states.get(index, (zeros, zeros) if op == "lstm" else zeros)
        self.states[index] = layer(x, state)
        return self.states[index][0] if op == "lstm" else self.states[index]


def build(spec: dict[str, Any]) -> nn.Module:
    """The torch layer of a drawn one."""
    op = spec["op"]
    if op in CELLS:
        return CELLS[op](spec["in"], spec["out"], spec["bias"])
    if op in ("linear", "wired"):
        return nn.Linear(spec["in"], spec["out"], spec["bias"])
    if op == "conv":
        kind = (nn.Conv1d, nn.Conv2d)[len(spec["kernel"]) - 1]
        padding = spec["padding"]
        return kind(
            spec["in"], spec["out"], tuple(spec["kernel"]), tuple(spec["stride"]),
            padding if padding == "same" else tuple(padding), tuple(spec["dilation"]),
            spec["groups"], spec["bias"], spec["mode"],
        )
    if op == "pool":
        name = f"{spec['kind'].capitalize()}Pool{spec['axes']}d"
        return getattr(nn, name)(2)
    if op == "leaky":
        return leaky(spec)
    return {"relu": nn.ReLU, "flatten": nn.Flatten, "again": nn.Identity}[op]()


def leaky(spec: dict[str, Any]) -> snntorch.Leaky:
    return snntorch.Leaky(
        DECAY, THRESHOLD, init_hidden=True, reset_mechanism=spec["reset"]
    )


if __name__ == "__main__":
    main()

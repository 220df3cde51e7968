"""Random small networks, drawn with NumPy alone so that other libraries can draw the same ones.

A network is plain data: layers in order, each a dict with its ``op`` and sizes, weights laid out as
torch's. ``RandomState`` is used because its streams never change. Weights are multiples of 1/4 and
inputs of 1/2, so that sums are exact in any order and nobody's rounding moves a spike.
"""

import zlib
from typing import Any

import numpy as np

Network = dict[str, Any]
Weights = list[dict[str, np.ndarray]]

DECAY, THRESHOLD = 0.5, 1.0  # of every spiking neuron
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
FAMILIES = ("mlp", "cnn1", "cnn2", "cnn2", "wired", "rnn", "shared", "lstm", "mlp", "gru")
SIGNALS = ("binary", "ternary", "graded", "mixed", "alternating")
PADDINGS = ("zeros", "reflect", "circular", "replicate")


def draw(seed: int) -> Network:
    """The network of a seed: its family goes round, all else is drawn."""
    random = np.random.RandomState(seed)
    family = FAMILIES[seed % len(FAMILIES)]
    spiking = random.rand() < 0.6
    if family.startswith("cnn"):
        shape, layers = _cnn(random, int(family[-1]), spiking)
    else:
        shape, layers = (int(random.randint(4, 12)),), []
        size = shape[0]
        if family == "shared":
            linear = _linear(random, size, size)
            layers = [linear, _activation(random, spiking), {"op": "again", "layer": 0}]
        elif family == "mlp":
            size = int(random.randint(3, 10))
            layers = [_linear(random, shape[0], size)]
        elif family == "wired":
            size = int(random.randint(3, 8))
            layers = [_linear(random, shape[0], size), _wired(random, size)]
        else:
            size = int(random.randint(3, 7))
            layers = [_cell(random, family, shape[0], size)]
        if family in ("mlp", "shared"):
            layers.append(_activation(random, spiking))
        layers.append(_linear(random, size, int(random.randint(2, 6))))
    return {
        "seed": seed, "family": family, "signal": SIGNALS[random.randint(len(SIGNALS))],
        "steps": int(random.randint(2, 5)),
        "batches": [int(size) for size in random.randint(2, 5, random.randint(1, 3))],
        "shape": list(shape), "layers": layers,
    }


def draw_tensors(network: Network) -> tuple[Weights, np.ndarray]:
    """Weights by layer, empty where it has none, and inputs [T, B, *N] of all batches."""
    random = np.random.RandomState(10_000 + network["seed"])
    weights = [
        {name: _quarters(random, shape, layer["pruned"] if name.startswith("weight") else 0.0)
         for name, shape in _shapes(layer).items()}
        for layer in network["layers"]
    ]
    lead = network["steps"], sum(network["batches"])
    return weights, _inputs(random, network["signal"], (*lead, *network["shape"]))


def checksum(weights: Weights, inputs: np.ndarray) -> int:
    """Of all tensors: whether two draws are the same."""
    arrays = [array for layer in weights for array in layer.values()]
    return zlib.crc32(b"".join(np.ascontiguousarray(a).tobytes() for a in (*arrays, inputs)))


def pads(layer: dict[str, Any]) -> list[tuple[int, int]]:
    """What a convolution adds before and after each axis."""
    if layer["padding"] != "same":
        return [(pad, pad) for pad in layer["padding"]]
    spans = [d * (k - 1) for k, d in zip(layer["kernel"], layer["dilation"], strict=True)]
    return [(span // 2, span - span // 2) for span in spans]


def _cnn(random: Any, axes: int, spiking: bool) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    channels = 2 * int(random.randint(1, 3))
    shape = (channels, *(int(size) for size in random.randint(6, 9, axes)))
    layers, size = [], list(shape[1:])
    for _ in range(random.randint(1, 3)):
        layer = _conv(random, channels, size)
        layers += [layer, _activation(random, spiking)]
        channels, size = layer["out"], _sizes(layer, size)
        if min(size) >= 4 and random.rand() < 0.7:
            kind = ("avg", "max")[random.randint(2)]
            layers.append({"op": "pool", "kind": kind, "axes": axes})
            size = [length // 2 for length in size]
    layers.append({"op": "flatten"})
    layers.append(_linear(random, channels * int(np.prod(size)), int(random.randint(2, 6))))
    return shape, layers


def _conv(random: Any, channels: int, size: list[int]) -> dict[str, Any]:
    """A convolution whose output is not empty and whose padding its input can supply."""
    while True:
        axes = len(size)
        same = random.rand() < 0.3
        layer = {
            "op": "conv", "in": channels, "out": 2 * int(random.randint(1, 4)),
            "kernel": _integers(random, 1, 4, axes),
            "stride": [1] * axes if same else _integers(random, 1, 3, axes),
            "padding": "same" if same else _integers(random, 0, 3, axes),
            "mode": PADDINGS[random.randint(len(PADDINGS))],
            "dilation": _integers(random, 1, 3, axes), "groups": 1 + int(random.rand() < 0.4),
            **_options(random),
        }
        fits = all(max(pad) < length for pad, length in zip(pads(layer), size, strict=True))
        if fits and min(_sizes(layer, size)) >= 1:
            return layer


def _sizes(layer: dict[str, Any], size: list[int]) -> list[int]:
    parts = zip(size, pads(layer), layer["kernel"], layer["dilation"], layer["stride"], strict=True)
    return [(n + sum(pad) - d * (k - 1) - 1) // s + 1 for n, pad, k, d, s in parts]


def _linear(random: Any, inputs: int, outputs: int) -> dict[str, Any]:
    return {"op": "linear", "in": inputs, "out": outputs, **_options(random)}


def _cell(random: Any, kind: str, inputs: int, outputs: int) -> dict[str, Any]:
    options = _options(random)
    options["bias"] |= kind == "gru"  # NeuroBench cannot count one without
    stated = kind != "rnn" or bool(random.rand() < 0.7)
    return {"op": kind, "in": inputs, "out": outputs, "stated": stated, **options}


def _wired(random: Any, size: int) -> dict[str, Any]:
    """Spiking neurons that a matrix wires to each other."""
    return {**_linear(random, size, size), "op": "wired", "reset": _reset(random)}


def _activation(random: Any, spiking: bool) -> dict[str, Any]:
    return {"op": "leaky", "reset": _reset(random)} if spiking else {"op": "relu"}


def _reset(random: Any) -> str:
    return ("subtract", "zero")[random.randint(2)]


def _options(random: Any) -> dict[str, Any]:
    pruned = float(random.choice([0.0, 0.0, 0.5, 0.875]))
    return {"bias": bool(random.rand() < 0.5), "pruned": pruned}


def _integers(random: Any, low: int, high: int, number: int) -> list[int]:
    return [int(value) for value in random.randint(low, high, number)]


def _shapes(layer: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Parameters of a layer by torch's names."""
    op = layer["op"]
    if op in GATES:
        rows = GATES[op] * layer["out"]
        shapes = {"weight_ih": (rows, layer["in"]), "weight_hh": (rows, layer["out"])}
        biases = ("bias_ih", "bias_hh")
    elif op in ("linear", "wired", "conv"):
        rows = layer["out"]
        inputs = (layer["in"] // layer.get("groups", 1), *layer.get("kernel", ()))
        shapes, biases = {"weight": (rows, *inputs)}, ("bias",)
    else:
        return {}
    return shapes | (dict.fromkeys(biases, (rows,)) if layer["bias"] else {})


def _quarters(random: Any, shape: tuple[int, ...], pruned: float) -> np.ndarray:
    values = random.randint(-4, 5, shape) / 4
    return np.where(random.rand(*shape) < pruned, 0.0, values).astype(np.float32)


def _inputs(random: Any, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    binary = (random.rand(*shape) < 0.4).astype(np.float32)
    signs = random.choice([-1.0, 1.0], shape)
    graded = binary * signs * random.randint(1, 6, shape) / 2
    if kind == "mixed":  # samples of a batch
        graded[:, ::2] = binary[:, ::2]
    if kind == "alternating":  # steps of a run
        graded[::2] = binary[::2]
    signals = {"binary": binary, "ternary": binary * signs}
    return signals.get(kind, graded).astype(np.float32)

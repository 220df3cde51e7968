"""Drawn networks run with NumPy, and what their connections are to the library."""

from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from drawn_networks import DECAY, THRESHOLD, Network, Weights, pads
from numpy.lib.stride_tricks import sliding_window_view

from fastsnn_jax.energy.neurobench import Connection
from fastsnn_jax.energy.recurrent_cells import Cell

MODES = {"zeros": "constant", "reflect": "reflect", "circular": "wrap", "replicate": "edge"}


class Traffic(NamedTuple):
    """What a batch sent through a network, [T, B, ...] by the number of the layer."""

    signals: dict[int, Any]
    activations: dict[int, np.ndarray]
    membranes: dict[int, np.ndarray]


def connections(network: Network, weights: Weights) -> dict[int, Connection | Cell]:
    """Layers with weights, by their numbers."""
    found = {}
    for index, (layer, tensors) in enumerate(zip(network["layers"], weights, strict=True)):
        if layer["op"] in ("linear", "wired"):
            found[index] = Connection(jnp.matmul, tensors["weight"])
        elif layer["op"] == "conv":
            found[index] = Connection(_convolution(layer), tensors["weight"])
        elif tensors:
            found[index] = Cell(layer["op"], **tensors)
    return found


def run(network: Network, weights: Weights, inputs: np.ndarray) -> Traffic:
    """Runs inputs [T, B, *N] step by step from rest."""
    heard, sent, membranes = defaultdict(list), defaultdict(list), defaultdict(list)
    states: dict[int, Any] = {}

    def fire(index: int, layer: dict[str, Any], current: np.ndarray) -> np.ndarray:
        v = states.get((index, "v"), np.zeros_like(current))
        reset = (v > THRESHOLD).astype(np.float32)
        if layer["reset"] == "zero":
            v = v * (1 - reset)
        v = DECAY * v + current - (reset * THRESHOLD if layer["reset"] == "subtract" else 0)
        states[index, "v"] = v.astype(np.float32)
        membranes[index].append(states[index, "v"])
        return (v > THRESHOLD).astype(np.float32)

    for x in inputs:
        for index, layer in enumerate(network["layers"]):
            op, tensors = layer["op"], weights[index]
            if op == "again":
                index = layer["layer"]
                layer, tensors = network["layers"][index], weights[index]
                op = layer["op"]
            if op == "flatten":
                x = x.reshape(len(x), -1)
            elif op == "pool":
                x = _pool(layer, x)
            elif op in ("relu", "leaky"):
                x = np.maximum(x, 0) if op == "relu" else fire(index, layer, x)
                sent[index].append(x)
            elif op == "wired":
                spikes = states.get(index, np.zeros_like(x))
                heard[index].append(spikes)
                x = states[index] = fire(index, layer, x + _linear(tensors, spikes))
                sent[index].append(x)
            elif op == "linear":
                heard[index].append(x)
                x = _linear(tensors, x)
            elif op == "conv":
                heard[index].append(x)
                x = _convolve(layer, tensors, x)
            else:
                zeros = np.zeros((len(x), layer["out"]), np.float32)
                state = states.get(index, (zeros, zeros) if op == "lstm" else zeros)
                heard[index].append((x, state) if layer["stated"] else (x,))
                after = _cell(op, tensors, x, state)
                states[index] = after if layer["stated"] else state
                x = after[0] if op == "lstm" else after
    stack = lambda calls: jax.tree.map(lambda *call: np.stack(call), *calls)  # noqa: E731
    return Traffic(*({key: stack(calls) for key, calls in group.items()}
                     for group in (heard, sent, membranes)))


def _linear(tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return x @ tensors["weight"].T + tensors.get("bias", np.float32(0))


def _pool(layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Windows of 2, without overlap; what is left over at the end is dropped."""
    reduce = {"avg": np.mean, "max": np.max}[layer["kind"]]
    for axis in range(2, x.ndim):
        length = x.shape[axis] // 2 * 2
        x = np.take(x, range(length), axis)
        x = reduce(x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1:]), axis=axis + 1)
    return x


def _convolve(
    layer: dict[str, Any], tensors: dict[str, np.ndarray], x: np.ndarray
) -> np.ndarray:
    axes, groups = len(layer["kernel"]), layer["groups"]
    x = np.pad(x, [(0, 0), (0, 0), *pads(layer)], mode=MODES[layer["mode"]])
    spans = [d * (k - 1) + 1 for k, d in zip(layer["kernel"], layer["dilation"], strict=True)]
    windows = sliding_window_view(x, spans, tuple(range(2, 2 + axes)))
    steps = [slice(None, None, step) for step in (*layer["stride"], *layer["dilation"])]
    windows = windows[:, :, *steps]
    windows = windows.reshape(len(x), groups, -1, *windows.shape[2:])
    weight = tensors["weight"]
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    places, taps = "yx"[:axes], "hw"[:axes]
    y = np.einsum(f"bgc{places}{taps},goc{taps}->bgo{places}", windows, weight)
    y = y.reshape(len(x), -1, *y.shape[3:])
    return y + tensors.get("bias", np.zeros(y.shape[1], np.float32)).reshape(-1, *axes * [1])


def _convolution(layer: dict[str, Any]):
    """The same as JAX has it, of one sample [C, *S]."""
    axes = "HW"[:len(layer["kernel"])]

    def apply(weight, x):
        x = jnp.pad(x, [(0, 0), *pads(layer)], mode=MODES[layer["mode"]])
        return jax.lax.conv_general_dilated(
            x[None], weight, layer["stride"], "VALID", rhs_dilation=layer["dilation"],
            dimension_numbers=(f"NC{axes}", f"OI{axes}", f"NC{axes}"),
            feature_group_count=layer["groups"],
        )[0]

    return apply


def _cell(op: str, tensors: dict[str, np.ndarray], x: np.ndarray, state: Any) -> Any:
    """The next state, by the equations in torch's documentation."""
    h = state[0] if op == "lstm" else state
    zero = np.float32(0)
    from_x = x @ tensors["weight_ih"].T + tensors.get("bias_ih", zero)
    from_h = h @ tensors["weight_hh"].T + tensors.get("bias_hh", zero)
    if op == "rnn":
        return np.tanh(from_x + from_h)
    if op == "lstm":
        i, f, g, o = np.split(from_x + from_h, 4, axis=1)
        c = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(c), c
    (r, z, n), (r_h, z_h, n_h) = (np.split(part, 3, axis=1) for part in (from_x, from_h))
    z = _sigmoid(z + z_h)
    return (1 - z) * np.tanh(n + _sigmoid(r + r_h) * n_h) + z * h


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))

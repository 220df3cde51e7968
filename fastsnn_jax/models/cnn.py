"""Small convolutional spiking network."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from fastsnn_jax._typing import State
from fastsnn_jax.models._layers import Signal, conv_synapse, dense_synapse, run_layers
from fastsnn_jax.neurons import lif
from fastsnn_jax.nn.spiking import SpikingConv, SpikingDense

_STRIDES = (2, 2)


class CNN(nn.Module):
    """Strided spiking convolutions and a dense readout; every layer spikes.

        x [T, B, 28, 28, 1] -> conv0 [14, 14, 12] -> conv1 [7, 7, 24] -> dense [K] -> sum over T

    Interface and `activity` as in ``MLP``, with keys "conv0/kernel", ..., "dense/kernel",
    "output". Strides take the place of pooling, so all traffic between layers is spikes.

    Attributes:
      channels: of each 3x3 convolution, stride 2.
      num_classes: K.
      neuron: of every layer.
      logit_scale: logit per output spike.
      gain: scale of the initial kernels, see `SpikingDense`.
    """

    channels: tuple[int, ...] = (12, 24)
    num_classes: int = 10
    neuron: Any = lif()
    logit_scale: float = 1.0
    gain: float = 1.0

    def __call__(self, x: Signal, trace: tuple[str, ...] = ()):
        """Runs all T from rest; see ``MLP.run``."""
        return self.run(None, x, trace)[1]

    @nn.compact
    def run(self, state: State, x: Signal, trace: tuple[str, ...] = ()):
        """Runs a window of time on ``x [T, B, H, W, C]``; see ``MLP.run``."""
        layers: dict[str, nn.Module] = {
            f"conv{i}": SpikingConv(
                width, self.neuron, strides=_STRIDES, gain=self.gain, name=f"conv{i}"
            )
            for i, width in enumerate(self.channels)
        }
        layers["dense"] = SpikingDense(self.num_classes, self.neuron, self.gain, name="dense")
        return run_layers(layers, state, x, self.logit_scale, trace)

    def rest(self, batch: int, input_shape: tuple[int, ...]) -> State:
        """State of the whole network at rest, for `run` on ``input_shape`` (H, W, C)."""
        shapes = [*self._map_shapes(input_shape), (self.num_classes,)]
        return tuple(self.neuron.rest((batch, *shape)) for shape in shapes)

    def synapses(self, variables: Any, input_shape: tuple[int, ...]) -> dict[str, Callable]:
        """Linear map ``[*N] -> [*M]`` of every synapse, for one step, keyed as `activity`."""
        del input_shape  # convolutions take any
        params = variables["params"]
        maps = {
            f"conv{i}/kernel": conv_synapse(params[f"conv{i}"]["kernel"], _STRIDES)
            for i in range(len(self.channels))
        }
        return {**maps, "dense/kernel": dense_synapse(params["dense"]["kernel"])}

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, in order: parameter groups and ``trace`` names."""
        return (*(f"conv{i}" for i in range(len(self.channels))), "dense")

    def _map_shapes(self, input_shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
        height, width, _ = input_shape
        shapes = []
        for channels in self.channels:
            height, width = -(-height // _STRIDES[0]), -(-width // _STRIDES[1])
            shapes.append((height, width, channels))
        return shapes

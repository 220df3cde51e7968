"""Fully connected spiking network."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from fastsnn_jax._typing import State
from fastsnn_jax.models._layers import Signal, dense_synapse, run_layers
from fastsnn_jax.neurons import lif
from fastsnn_jax.nn.spiking import SpikingDense


class MLP(nn.Module):
    """Spiking multilayer perceptron; every layer spikes, the logits are the output's counts.

        x [T, B, N] -> dense0 -> spikes [T, B, 400] -> dense1 -> spikes [T, B, K] -> sum over T

    ``apply(variables, x) -> (logits [B, K], activity)`` with `activity` keys "dense0/kernel",
    "dense1/kernel", ..., "output". ``x`` is a dense train or a `SpikeTensor` in event form.

    Attributes:
      features: neurons of each layer, the last one the number of classes K.
      neuron: of every layer.
      logit_scale: logit per output spike; the softmax of raw counts is too sharp to train well.
      gain: scale of the initial kernels, see `SpikingDense`.
    """

    features: tuple[int, ...] = (400, 10)
    neuron: Any = lif()
    logit_scale: float = 1.0
    gain: float = 1.0

    def __call__(self, x: Signal, trace: tuple[str, ...] = ()):
        """Runs all T from rest; arguments and results as in `run`, without the state."""
        return self.run(None, x, trace)[1]

    @nn.compact
    def run(self, state: State, x: Signal, trace: tuple[str, ...] = ()):
        """Runs a window of time: ``(state, x [T, B, N]) -> (state, (logits, activity))``.

        The logits and counts of consecutive windows add up to those of one long run. ``state`` is
        that of the window before, or None for rest. With layer names in ``trace`` the outputs are
        ``(logits, activity, {name: Trace})``.
        """
        layers = {
            name: SpikingDense(width, self.neuron, self.gain, name=name)
            for name, width in zip(self.layer_names, self.features, strict=True)
        }
        return run_layers(layers, state, x, self.logit_scale, trace)

    def rest(self, batch: int, input_shape: tuple[int, ...]) -> State:
        """State of the whole network at rest, for `run` on ``input_shape`` (N,)."""
        del input_shape  # the widths are fixed
        return tuple(self.neuron.rest((batch, width)) for width in self.features)

    def synapses(self, variables: Any, input_shape: tuple[int, ...]) -> dict[str, Callable]:
        """Linear map ``[*N] -> [*M]`` of every synapse, for one step, keyed as `activity`."""
        del input_shape  # a dense synapse has one shape only
        params = variables["params"]
        return {
            f"{name}/kernel": dense_synapse(params[name]["kernel"]) for name in self.layer_names
        }

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, in order: parameter groups and ``trace`` names."""
        return tuple(f"dense{i}" for i in range(len(self.features)))

"""Flax layers over the pure core: synapses see all T at once, neurons scan it."""

from fastsnn_jax.nn.spiking import Spiking, SpikingConv, SpikingDense, Trace

__all__ = ["Spiking", "SpikingConv", "SpikingDense", "Trace"]

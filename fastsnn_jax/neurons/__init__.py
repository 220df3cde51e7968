"""Neurons: frozen, hashable descriptions with four pure functions.

Every factory here returns an object with

    init(key, shape)               -> params    learnable leaves for neurons of shape [*N]
    rest(shape, dtype=float32)     -> state     NamedTuple for shape [B, *N]
    step(params, state, current)   -> (state, spikes)          current [B, *N]
    unroll(params, state, currents) -> (state, spikes)         currents [T, B, *N]

The state keeps its own dtype; spikes come in the current's. ``unroll`` equals
``fastsnn_jax.unroll(neuron.step, ...)`` and is faster where there is a way.
"""

from fastsnn_jax.neurons.adaptive_lif import AdaptiveLIF, AdaptiveLIFState, adaptive_lif
from fastsnn_jax.neurons.current_lif import CurrentLIF, CurrentLIFState, current_lif
from fastsnn_jax.neurons.leaky_integrator import LeakyIntegrator, leaky_integrator
from fastsnn_jax.neurons.lif import LIF, LIFState, integrate_and_fire, lif
from fastsnn_jax.neurons.presets import lif_preset
from fastsnn_jax.neurons.recurrent import Recurrent, RecurrentState, recurrent

__all__ = [
    "LIF", "AdaptiveLIF", "AdaptiveLIFState", "CurrentLIF", "CurrentLIFState", "LIFState",
    "LeakyIntegrator", "Recurrent", "RecurrentState", "adaptive_lif", "current_lif",
    "integrate_and_fire", "leaky_integrator", "lif", "lif_preset", "recurrent",
]

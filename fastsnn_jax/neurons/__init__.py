"""Neurons: frozen, hashable descriptions with four pure functions.

Every factory here returns an object with

    init(key, shape)               -> params    learnable leaves for neurons of shape [*N]
    rest(shape, dtype=float32)     -> state     NamedTuple for shape [B, *N]
    step(params, state, current)   -> (state, spikes)          current [B, *N]
    unroll(params, state, currents) -> (state, spikes)         currents [T, B, *N]

The state keeps its own dtype; spikes come in the current's. ``unroll`` equals
``fastsnn_jax.unroll(neuron.step, ...)`` and is faster where there is a way.

Two neurons have their time collapsed into integer counts (sINT) and so no state:
``adaptive_threshold`` and ``lif_sint`` return an object with

    init(key, shape)               -> params      learnable leaves for [D] features
    encode(params, x)              -> SpikeTensor counts of x [*lead, D], integers in x's dtype
    integrate(params, currents)    -> SpikeTensor counts of the sum of currents [T, *lead, D]
    channel_scale(params)          -> [D] or None scale left to fold into the next kernel
"""

from fastsnn_jax.neurons.adaptive_lif import AdaptiveLIF, AdaptiveLIFState, adaptive_lif
from fastsnn_jax.neurons.adaptive_threshold import AdaptiveThreshold, adaptive_threshold
from fastsnn_jax.neurons.current_lif import CurrentLIF, CurrentLIFState, current_lif
from fastsnn_jax.neurons.leaky_integrator import LeakyIntegrator, leaky_integrator
from fastsnn_jax.neurons.lif import LIF, LIFState, integrate_and_fire, lif
from fastsnn_jax.neurons.lif_sint import LIFSint, lif_sint
from fastsnn_jax.neurons.presets import lif_preset
from fastsnn_jax.neurons.recurrent import Recurrent, RecurrentState, recurrent

__all__ = [
    "LIF", "AdaptiveLIF", "AdaptiveLIFState", "AdaptiveThreshold", "CurrentLIF",
    "CurrentLIFState", "LIFSint", "LIFState", "LeakyIntegrator", "Recurrent", "RecurrentState",
    "adaptive_lif", "adaptive_threshold", "current_lif", "integrate_and_fire", "leaky_integrator",
    "lif", "lif_preset", "lif_sint", "recurrent",
]

"""fastsnn_jax: spiking neural networks as pure JAX functions, with exact spike accounting.

Everything that has time is one pure function ``step(params, state, x) -> (state, y)``; `unroll`
runs any of them and any of them can stop and resume.
"""

from fastsnn_jax import (
    activity,
    codings,
    data,
    encoding,
    losses,
    models,
    neurons,
    nn,
    scope,
    sharding,
    surrogate,
    train,
)
from fastsnn_jax.activity import SpikeCount, count_spikes, firing_rates
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.data import DataError
from fastsnn_jax.neurons import (
    adaptive_lif,
    current_lif,
    integrate_and_fire,
    leaky_integrator,
    lif,
    lif_preset,
    recurrent,
)
from fastsnn_jax.recipes import load_run
from fastsnn_jax.record import RecordError, load_record
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.train.fit import fit
from fastsnn_jax.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "CheckpointError", "Checkpoints", "DataError", "RecordError", "SpikeCount", "SpikeTensor",
    "activity", "adaptive_lif", "codings", "count_spikes", "current_lif", "data", "encoding",
    "firing_rates", "fit", "integrate_and_fire", "leaky_integrator", "lif", "lif_preset",
    "load_record", "load_run", "losses", "models", "neurons", "nn", "recurrent", "scope",
    "sharding", "surrogate", "train", "unroll",
]

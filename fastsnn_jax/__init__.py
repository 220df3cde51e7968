"""fastsnn_jax: spiking neural networks as pure JAX functions, with exact spike accounting.

Everything that has time is one pure function ``step(params, state, x) -> (state, y)``; `unroll`
runs any of them and any of them can stop and resume.
"""

from fastsnn_jax import (
    activity,
    attention,
    codings,
    conversion,
    data,
    encoding,
    energy,
    generation,
    losses,
    models,
    neurons,
    nn,
    pretrained,
    scope,
    sharding,
    surrogate,
    train,
)
from fastsnn_jax.activity import SpikeCount, TokenSpikes, count_spikes, count_tokens, firing_rates
from fastsnn_jax.checkpoint import CheckpointError, Checkpoints
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.conversion import Converted, convert
from fastsnn_jax.data import DataError
from fastsnn_jax.generation import Sampling, generate, stream_prefill
from fastsnn_jax.models import build_model_from_config
from fastsnn_jax.neurons import (
    adaptive_lif,
    adaptive_threshold,
    current_lif,
    integrate_and_fire,
    leaky_integrator,
    lif,
    lif_preset,
    lif_sint,
    recurrent,
)
from fastsnn_jax.pretrained import (
    PretrainedError,
    hybridize,
    load_pretrained,
    save_pretrained,
)
from fastsnn_jax.recipes import load_run
from fastsnn_jax.record import RecordError, load_record
from fastsnn_jax.registry import (
    ATTENTION,
    FFN,
    NEURONS,
    Registry,
    register_attention,
    register_ffn,
    register_neuron,
)
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.train.config import TrainConfig
from fastsnn_jax.train.fit import fit
from fastsnn_jax.train.trainer import Trainer
from fastsnn_jax.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "ATTENTION", "CheckpointError", "Checkpoints", "Converted", "DataError", "FFN", "NEURONS",
    "PretrainedError", "RecordError", "Registry", "SNNConfig", "Sampling", "SpikeCount",
    "SpikeTensor", "TokenSpikes", "TrainConfig", "Trainer", "activity", "adaptive_lif",
    "adaptive_threshold", "attention", "build_model_from_config", "codings", "conversion",
    "convert", "count_spikes", "count_tokens", "current_lif", "data", "encoding", "energy",
    "firing_rates", "fit", "generate", "generation", "hybridize", "integrate_and_fire",
    "leaky_integrator", "lif", "lif_preset", "lif_sint", "load_pretrained", "load_record",
    "load_run", "losses", "models", "neurons", "nn", "pretrained", "recurrent",
    "register_attention", "register_ffn", "register_neuron", "save_pretrained", "scope", "sharding",
    "stream_prefill", "surrogate", "train", "unroll",
]

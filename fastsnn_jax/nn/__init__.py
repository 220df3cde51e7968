"""Flax layers over the pure core: spiking layers that scan time, and layers of language models."""

from fastsnn_jax.nn.attention import LinearAttention, SlidingWindowAttention, SoftmaxAttention
from fastsnn_jax.nn.block import Block
from fastsnn_jax.nn.ffn import GatedFFN, PulseFFN
from fastsnn_jax.nn.hybrid import HybridMix
from fastsnn_jax.nn.projection import Coded, Coding, Projection, project
from fastsnn_jax.nn.spiking import Spiking, SpikingConv, SpikingDense, Trace

__all__ = [
    "Block", "Coded", "Coding", "GatedFFN", "HybridMix", "LinearAttention", "Projection",
    "PulseFFN", "SlidingWindowAttention", "SoftmaxAttention", "Spiking", "SpikingConv",
    "SpikingDense", "Trace", "project",
]

"""Adaptive-threshold neuron: each token's activations as small integer spike counts."""

import dataclasses

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check_number
from fastsnn_jax._typing import Array, Float, Key, Params
from fastsnn_jax.kernels.tally import Tally
from fastsnn_jax.neurons import _sint
from fastsnn_jax.spikes import SpikeTensor

MIN_THRESHOLD, MAX_THRESHOLD = 1e-5, 1e4  # SpikingBrain's own clamp


@dataclasses.dataclass(frozen=True)
class AdaptiveThreshold:
    """sINT neuron with a threshold per token; built by ``adaptive_threshold``, see there."""

    k: float
    signed: bool
    limit: int
    rounding: str
    window: str
    tau: float
    legacy_time_collapse: bool

    def __post_init__(self) -> None:
        check_number("adaptive_threshold", "k", self.k, above=0.0, at_most=1e6)
        _sint.check_settings(self, "adaptive_threshold")

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Returns no parameters: the threshold follows from the input."""
        del key, shape
        return {}

    def encode(self, params: Params, x: Float[Array, "*lead D"]) -> SpikeTensor:
        """Returns the counts of ``x``, in its dtype, with a float32 threshold ``[*lead, 1]``."""
        return self.encode_tallied(params, x)[0]

    def encode_tallied(
        self, params: Params, x: Float[Array, "*lead D"]
    ) -> tuple[SpikeTensor, Tally | None]:
        """`encode`, and the sums of its counts over the channels, made in the same pass."""
        del params
        x = jnp.asarray(x)
        _sint.check_potential(self, "adaptive_threshold", "x", x, axes=1)
        return self._fire(_sint.widen(x), x.dtype)

    def integrate(self, params: Params, currents: Float[Array, "T *lead D"]) -> SpikeTensor:
        """Returns the counts of the sum of ``currents`` over T."""
        del params
        _sint.check_potential(self, "adaptive_threshold", "currents", currents, axes=2)
        return self._fire(jnp.sum(_sint.widen(currents), axis=0), currents.dtype)[0]

    def channel_scale(self, params: Params) -> None:
        """Returns None: the scale of the counts is the SpikeTensor's own threshold."""
        del params

    def _fire(self, x: Array, dtype) -> tuple[SpikeTensor, Tally | None]:
        if self.legacy_time_collapse:
            mean = jnp.mean(jnp.abs(x), axis=-2, keepdims=True)
            ratio = jnp.sum(x, axis=-2, keepdims=True) / jnp.maximum(mean / self.k, MIN_THRESHOLD)
            return _sint.collapsed_spikes(self, ratio, x.shape, dtype)
        mean = jnp.mean(jnp.abs(jax.lax.stop_gradient(x)), axis=-1, keepdims=True)
        threshold = jnp.clip(mean / self.k, MIN_THRESHOLD, MAX_THRESHOLD)
        return _sint.spikes_of(self, x / threshold, threshold, dtype)


def adaptive_threshold(
    k: float = 3.0,
    *,
    signed: bool = True,
    limit: int = 127,
    rounding: str = "nearest",
    window: str = "identity",
    tau: float = 1.0,
    legacy_time_collapse: bool = False,
) -> AdaptiveThreshold:
    """Spike counts of a token against its own mean activation.

        V = clamp(mean_D |x| / k, 1e-5, 1e4)                  (no gradient)
        s = clip(round(x / V), -limit, limit)                 (0 .. limit where not signed)
        value = V * s,  d value / d x = 1 where |x / V| <= limit, else 0

    A count is what an integrate-and-fire neuron with reset by subtraction emits over ``limit``
    steps from V / 2, exact ties aside. No neuron mixes tokens, so a causal model stays causal.
    NaN stays NaN, in all counts of its token.

    Args:
      k: about the mean of |s|: higher is finer and costs more spikes. For Gaussian, Laplace and
        Student-t5 inputs k = 3 gives 1.30, 1.22 and 1.27 spikes per channel in bit planes.
      signed: False is the spiking ReLU, whose negatives are zeros and not saturated.
      limit: largest |s|; larger ones are clipped and counted in ``saturated``.
      rounding: "nearest" (half to even) or "down" (towards 0).
      window, tau: gradient of the rounding, see ``surrogate.round_ste``.
      legacy_time_collapse: FastSNN's neuron, for parity studies: it sums over the tokens (axis
        -2), V is their mean, counts are >= 0, alike at every position and not scaled back;
        gradients flow through V too. ``signed`` and ``limit`` do not apply; its gradient is
        window "sigmoid". Every token sees the future.

    Returns:
      A neuron with ``init``, ``encode``, ``integrate`` and ``channel_scale``.

    Raises:
      ValueError, TypeError: for a setting out of range, an ``x`` that is not floating, or a dtype
        too narrow for ``limit``.

    Source: SpikingBrain technical report, arXiv:2509.05276, equations 19 to 21.

    >>> neuron = adaptive_threshold(k=2.0)
    >>> spikes = neuron.encode({}, jnp.array([[0.25, -1.0, 2.5, 0.25]]))
    >>> spikes.data, spikes.threshold, spikes.value()
    (Array([[ 0., -2.,  5.,  0.]], dtype=float32), Array([[0.5]], dtype=float32), \
Array([[ 0. , -1. ,  2.5,  0. ]], dtype=float32))
    """
    return AdaptiveThreshold(k, signed, limit, rounding, window, tau, legacy_time_collapse)

"""Integer-count neuron with a learned threshold per feature."""

import dataclasses
import math

import jax.numpy as jnp

from fastsnn_jax._checks import check, check_count, check_number
from fastsnn_jax._typing import Array, Float, Key, Params
from fastsnn_jax.kernels.tally import Tally
from fastsnn_jax.neurons import _sint
from fastsnn_jax.spikes import SpikeTensor


@dataclasses.dataclass(frozen=True)
class LIFSint:
    """sINT neuron with a threshold per feature; built by ``lif_sint``, see there."""

    threshold: float
    signed: bool
    limit: int
    rounding: str
    window: str
    tau: float
    legacy_time_collapse: bool

    def __post_init__(self) -> None:
        check_number("lif_sint", "threshold", self.threshold, above=0.0, at_most=1e30)
        _sint.check_settings(self, "lif_sint")

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Returns ``log_threshold`` ``[D]`` in float32, at the neuron's own threshold."""
        del key  # every feature starts at the same constant
        for size in shape:
            check_count("lif_sint", "every size in shape", size)
        return {"log_threshold": jnp.full(tuple(shape), math.log(self.threshold), jnp.float32)}

    def encode(self, params: Params, x: Float[Array, "*lead D"]) -> SpikeTensor:
        """Returns the counts of ``x``, in its dtype, with threshold 1; see ``channel_scale``."""
        return self.encode_tallied(params, x)[0]

    def encode_tallied(
        self, params: Params, x: Float[Array, "*lead D"]
    ) -> tuple[SpikeTensor, Tally | None]:
        """`encode`, and the sums of its counts over the channels, made in the same pass."""
        x = jnp.asarray(x)
        _sint.check_potential(self, "lif_sint", "x", x, axes=1)
        return self._fire(params, _sint.widen(x), x.dtype)

    def integrate(self, params: Params, currents: Float[Array, "T *lead D"]) -> SpikeTensor:
        """Returns the counts of the sum of ``currents`` over T."""
        _sint.check_potential(self, "lif_sint", "currents", currents, axes=2)
        return self._fire(params, jnp.sum(_sint.widen(currents), axis=0), currents.dtype)[0]

    def channel_scale(self, params: Params) -> Float[Array, " D"] | None:
        """Returns theta, which the next kernel takes up; None where counts are not scaled back."""
        return None if self.legacy_time_collapse else jnp.exp(params["log_threshold"])

    def _fire(self, params: Params, x: Array, dtype) -> tuple[SpikeTensor, Tally | None]:
        theta = jnp.exp(params["log_threshold"])
        check(theta.shape == x.shape[-1:], "lif_sint",
              f"x must have {theta.shape} features", x.shape[-1:])
        if self.legacy_time_collapse:
            ratio = jnp.sum(x, axis=-2, keepdims=True) / theta
            return _sint.collapsed_spikes(self, ratio, x.shape, dtype)
        return _sint.spikes_of(self, x / theta, 1.0, dtype)


def lif_sint(
    threshold: float = 1.0,
    *,
    signed: bool = True,
    limit: int = 127,
    rounding: str = "nearest",
    window: str = "identity",
    tau: float = 1.0,
    legacy_time_collapse: bool = False,
) -> LIFSint:
    """Spike counts against a threshold that every feature learns.

        theta = exp(log_threshold)
        s = clip(round(x / theta), -limit, limit)             (0 .. limit where not signed)
        d (theta s) / d x     = 1 where |x / theta| <= limit, else 0
        d (theta s) / d theta = s - x / theta there, else +-limit             (LSQ)

    The counts stand for ``theta * s``: fold ``channel_scale(params)`` into the kernel that reads
    them, ``(s * theta) @ W = s @ (theta[:, None] * W)``, and they stay integers.

    Args:
      threshold: theta at the start, > 0. For inputs of unit variance 1.0 is coarse (mean |s|
        about 0.7); sqrt(2 / pi) / k starts where ``adaptive_threshold(k)`` would be.
      signed: False is the spiking ReLU, whose negatives are zeros and not saturated.
      limit: largest |s|; larger ones are clipped and counted in ``saturated``.
      rounding: "nearest" (half to even) or "down" (towards 0).
      window, tau: gradient of the rounding, see ``surrogate.round_ste``; the gradients above are
        those of "identity".
      legacy_time_collapse: FastSNN's neuron, for parity studies: it sums over the tokens (axis
        -2), counts are >= 0, alike at every position and not scaled back. ``signed`` and
        ``limit`` do not apply; its gradient is window "sigmoid". Every token sees the future.

    Returns:
      A neuron with ``init``, ``encode``, ``integrate`` and ``channel_scale``.

    Raises:
      ValueError, TypeError: for a setting out of range, an ``x`` that is not floating or does not
        fit the parameters, or a dtype too narrow for ``limit``.

    Source: FastSNN, ``neurons/lif_sint.py``; gradient of the threshold: Esser et al. 2020,
    arXiv:1902.08153, equation 3.

    >>> neuron = lif_sint(0.5)
    >>> params = neuron.init(None, (3,))
    >>> neuron.encode(params, jnp.array([[0.25, -1.0, 2.5]])).data, neuron.channel_scale(params)
    (Array([[ 0., -2.,  5.]], dtype=float32), Array([0.5, 0.5, 0.5], dtype=float32))
    """
    return LIFSint(threshold, signed, limit, rounding, window, tau, legacy_time_collapse)

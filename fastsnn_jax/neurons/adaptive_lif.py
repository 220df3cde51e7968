"""LIF neurons whose threshold rises with each spike."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from fastsnn_jax._checks import check_number
from fastsnn_jax._typing import Array, Float, Key, Params
from fastsnn_jax.neurons import _parts
from fastsnn_jax.neurons.lif import LIF, lif
from fastsnn_jax.surrogate import Surrogate
from fastsnn_jax.unroll import unroll


class AdaptiveLIFState(NamedTuple):
    """State of an adaptive LIF neuron."""

    v: Array  # membrane [B, *N]
    adaptation: Array  # recent firing in [0, 1], [B, *N]


@dataclasses.dataclass(frozen=True)
class AdaptiveLIF:
    """LIF with an adaptive threshold; built by ``adaptive_lif``."""

    membrane: LIF
    adaptation_decay: float
    adaptation: float

    def __post_init__(self) -> None:
        _parts.check_decay("adaptive_lif", "adaptation_decay", self.adaptation_decay)
        check_number("adaptive_lif", "adaptation", self.adaptation, at_least=0.0, at_most=1e30)

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Returns the learnable leaves, those of the membrane."""
        return self.membrane.init(key, shape)

    def rest(self, shape: tuple[int, ...], dtype=jnp.float32) -> AdaptiveLIFState:
        """Returns the state at rest for ``shape`` ``[B, *N]``."""
        v = _parts.zeros("adaptive_lif", shape, dtype)
        return AdaptiveLIFState(v, v)

    def step(
        self, params: Params, state: AdaptiveLIFState, current: Float[Array, "B *N"]
    ) -> tuple[AdaptiveLIFState, Float[Array, "B *N"]]:
        """Advances one step; spikes come in ``current``'s dtype."""
        _parts.check_current("adaptive_lif", params, state.v, current)
        decay, threshold, gain = self.membrane.constants(params, state.v.dtype)
        u = decay * state.v + gain * current.astype(state.v.dtype)
        v, spikes = self.membrane.fire(u, threshold + self.adaptation * state.adaptation)
        kept = self.adaptation_decay
        adaptation = kept * state.adaptation + (1 - kept) * spikes
        return AdaptiveLIFState(v, adaptation), spikes.astype(current.dtype)

    def unroll(
        self, params: Params, state: AdaptiveLIFState, currents: Float[Array, "T B *N"]
    ) -> tuple[AdaptiveLIFState, Float[Array, "T B *N"]]:
        """Runs over T."""
        _parts.check_all_finite("adaptive_lif", params, currents)
        return unroll(self.step, params, state, currents)


def adaptive_lif(
    decay: float = 0.9,
    threshold: float = 1.0,
    *,
    adaptation: float = 1.8,
    adaptation_decay: float = 0.95,
    reset: str = "subtract",
    detach_reset: bool = False,
    input_gain: float | str = 1.0,
    learn: tuple[str, ...] = (),
    surrogate: Surrogate | None = None,
) -> AdaptiveLIF:
    """LIF whose threshold rises with each spike and falls back in silence.

        theta[t] = threshold + adaptation * a[t-1]
        u[t] = decay * v[t-1] + input_gain * current[t];  spikes[t] = u[t] >= theta[t]
        v[t] = u[t] - theta[t] * spikes[t]   (subtract; the other resets as in lif)
        a[t] = adaptation_decay * a[t-1] + (1 - adaptation_decay) * spikes[t]

    Args:
      decay: as in ``lif``, like every argument not named here.
      threshold: the threshold at rest, > 0.
      adaptation: rise of the threshold under permanent firing, >= 0; 0 is ``lif``.
      adaptation_decay: fraction of ``a`` kept per step, in (0, 1].

    Returns:
      A neuron with state ``AdaptiveLIFState(v, adaptation)``.

    Raises:
      ValueError, TypeError: as ``lif``.

    Source: Yin, Corradi, Bohte 2021, arXiv:2103.12593.

    >>> neuron = adaptive_lif(decay=1.0, adaptation=2.0, adaptation_decay=0.5)
    >>> state, spikes = neuron.unroll({}, neuron.rest((1,)), jnp.full((4, 1), 1.0))
    >>> spikes[:, 0], state.adaptation
    (Array([1., 0., 1., 0.], dtype=float32), Array([0.3125], dtype=float32))
    """
    membrane = lif(
        decay, threshold, reset=reset, detach_reset=detach_reset, input_gain=input_gain,
        learn=learn, surrogate=surrogate,
    )
    return AdaptiveLIF(membrane, adaptation_decay, adaptation)

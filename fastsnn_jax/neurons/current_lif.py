"""LIF neurons behind a decaying synaptic current (current-based, CUBA)."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from fastsnn_jax._typing import Array, Float, Key, Params
from fastsnn_jax.neurons import _parts
from fastsnn_jax.neurons.lif import LIF, LIFState, lif
from fastsnn_jax.surrogate import Surrogate
from fastsnn_jax.unroll import unroll


class CurrentLIFState(NamedTuple):
    """State of a current-based LIF neuron."""

    synapse: Array  # synaptic current [B, *N]
    v: Array  # membrane [B, *N]


@dataclasses.dataclass(frozen=True)
class CurrentLIF:
    """Synaptic current feeding a LIF; built by ``current_lif``."""

    synapse_decay: float
    membrane: LIF
    learn: tuple[str, ...]  # of the synapse; the membrane has its own

    def __post_init__(self) -> None:
        _parts.check_decay("current_lif", "synapse_decay", self.synapse_decay)
        _parts.check_learn(self, "current_lif", ("synapse_decay",))

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Returns the learnable leaves of synapse and membrane."""
        return {**_parts.init_learnable(self, shape), **self.membrane.init(key, shape)}

    def rest(self, shape: tuple[int, ...], dtype=jnp.float32) -> CurrentLIFState:
        """Returns the state at rest for ``shape`` ``[B, *N]``."""
        v = _parts.zeros("current_lif", shape, dtype)
        return CurrentLIFState(v, v)

    def step(
        self, params: Params, state: CurrentLIFState, current: Float[Array, "B *N"]
    ) -> tuple[CurrentLIFState, Float[Array, "B *N"]]:
        """Advances one step; spikes come in ``current``'s dtype."""
        synapse, filtered = self._filter(params, state.synapse, current)
        membrane, spikes = self.membrane.step(params, LIFState(state.v), filtered)
        return CurrentLIFState(synapse, membrane.v), spikes.astype(current.dtype)

    def unroll(
        self, params: Params, state: CurrentLIFState, currents: Float[Array, "T B *N"]
    ) -> tuple[CurrentLIFState, Float[Array, "T B *N"]]:
        """Runs over T: the synapse first, then the membrane in its own fast form."""
        _parts.check_all_finite("current_lif", params, currents)
        synapse, filtered = unroll(self._filter, params, state.synapse, currents)
        membrane, spikes = self.membrane.unroll(params, LIFState(state.v), filtered)
        return CurrentLIFState(synapse, membrane.v), spikes.astype(currents.dtype)

    def _filter(self, params, synapse, current):
        _parts.check_current("current_lif", params, synapse, current)
        decay = _parts.constant(self, params, "synapse_decay", synapse.dtype)
        synapse = decay * synapse + current.astype(synapse.dtype)
        return synapse, synapse


def current_lif(
    synapse_decay: float = 0.8,
    decay: float = 0.9,
    threshold: float = 1.0,
    *,
    reset: str = "subtract",
    detach_reset: bool = False,
    input_gain: float | str = 1.0,
    reset_delay: bool = False,
    learn: tuple[str, ...] = (),
    surrogate: Surrogate | None = None,
) -> CurrentLIF:
    """LIF behind an exponentially decaying synaptic current.

        i[t] = synapse_decay * i[t-1] + current[t]
        u[t] = decay * v[t-1] + input_gain * i[t];  then fires and resets as lif does

    Args:
      synapse_decay: fraction of the synaptic current kept per step, in (0, 1].
      decay: of the membrane, as in ``lif``, like every argument not named here.
      learn: which of "synapse_decay", "decay", "threshold" is a parameter of each neuron.

    Returns:
      A neuron with state ``CurrentLIFState(synapse, v)``.

    Raises:
      ValueError, TypeError: as ``lif``.

    Source: Cramer, Stradmann, Schemmel, Zenke 2020, arXiv:1910.07407.

    >>> neuron = current_lif(synapse_decay=0.5, decay=0.5)
    >>> current = jnp.array([[0.75], [0.0], [0.0]])
    >>> neuron.unroll({}, neuron.rest((1,)), current)[0].v
    Array([0.5625], dtype=float32)
    """
    if not isinstance(learn, tuple):
        raise TypeError(f"current_lif: learn must be a tuple of names, got {learn!r}")
    membrane = lif(
        decay, threshold, reset=reset, detach_reset=detach_reset, input_gain=input_gain,
        reset_delay=reset_delay, learn=tuple(name for name in learn if name != "synapse_decay"),
        surrogate=surrogate,
    )
    return CurrentLIF(
        synapse_decay, membrane, tuple(name for name in learn if name == "synapse_decay")
    )

"""Leaky integrators: a membrane that does not fire, for readouts."""

import dataclasses

import jax.numpy as jnp

from fastsnn_jax._checks import check_number
from fastsnn_jax._typing import Array, Float, Key, Params
from fastsnn_jax.neurons import _parts
from fastsnn_jax.neurons.lif import LIFState
from fastsnn_jax.unroll import unroll


@dataclasses.dataclass(frozen=True)
class LeakyIntegrator:
    """Leaky integrator; built by ``leaky_integrator``."""

    decay: float
    input_gain: float | str
    learn: tuple[str, ...]

    def __post_init__(self) -> None:
        _parts.check_decay("leaky_integrator", "decay", self.decay)
        if self.input_gain != "1-decay":
            check_number("leaky_integrator", "input_gain", self.input_gain, above=0, at_most=1e30)
        elif self.decay == 1:
            raise ValueError("leaky_integrator: input_gain '1-decay' must leave some input, got "
                             "decay 1; use input_gain=1.0")
        _parts.check_learn(self, "leaky_integrator", ("decay",))

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Returns the learnable leaves; ``key`` is not used."""
        del key  # every neuron starts at the same constants
        return _parts.init_learnable(self, shape)

    def rest(self, shape: tuple[int, ...], dtype=jnp.float32) -> LIFState:
        """Returns the state at rest for ``shape`` ``[B, *N]``."""
        return LIFState(_parts.zeros("leaky_integrator", shape, dtype))

    def step(
        self, params: Params, state: LIFState, current: Float[Array, "B *N"]
    ) -> tuple[LIFState, Float[Array, "B *N"]]:
        """Advances one step; the output is the membrane, in ``current``'s dtype."""
        _parts.check_current("leaky_integrator", params, state.v, current)
        decay = _parts.constant(self, params, "decay", state.v.dtype)
        gain = _parts.gain(self.input_gain, decay)
        v = decay * state.v + gain * current.astype(state.v.dtype)
        return LIFState(v), v.astype(current.dtype)

    def unroll(
        self, params: Params, state: LIFState, currents: Float[Array, "T B *N"]
    ) -> tuple[LIFState, Float[Array, "T B *N"]]:
        """Runs over T."""
        _parts.check_all_finite("leaky_integrator", params, currents)
        return unroll(self.step, params, state, currents)


def leaky_integrator(
    decay: float = 0.9, *, input_gain: float | str = 1.0, learn: tuple[str, ...] = ()
) -> LeakyIntegrator:
    """Leaky integrator: a LIF that never fires and outputs its membrane.

        v[t] = decay * v[t-1] + input_gain * current[t]

    Args:
      decay: fraction of the membrane kept per step, in (0, 1]; 1 sums.
      input_gain: factor of the current, > 0, or "1-decay" for a moving average.
      learn: ``("decay",)`` makes the decay a parameter of each neuron.

    Returns:
      A neuron with state ``LIFState(v)`` whose outputs are membranes, not spikes.

    Raises:
      ValueError, TypeError: as ``lif``.

    >>> neuron = leaky_integrator(decay=0.5)
    >>> neuron.unroll({}, neuron.rest((1,)), jnp.ones((3, 1)))[1][:, 0]
    Array([1.  , 1.5 , 1.75], dtype=float32)
    """
    return LeakyIntegrator(decay, input_gain, learn)

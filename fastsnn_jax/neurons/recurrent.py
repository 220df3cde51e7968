"""Recurrent wiring: last step's output of a neuron layer comes back as current."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_count, check_number
from fastsnn_jax._typing import Array, Float, Key, Params, State
from fastsnn_jax.neurons import _parts
from fastsnn_jax.unroll import unroll


class RecurrentState(NamedTuple):
    """State of recurrently wired neurons."""

    neuron: State  # of the neurons that are wired
    spikes: Array  # their last output [B, N]

    @property
    def v(self) -> Array:
        """Membrane ``[B, N]``."""
        return self.neuron.v


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """Recurrently wired neurons; built by ``recurrent``."""

    neuron: Any
    scale: float

    def __post_init__(self) -> None:
        for name in ("init", "rest", "step"):
            if not callable(getattr(self.neuron, name, None)):
                raise TypeError(f"recurrent: neuron must have {name}, got {self.neuron!r}")
        check_number("recurrent", "scale", self.scale, at_least=0.0, at_most=1e30)

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Any]:
        """Returns ``{"kernel": [N, N], "neuron": its leaves}`` for ``shape`` ``(N,)``."""
        check(
            len(shape) == 1, "recurrent", "shape must be (N,)", tuple(shape),
            "flatten the neurons first",
        )
        check_count("recurrent", "N", shape[0])
        kernel_key, neuron_key = jax.random.split(key)
        kernel = jax.random.normal(kernel_key, (shape[0], shape[0]))
        kernel = kernel * (self.scale / shape[0] ** 0.5)
        return {"kernel": kernel, "neuron": self.neuron.init(neuron_key, shape)}

    def rest(self, shape: tuple[int, ...], dtype=jnp.float32) -> RecurrentState:
        """Returns the state at rest for ``shape`` ``[B, N]``."""
        spikes = _parts.zeros("recurrent", shape, dtype)
        return RecurrentState(self.neuron.rest(shape, dtype), spikes)

    def step(
        self, params: Params, state: RecurrentState, current: Float[Array, "B N"]
    ) -> tuple[RecurrentState, Float[Array, "B N"]]:
        """Advances one step; spikes come in ``current``'s dtype."""
        _parts.check_current("recurrent", params, state.spikes, current)
        kernel = params["kernel"].astype(current.dtype)
        current = current + state.spikes.astype(current.dtype) @ kernel
        inner, spikes = self.neuron.step(params["neuron"], state.neuron, current)
        return RecurrentState(inner, spikes.astype(state.spikes.dtype)), spikes

    def unroll(
        self, params: Params, state: RecurrentState, currents: Float[Array, "T B N"]
    ) -> tuple[RecurrentState, Float[Array, "T B N"]]:
        """Runs over T."""
        _parts.check_all_finite("recurrent", params, currents)
        return unroll(self.step, params, state, currents)


def recurrent(neuron: Any, *, scale: float = 1.0) -> Recurrent:
    """Wires a layer of any neuron to itself.

        spikes[t] = neuron(current[t] + spikes[t-1] @ kernel)

    Args:
      neuron: any neuron of this package, over flat shapes ``(N,)``.
      scale: the kernel starts normal with standard deviation ``scale / sqrt(N)``; 0 wires nothing.

    Returns:
      A neuron with params ``{"kernel", "neuron"}`` and state ``RecurrentState(neuron, spikes)``.

    Raises:
      TypeError: if ``neuron`` is not one, or ``scale`` is not a number.
      ValueError: if ``scale`` is negative or the neurons are not flat.

    >>> from fastsnn_jax.neurons import lif
    >>> wired = recurrent(lif())
    >>> params = wired.init(jax.random.key(0), (3,))
    >>> wired.unroll(params, wired.rest((2, 3)), jnp.ones((5, 2, 3)))[1].shape
    (5, 2, 3)
    """
    return Recurrent(neuron, scale)

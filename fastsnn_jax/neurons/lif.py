"""Leaky integrate-and-fire neurons, and the variants other libraries call by that name."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastsnn_jax import surrogate as surrogates
from fastsnn_jax._checks import check, check_choice, check_number
from fastsnn_jax._typing import Array, Float, Key, Params
from fastsnn_jax.kernels.lif_unroll import lif_unroll
from fastsnn_jax.neurons import _parts
from fastsnn_jax.surrogate import Surrogate
from fastsnn_jax.unroll import unroll


class LIFState(NamedTuple):
    """State of a LIF neuron."""

    v: Array  # membrane [B, *N]; before its own reset where reset_delay


@dataclasses.dataclass(frozen=True)
class LIF:
    """Leaky integrate-and-fire neuron; built by ``lif``, where its fields are explained."""

    decay: float
    threshold: float
    reset: str
    detach_reset: bool
    input_gain: float | str
    reset_delay: bool
    output_delay: bool
    learn: tuple[str, ...]
    surrogate: Surrogate

    def __post_init__(self) -> None:
        _parts.check_decay("lif", "decay", self.decay)
        check_number("lif", "threshold", self.threshold, above=0.0, at_most=1e30)
        check_choice("lif", "reset", self.reset, ("subtract", "zero", "none"))
        if self.input_gain != "1-decay":
            check_number("lif", "input_gain", self.input_gain, above=0.0, at_most=1e30)
        elif self.decay == 1:
            raise ValueError(
                "lif: input_gain '1-decay' must leave some input, got decay 1; use input_gain=1.0"
            )
        check(
            self.reset_delay or not self.output_delay, "lif",
            "output_delay needs reset_delay", f"reset_delay={self.reset_delay}",
            "a spike cannot reset before it is emitted",
        )
        _parts.check_learn(self, "lif", ("decay", "threshold"))
        if not isinstance(self.surrogate, Surrogate):
            raise TypeError(f"lif: surrogate must be a Surrogate, got {self.surrogate!r}")

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Returns the learnable leaves for neurons of ``shape`` ``[*N]``; ``key`` is not used."""
        del key  # every neuron starts at the same constants
        return _parts.init_learnable(self, shape)

    def rest(self, shape: tuple[int, ...], dtype=jnp.float32) -> LIFState:
        """Returns the state at rest for ``shape`` ``[B, *N]``."""
        return LIFState(_parts.zeros("lif", shape, dtype))

    def step(
        self, params: Params, state: LIFState, current: Float[Array, "B *N"]
    ) -> tuple[LIFState, Float[Array, "B *N"]]:
        """Advances one step; spikes come in ``current``'s dtype."""
        _parts.check_current("lif", params, state.v, current)
        v, dtype = state.v, state.v.dtype
        decay, threshold, gain = self.constants(params, dtype)
        current_dtype, current = current.dtype, gain * current.astype(dtype)
        if not self.reset_delay:
            v, spikes = self.fire(decay * v + current, threshold)
            return LIFState(v), spikes.astype(current_dtype)
        last = self.surrogate(v - threshold)
        reset = jax.lax.stop_gradient(last) if self.detach_reset else last
        if self.reset == "zero":
            v = v * (1 - reset)
        v = decay * v + current
        if self.reset == "subtract":
            v = v - reset * threshold
        spikes = last if self.output_delay else self.surrogate(v - threshold)
        return LIFState(v), spikes.astype(current_dtype)

    def unroll(
        self, params: Params, state: LIFState, currents: Float[Array, "T B *N"]
    ) -> tuple[LIFState, Float[Array, "T B *N"]]:
        """Runs over T; equal to ``unroll(self.step, ...)``, with one stored array per gradient."""
        _parts.check_all_finite("lif", params, currents)
        if self.reset_delay or self.surrogate.forward:
            return unroll(self.step, params, state, currents)
        return lif_unroll(self, params, state, currents)

    def fire(self, u: Array, threshold: float | Array) -> tuple[Array, Array]:
        """Returns the membrane after reset and the spikes of a charged membrane ``u``."""
        spikes = self.surrogate(u - threshold)
        reset = jax.lax.stop_gradient(spikes) if self.detach_reset else spikes
        if self.reset == "subtract":
            return u - reset * threshold, spikes
        if self.reset == "zero":
            return u * (1 - reset), spikes
        return u, spikes

    def constants(self, params: Params, dtype) -> tuple[float | Array, ...]:
        """Returns decay, threshold and input gain: floats, or arrays ``[*N]`` where learned."""
        decay = _parts.constant(self, params, "decay", dtype)
        threshold = _parts.constant(self, params, "threshold", dtype)
        return decay, threshold, _parts.gain(self.input_gain, decay)


def lif(
    decay: float = 0.9,
    threshold: float = 1.0,
    *,
    reset: str = "subtract",
    detach_reset: bool = False,
    input_gain: float | str = 1.0,
    reset_delay: bool = False,
    output_delay: bool = False,
    learn: tuple[str, ...] = (),
    surrogate: Surrogate | None = None,
) -> LIF:
    """Leaky integrate-and-fire neuron.

        u[t] = decay * v[t-1] + input_gain * current[t]
        spikes[t] = u[t] >= threshold
        v[t] = u[t] - threshold * spikes[t]   (subtract)
               u[t] * (1 - spikes[t])         (zero)
               u[t]                           (none)

    With ``reset_delay`` the spike r = v[t-1] >= threshold resets one step late: v[t] =
    decay * v[t-1] + input_gain * current[t] - threshold * r (subtract) or decay * (1 - r) * v[t-1]
    + input_gain * current[t] (zero), and spikes[t] = v[t] >= threshold. With ``output_delay`` also
    the output is that r.

    Args:
      decay: fraction of the membrane kept per step, in (0, 1]; 1 integrates.
      threshold: in units of the membrane, > 0.
      reset: "subtract", "zero" or "none".
      detach_reset: no gradient through the spike that resets.
      input_gain: factor of the current, > 0, or "1-decay".
      reset_delay: the reset follows one step after the spike.
      output_delay: the spike is emitted with its late reset; needs ``reset_delay``.
      learn: which of "decay", "threshold" is a parameter of each neuron, as ``decay_logit`` and
        ``log_threshold`` ``[*N]``; a learned decay starts below 1.
      surrogate: spike function, ``fast_sigmoid()`` if not given; also decides ties.

    Returns:
      A neuron with state ``LIFState(v)``.

    Raises:
      ValueError: for a constant out of range, an unknown choice, or wrong shapes at a step; for NaN
        or infinity in a current or parameter, unless it is being traced.
      TypeError: for a constant that is not a number, or a state or current not floating.

    Source: Neftci, Mostafa, Zenke 2019, arXiv:1901.09948.

    >>> neuron = lif(decay=0.5, threshold=1.0)
    >>> state, spikes = neuron.unroll({}, neuron.rest((1,)), jnp.array([[0.75], [0.75], [0.75]]))
    >>> spikes[:, 0], state.v
    (Array([0., 1., 0.], dtype=float32), Array([0.8125], dtype=float32))
    """
    if surrogate is None:
        surrogate = surrogates.fast_sigmoid()
    return LIF(
        decay, threshold, reset, detach_reset, input_gain, reset_delay, output_delay, learn,
        surrogate,
    )


def integrate_and_fire(threshold: float = 1.0, **options) -> LIF:
    """Integrate-and-fire neuron: ``lif`` with decay 1; ``options`` are those of ``lif``.

    >>> neuron = integrate_and_fire()
    >>> neuron.unroll({}, neuron.rest((1,)), jnp.full((4, 1), 0.5))[1][:, 0]
    Array([0., 1., 0., 1.], dtype=float32)
    """
    return lif(1.0, threshold, **options)

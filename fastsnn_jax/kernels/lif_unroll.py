"""LIF over all T with one stored array: the charged membrane.

Automatic differentiation of the plain loop may store, for every step, the membrane before and after
reset, the spikes and the current. All of them follow from the charged membrane
``u[t] = decay * v[t-1] + gain * current[t]`` alone, so the backward pass stores only that:

    v[t], spikes[t] = fire(u[t], threshold)                          recomputed, differentiated
    du[t] = fire's pullback of (dv[t], dspikes[t])
    dcurrent[t] = gain * du[t];   dv[t-1] = decay * du[t];   ddecay = sum_t du[t] * v[t-1]

Plain twin: ``unroll(neuron.step, params, state, currents)``.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check, check_floating
from fastsnn_jax._typing import Array, Float, Params, State


def lif_unroll(
    neuron, params: Params, state: State, currents: Float[Array, "T B *N"]
) -> tuple[State, Float[Array, "T B *N"]]:
    """Runs a LIF without delays over T.

    Args:
      neuron: a ``LIF`` with ``reset_delay=False``; static.
      params: its learnable leaves.
      state: its state before the first step, v ``[B, *N]``.
      currents: ``[T, B, *N]``, floating.

    Returns:
      The state after T steps and the spikes ``[T, B, *N]`` in the dtype of ``currents``.

    Raises:
      ValueError: if the shapes do not fit, T is 0, or the neuron's reset is delayed.
      TypeError: if ``currents`` is not floating.
    """
    v = state.v
    check(
        not neuron.reset_delay, "lif_unroll", "reset_delay must be False", True,
        "use unroll(neuron.step, ...)",
    )
    check_floating("lif_unroll", "currents", currents)
    fits = jnp.ndim(currents) == v.ndim + 1 and currents.shape[1:] == v.shape
    check(
        fits and currents.shape[0] > 0, "lif_unroll",
        f"currents must have shape (T, {', '.join(map(str, v.shape))}) with T >= 1",
        jnp.shape(currents), "rest(shape) takes the shape of one step",
    )
    decay, threshold, gain = neuron.constants(params, v.dtype)
    scaled = currents
    if isinstance(gain, Array):  # learned: its gradient is that of a plain product
        scaled, gain = gain * currents.astype(v.dtype), 1.0
    # Full-shape constants make every sum over B in the backward loop a sum after it.
    learned = {
        name: jnp.broadcast_to(value, v.shape)
        for name, value in (("decay", decay), ("threshold", threshold))
        if name in neuron.learn
    }
    v, spikes = _run(neuron, gain, learned, v, scaled)
    return type(state)(v), spikes.astype(currents.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(neuron, gain, learned, v, currents):
    v, (spikes, _) = _loop(neuron, gain, learned, v, currents, store=False)
    return v, spikes


def _run_forward(neuron, gain, learned, v, currents):
    last, (spikes, u) = _loop(neuron, gain, learned, v, currents, store=True)
    return (last, spikes), (learned, v, u)


def _run_backward(neuron, gain, residuals, cotangents):
    learned, first, u = residuals
    decay = learned.get("decay", neuron.decay)
    threshold = {name: learned[name] for name in learned if name == "threshold"}
    learns_decay = "decay" in learned

    def fire(u, threshold):
        return neuron.fire(u, threshold.get("threshold", neuron.threshold))

    def body(carry, inputs):
        d_v, d_u, sums = carry
        u, d_spikes = inputs
        (v, _), pull = jax.vjp(fire, u, threshold)
        if learns_decay:  # v is what the next step decays, d_u is still that step's
            sums = {**sums, "decay": sums["decay"] + d_u * v}
        d_u, d_threshold = pull((d_v, d_spikes.astype(u.dtype)))
        sums = {**sums, **{name: sums[name] + d_threshold[name] for name in d_threshold}}
        d_current = (gain * d_u).astype(d_spikes.dtype)
        return (decay * d_u, d_u if learns_decay else None, sums), d_current

    d_v, d_spikes = cotangents
    d_u = jnp.zeros_like(d_v) if learns_decay else None
    carry = (d_v, d_u, jax.tree.map(jnp.zeros_like, learned))
    (d_v, d_u, sums), d_currents = lax.scan(body, carry, (u, d_spikes), reverse=True)
    if learns_decay:
        sums = {**sums, "decay": sums["decay"] + d_u * first}
    return sums, d_v, d_currents


_run.defvjp(_run_forward, _run_backward)


def _loop(neuron, gain, learned, v, currents, store):
    decay = learned.get("decay", neuron.decay)
    threshold = learned.get("threshold", neuron.threshold)

    def body(v, current):
        u = decay * v + gain * current.astype(v.dtype)
        v, spikes = neuron.fire(u, threshold)
        return v, (spikes.astype(current.dtype), u if store else None)

    return lax.scan(body, v, currents)

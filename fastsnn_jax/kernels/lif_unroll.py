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

import chex
import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check, check_floating
from fastsnn_jax._typing import Array, Float, Params, State
from fastsnn_jax.kernels.time_sum import sum_over_time
from fastsnn_jax.windows import keep


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
    return _run_forward(neuron, gain, learned, v, currents)[0]


# Compiled outside of jit too, or the first step would round differently from those in the loop;
# inlined, so that a program around it stays as it would be.
@partial(jax.jit, static_argnums=(0, 1), inline=True)
def _run_forward(neuron, gain, learned, v, currents):
    threshold = learned.get("threshold", neuron.threshold)
    decay = learned.get("decay", neuron.decay)

    def charge(v, current):
        return decay * v + gain * current

    def body(t, u):
        return u.at[t].set(charge(neuron.fire(u[t - 1], threshold)[0], u[t]))

    # In place: ahead of t the buffer holds currents, behind it charged membranes. A scan would
    # read one array and write another, 2.5 ms in place of 1.1 for [50, 64, 400] on two cores. The
    # buffer is all the loop carries: a second reader would make XLA copy it at every step.
    u = jnp.asarray(currents, v.dtype)
    u = u.at[0].set(charge(v, u[0]))
    u = keep(lax.fori_loop(1, len(currents), body, u))
    # Outside the loop the step can fuse with whatever reads the spikes.
    spikes = neuron.surrogate.heaviside(u - threshold).astype(currents.dtype)
    return (neuron.fire(u[-1], threshold)[0], spikes), (learned, v, u)


def _run_backward(neuron, gain, residuals, cotangents):
    learned, first, u = residuals
    d_v, d_spikes = cotangents
    chex.assert_equal_shape([u, d_spikes])
    pull = _pull_with_threshold if "threshold" in learned else _pull_in_place
    d_u, d_threshold = pull(neuron, learned, u, d_v, d_spikes.astype(u.dtype))
    sums = {}
    if d_threshold is not None:
        sums["threshold"] = d_threshold
    if "decay" in learned:
        threshold = learned.get("threshold", neuron.threshold)
        decayed = jnp.concatenate([first[None], neuron.fire(u[:-1], threshold)[0]])
        sums["decay"] = sum_over_time(d_u * decayed).astype(u.dtype)
    d_first = learned.get("decay", neuron.decay) * d_u[0]
    return sums, d_first, (gain * d_u).astype(d_spikes.dtype)


def _pull_in_place(neuron, learned, u, d_v, d_spikes):
    """d_u [T, B, N], written over d_spikes: step t reads only what t + 1 left behind."""
    decay, last = learned.get("decay", neuron.decay), len(u) - 1

    def body(i, d_u):
        # The last step is one of the loop's: before it, XLA would copy the whole buffer twice.
        t = last - i
        after = jnp.where(i == 0, d_v, decay * d_u[jnp.minimum(t + 1, last)])
        pull = jax.vjp(lambda u: neuron.fire(u, neuron.threshold), u[t])[1]
        return d_u.at[t].set(pull((after, d_u[t]))[0])

    return lax.fori_loop(0, len(u), body, d_spikes), None


def _pull_with_threshold(neuron, learned, u, d_v, d_spikes):
    """d_u [T, B, N] and the threshold's gradient, which needs d_spikes beside d_u: a scan."""
    decay, threshold = learned.get("decay", neuron.decay), learned["threshold"]

    def body(carry, inputs):
        d_v, total = carry
        u, d_spikes = inputs
        d_u, d_threshold = jax.vjp(neuron.fire, u, threshold)[1]((d_v, d_spikes))
        return (decay * d_u, total + d_threshold), d_u

    start = (d_v, jnp.zeros_like(threshold))
    (_, total), d_u = lax.scan(body, start, (u, d_spikes), reverse=True)
    return d_u, total


_run.defvjp(_run_forward, _run_backward)

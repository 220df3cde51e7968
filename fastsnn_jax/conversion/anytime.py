"""Anytime inference: the most significant spikes first, until the rest cannot change the answer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax import jaxpr
from fastsnn_jax._checks import check, fail
from fastsnn_jax._typing import Array, Float, Int, PyTree
from fastsnn_jax.conversion.converted import Converted
from fastsnn_jax.conversion.linear import is_linear
from fastsnn_jax.conversion.methods import is_signed
from fastsnn_jax.conversion.program import Program
from fastsnn_jax.conversion.sites import Site

CUTS = 16  # values of t, from 0 upward by a 16th of the largest d_j
ROUNDING = 1e-5  # of the sum of |terms|: sums of float32 in another order differ by less


def anytime(
    network: Converted, variables: PyTree, x: PyTree
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Classifies with as many bit planes of the last layer's input as it takes.

    The logits are linear in the spikes of the last site, ``y = A (V s) + b``. One number a sample
    goes ahead of the planes, the sum of all ``|s_j|``. After the first planes the rest of
    ``|s_j|`` is at most r_j = min(2^(planes left) - 1, N - |s_j| so far), and all rests together
    are R, what has not come of that sum. One more of s_j brings logit k nearer to the best one by

        d_j = V_j max(0, g_j (A_kj - A_best,j))     g_j: the sign of s_j
        d_j = V_j |A_kj - A_best,j|                 where a signed neuron has not fired yet

    so that all of them bring it no nearer, by the duality of linear programs, than

        t R + sum_j r_j max(0, d_j - t)             for any t >= 0

    A sample stops at the first plane after which every logit is farther away than the least of
    these over ``CUTS`` values of t: its prediction is that of all planes.

    Args:
      network: with logits ``[B, K]``, each sample's from its own spikes.
      variables: as ``network.apply`` takes them.
      x: input, batch first.

    Returns:
      The predicted classes, and the planes that each sample used.

    Raises:
      ValueError: where the output is not ``[B, K]``, or no site comes to it by linear operations
        alone: drop a softmax at the end. As ``network.apply`` does.

    >>> from fastsnn_jax.conversion import convert
    >>> variables = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> snn = convert(lambda w, x: jax.nn.relu(x) @ w, variables,
    ...               jnp.array([[7.0, 1.0], [3.0, 2.0]]), method="max", num_steps=7)
    >>> [each.tolist() for each in anytime(snn, variables, jnp.array([[7.0, 1.0], [3.0, 2.0]]))]
    [[0, 0], [1, 3]]
    """
    return _anytime(network, network.split(variables), x)


@partial(jax.jit, static_argnums=0)  # one program for a network, however many batches
def _anytime(network: Converted, variables: PyTree, x: PyTree) -> tuple[Array, Array]:
    program = network.program(variables["model"], x)
    site = _last(program, len(jax.tree.leaves((variables["model"], x))))

    def run(value: Array | None = None) -> tuple[Array, Any]:
        output, records = program.count(
            network.method, variables["sites"], variables["model"], x, _keep,
            {} if value is None else {site.name: value},
        )
        (logits,) = jax.tree.leaves(output)
        return logits, records[site.name]

    full, (counts, threshold) = run()
    check(full.ndim == 2, "anytime", "the output must be logits [B, K]", full.shape)
    check(site.batch == 0 and counts.shape[0] == len(full), "anytime",
          f"the first axis of {site.name} must be the samples alone", counts.shape)
    logits, push = jax.linearize(lambda value: run(value)[0], counts * threshold)
    columns = _columns(push, logits, counts, threshold)
    most, signed = network.method.num_steps, is_signed(network.method, site)
    size, sign = jnp.abs(counts).astype(jnp.int32), jnp.sign(counts)
    sample, labels = jnp.arange(len(logits)), jnp.arange(logits.shape[1])
    terms = most * jnp.max(jnp.sum(jnp.abs(columns), axis=2), axis=0)
    rounding = ROUNDING * (terms + jnp.max(jnp.abs(logits), axis=1))

    def look(left: Array) -> tuple[Array, Array]:
        """The best class when ``left`` planes are to come, and whether it is the answer."""
        rest = size & ((1 << left) - 1)
        so_far = logits - push(sign * rest * threshold)
        best = jnp.argmax(so_far, axis=1)
        ahead = jnp.take_along_axis(so_far, best[:, None], axis=1) - so_far
        known = size - rest
        reach = jnp.minimum((1 << left) - 1, most - known).reshape(len(logits), -1)
        side = jnp.where(known > 0, sign, 0.0 if signed else 1.0).reshape(reach.shape)
        gains = columns - columns[best, sample]
        gains = jnp.where(side == 0, jnp.abs(gains), jnp.maximum(gains * side, 0))
        nearer = _nearer(gains, reach, rest.reshape(len(logits), -1).sum(1)).T + rounding[:, None]
        return best, jnp.all((ahead > nearer) | (labels == best[:, None]), axis=1)

    planes = most.bit_length()
    best, decided = jax.lax.map(look, jnp.arange(planes - 1, -1, -1, dtype=jnp.int32))
    best = best.at[-1].set(jnp.argmax(full, axis=1))  # after all planes that of apply itself
    used = jnp.argmax(decided.at[-1].set(True), axis=0)
    return best[used, sample], used.astype(jnp.int32) + 1


def _nearer(
    gains: Float[Array, "K B N"], reach: Int[Array, "B N"], spikes: Int[Array, " B"]
) -> Float[Array, "K B"]:
    """A bound on ``sum_j gains_j r_j`` where ``r_j <= reach_j`` and all r_j sum to ``spikes``."""
    step = gains.max(axis=2) / CUTS

    def bound(number: Array) -> Array:
        cut = number * step
        return cut * spikes + jnp.sum(reach * jnp.maximum(gains - cut[:, :, None], 0), axis=2)

    return jax.lax.map(bound, jnp.arange(CUTS)).min(axis=0)


def _columns(push: Callable, logits: Array, counts: Array, threshold: Array) -> Array:
    """``[k, b, j]``: what one more of count j adds to logit k of sample b."""
    weight = jnp.broadcast_to(threshold, counts.shape)
    pull = jax.linear_transpose(push, weight)
    hot = jnp.eye(logits.shape[1], dtype=logits.dtype)
    columns = jax.lax.map(lambda row: pull(jnp.broadcast_to(row, logits.shape))[0] * weight, hot)
    return columns.reshape(*columns.shape[:2], -1)


def _keep(site: Site, encoded: Any, value: Array) -> tuple[Array, Array]:
    del site, value
    return jax.lax.stop_gradient((encoded.counts, encoded.threshold))


def _last(program: Program, num_arguments: int) -> Site:
    """The last site from which the output is reached by linear operations alone."""
    for site in reversed(program.converted):
        if not site.loops and _is_linear_from(program, site, num_arguments):
            return site
    raise fail("anytime", "the output must be linear in the spikes of the last site",
               "none such among " + ", ".join(site.name for site in program.converted),
               "return logits, without a softmax")


def _is_linear_from(program: Program, site: Site, num_arguments: int) -> bool:
    bent = False

    def visit(equation: jaxpr.Equation, moving: list[bool]) -> list[bool]:
        nonlocal bent
        called = jaxpr.called(equation)
        here = equation.path == site.path
        if called is not None:
            return jaxpr.walk(called, moving, visit, constant=lambda value: False,
                              path=equation.path, name=equation.name)
        if here and site.operand is None:
            return [True] * len(equation.outputs)
        if here:
            moving = [place == site.operand for place in range(len(moving))]
        bent = bent or any(moving) and not is_linear(equation, moving)
        return [any(moving)] * len(equation.outputs)

    outputs = jaxpr.walk(program.closed, [False] * num_arguments, visit,
                         constant=lambda value: False)
    return any(outputs) and not bent

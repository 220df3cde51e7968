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

ROUNDING = 1e-5  # of the sum of |terms|: sums of float32 in another order differ by less


def anytime(
    network: Converted, variables: PyTree, x: PyTree
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Classifies with as many bit planes of the last layer's input as it takes.

    The logits are linear in the spikes of the last site, ``y = A (V s) + b``. After the first
    planes of ``|s|`` the rest of each count is at most r = 2^(planes left) - 1, so the difference
    of the best logit and logit k can change by

        r sum_j V_j max(0, A_kj - A_best,j)          unsigned
        r sum_j V_j |A_kj - A_best,j|                signed

    at most. A sample stops at the first plane from which all differences are larger than that: its
    prediction is that of all planes.

    Args:
      network: with logits ``[B, K]``, each sample's from its own spikes.
      variables: as ``network.apply`` takes them.
      x: input, batch first.

    Returns:
      The predicted classes, and the planes that each sample used.

    Raises:
      ValueError: where the output is not ``[B, K]``, or no site comes to it by linear operations
        alone: drop a softmax at the end.

    >>> from fastsnn_jax.conversion import convert
    >>> variables = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> snn = convert(lambda w, x: jax.nn.relu(x) @ w, variables,
    ...               jnp.array([[7.0, 1.0], [3.0, 2.0]]), method="max", num_steps=7)
    >>> [each.tolist() for each in anytime(snn, variables, jnp.array([[7.0, 1.0], [3.0, 2.0]]))]
    [[0, 0], [2, 3]]
    """
    return jax.jit(partial(_anytime, network))(network.split(variables), x)


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
    logits, push = jax.linearize(lambda value: run(value)[0], counts * threshold)
    size, planes = jnp.abs(counts).astype(jnp.int32), network.method.num_steps.bit_length()
    left = planes - 1 - jnp.arange(planes, dtype=jnp.int32)

    def first(left: Array) -> Array:
        """Logits without the last ``left`` planes."""
        rest = size & ((1 << left) - 1)
        return logits - push(jnp.sign(counts) * rest * threshold)

    so_far = jax.lax.map(first, left)  # [planes, B, K]
    changes = _changes(push, logits, counts, threshold, is_signed(network.method, site))
    best, sample = jnp.argmax(so_far, axis=-1), jnp.arange(len(logits))
    ahead = jnp.take_along_axis(so_far, best[..., None], axis=-1) - so_far
    rounding = network.method.num_steps * jnp.max(changes, axis=(1, 2))
    rounding = ROUNDING * (rounding + jnp.max(jnp.abs(logits), axis=1))
    rest = ((1 << left) - 1)[:, None, None] * changes[sample, best] + rounding[:, None]
    others = jnp.arange(logits.shape[1]) != best[..., None]
    decided = jnp.all((ahead > rest) | ~others, axis=-1).at[-1].set(True)
    used = jnp.argmax(decided, axis=0)
    best = best.at[-1].set(jnp.argmax(full, axis=-1))  # after all planes that of apply itself
    return best[used, sample], used.astype(jnp.int32) + 1


def _changes(
    push: Callable, logits: Array, counts: Array, threshold: Array, signed: bool
) -> Float[Array, "B K K"]:
    """``[b, i, k]``: how far one more of every count can raise logit k above logit i."""
    weight = jnp.broadcast_to(threshold, counts.shape)
    pull = jax.linear_transpose(push, weight)
    hot = jnp.eye(logits.shape[1], dtype=logits.dtype)
    columns = jax.lax.map(lambda row: pull(jnp.broadcast_to(row, logits.shape))[0] * weight, hot)
    columns = columns.reshape(*columns.shape[:2], -1)  # [K, B, N]

    def above(column: Array) -> Array:
        gains = columns - column
        gains = jnp.abs(gains) if signed else jnp.maximum(gains, 0)
        return jnp.sum(gains, axis=-1)

    return jnp.transpose(jax.lax.map(above, columns), (2, 0, 1))


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

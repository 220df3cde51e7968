"""Runs a jaxpr with rules at single equations, each with numbers of its own going in and out.

    outputs, records = run(closed, operands, {path: rule}, {path: feed})

A rule stands for the equation at its path. It is given that equation's feed and gives back a
record. Inside a scan every turn has its own: feeds are cut and records stacked along the turns, the
outermost scan first. So a layer that a scan runs twelve times has twelve thresholds and twelve
counts. A branch that a cond does not take records zeros.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax import jaxpr
from fastsnn_jax.jaxpr import Equation, Path

Rule: TypeAlias = Callable[[Equation, list[Any], Any], tuple[Sequence[Any], Any]]
"""``rule(equation, operands, feed) -> (outputs, record)``."""


def run(
    closed: Any, operands: Sequence[Any], rules: Mapping[Path, Rule], feeds: Mapping[Path, Any], *,
    path: Path = (),
) -> tuple[list[Any], dict[Path, Any]]:
    """Runs a jaxpr with ``rules`` in place of some equations.

    Args:
      closed: the jaxpr, from ``jaxpr.trace`` or an equation's parameters.
      operands: its arguments, flat.
      rules: by the path of their equation; none inside a while or a shard_map.
      feeds: what each rule is given, a pytree whose leaves have an axis for each scan around it.
      path: of the equation that the jaxpr belongs to.

    Returns:
      Its outputs, flat, and the records by path.

    >>> closed, _ = jaxpr.trace(lambda x: lax.scan(lambda x, _: (x * 2, None), x, None, 3)[0], 1.0)
    >>> scale = lambda equation, operands, feed: ([operands[0] * feed], operands[0])
    >>> outputs, records = run(closed, [1.0], {(0, 0): scale}, {(0, 0): jnp.array([3.0, 5.0, 7.0])})
    >>> outputs[0].item(), records[0, 0].tolist()
    (105.0, [1.0, 3.0, 15.0])
    """
    records: dict[Path, Any] = {}

    def visit(equation: Equation, operands: list[Any]) -> Sequence[Any]:
        if equation.path in rules:
            rule = rules[equation.path]
            outputs, records[equation.path] = rule(equation, operands, feeds.get(equation.path))
            return outputs
        if not any(holds(equation.path, place) for place in rules):
            with scope(equation):
                return equation.bind(operands)
        inner = jaxpr.called(equation)
        if inner is not None:
            return jaxpr.walk(inner, operands, visit, path=equation.path, name=equation.name)
        with scope(equation):
            outputs, recorded = run_control(equation, operands, rules, feeds)
        records.update(recorded)
        return outputs

    return jaxpr.walk(closed, operands, visit, path=path), records


def run_control(
    equation: Equation, operands: Sequence[Any], rules: Mapping[Path, Rule],
    feeds: Mapping[Path, Any],
) -> tuple[Sequence[Any], dict[Path, Any]]:
    """Outputs and records of a scan or cond that has rules inside."""
    fed = {place: feed for place, feed in feeds.items() if holds(equation.path, place)}
    return _CONTROL[equation.primitive](equation, operands, partial(run, rules=rules), fed)


def scope(equation: Equation) -> AbstractContextManager[Any]:
    """The name scopes an equation stands in, so that what takes its place stands there too."""
    return jax.named_scope(equation.name) if equation.name else nullcontext()


def holds(path: Path, place: Path) -> bool:
    """True where ``place`` is inside the equation at ``path``."""
    return place[:len(path)] == path and place != path


def _scan(equation, operands, inside, feeds):
    params, num_carry = equation.params, equation.params["num_carry"]
    consts, carry, inputs = jaxpr.split(operands, params["num_consts"], num_carry)

    def turn(carry, given):
        inputs, feeds = given
        outputs, records = inside(params["jaxpr"], [*consts, *carry, *inputs], feeds=feeds,
                                  path=equation.path)
        carry, outputs = jaxpr.split(outputs, num_carry)
        return carry, (outputs, records)

    carry, (outputs, records) = lax.scan(
        turn, carry, (inputs, feeds), params["length"], params["reverse"], params["unroll"]
    )
    return [*carry, *outputs], records


def _cond(equation, operands, inside, feeds):
    index, *operands = operands
    runs, zeros = [], {}
    for number, branch in enumerate(equation.params["branches"]):
        run = partial(inside, branch, feeds=feeds, path=(*equation.path, number))
        _, records = jax.eval_shape(run, operands)
        zeros |= jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), records)
        runs.append(run)

    def padded(run, operands):
        outputs, records = run(operands)
        return outputs, zeros | records

    return lax.switch(index, [partial(padded, run) for run in runs], operands)


_CONTROL = {"scan": _scan, "cond": _cond}

"""Runs jaxprs equation by equation, so that rules can replace or measure single primitives.

    closed, tree = trace(function, *args)
    outputs, tape = evaluate(closed, jax.tree.leaves(args), {"dot_general": rule})

A rule stands for one primitive, wherever it occurs: inside jit, remat and custom derivatives, which
are run in place, and inside scan, while, cond and shard_map, which stay loops and branches on the
device. vmap and grad have gone into the jaxpr before. Functions with a custom derivative in which
no rule applies keep it. The only file that touches ``jax.extend``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jax.interpreters import partial_eval

from fastsnn_jax._typing import Array, Int

Path: TypeAlias = tuple[int, ...]
"""Place of an equation: its index, after those of the equations that it is inside of. In a cond the
number of the branch stands between; in a while 0 for the condition and 1 for the body."""

# Primitives that stand for one run of the jaxpr in the parameter named; names as of jax 0.7 to 0.10
CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "remat2": "jaxpr", "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr", "custom_vjp_call_jaxpr": "fun_jaxpr",
}


class Total(NamedTuple):
    """Whole numbers below 2^64 where there are no 64-bit integers: ``low + 2^32 high``."""

    low: Int[Array, "*N"]
    high: Int[Array, "*N"]

    def plus(self, other: "Total") -> "Total":
        """The sum; one that passes 2^64 wraps around."""
        low = self.low + other.low
        return Total(low, self.high + other.high + (low < other.low).astype(jnp.uint32))

    def integers(self) -> list[int]:
        """As Python integers, on the host."""
        low, high = (np.ravel(np.asarray(word)).tolist() for word in self)
        return [a + (b << 32) for a, b in zip(low, high, strict=True)]


Tape: TypeAlias = dict[Path, Total]
"""What rules measured, by the path of their equation, summed over all its runs. A while has there
its trips, a cond how often it took each branch."""


class Equation(NamedTuple):
    """One equation where it stands.

    Attributes:
      eqn: the equation of jax.
      path: its place, the same in every walk over the same jaxpr.
      name: the name scopes it stands in, joined by ``/``.
    """

    eqn: Any
    path: Path
    name: str

    @property
    def primitive(self) -> str:
        """Name of its primitive."""
        return self.eqn.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of its primitive."""
        return self.eqn.params

    @property
    def inputs(self) -> list[Any]:
        """Abstract values (shape, dtype) of what it reads."""
        return [atom.aval for atom in self.eqn.invars]

    @property
    def outputs(self) -> list[Any]:
        """Abstract values of what it gives."""
        return [atom.aval for atom in self.eqn.outvars]

    def bind(self, operands: Sequence[Any]) -> list[Any]:
        """Runs it as it is."""
        primitive = self.eqn.primitive
        bound = primitive.get_bind_params(self.params)
        functions, params = bound if isinstance(bound, tuple) else ((), bound)
        with self.eqn.ctx.manager:
            results = primitive.bind(*functions, *operands, **params)
        return list(results) if primitive.multiple_results else [results]


Visit: TypeAlias = Callable[[Equation, list[Any]], Sequence[Any]]
Rule: TypeAlias = Callable[[Equation, list[Any], Tape], Sequence[Any]]


def trace(function: Callable, *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of ``function``, without equations that nobody reads; and its output's tree.

    >>> closed, _ = trace(lambda x: (jnp.sin(x), 2 * x)[1], 1.0)
    >>> [eqn.primitive.name for eqn in closed.jaxpr.eqns]
    ['mul']
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    live = [True] * len(closed.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, live, instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts), jax.tree.structure(shapes)


def run_needed(function: Callable, *args: Any) -> Any:
    """What ``function(*args)`` returns, without running what no output needs.

    Operation by operation, so to the same bits. ``model.init`` runs the whole model for the shapes
    of its parameters: of that, only their initial values are computed.

    >>> [float(y) for y in run_needed(lambda x: (jnp.sin(x), [2 * x])[1], 1.0)]
    [2.0]
    """
    closed, tree = trace(function, *args)
    return tree.unflatten(jaxpr_as_fun(closed)(*jax.tree.leaves(args)))


def evaluate(
    closed: ClosedJaxpr, operands: Sequence[Any], rules: Mapping[str, Rule], *, path: Path = (),
    name: str = "",
) -> tuple[list[Any], Tape]:
    """Runs a jaxpr with ``rules`` in place of some primitives.

    Args:
      closed: the jaxpr, from `trace` or an equation's parameters.
      operands: its arguments, flat.
      rules: primitive name -> ``rule(equation, operands, tape) -> outputs``. What it measures it
        writes to ``tape[equation.path]``, a `Total` of fixed shape; loops sum it up on the device.
        A rule for "scan", "while", "cond" or "shard_map" stands for the whole of it.
      path, name: of the equation that the jaxpr belongs to.

    Returns:
      Its outputs, flat, and the tape. A while and a cond write to it too.

    >>> closed, _ = trace(lambda x: lax.fori_loop(0, 5, lambda i, x: jnp.sin(x), x), 1.0)
    >>> def idle(equation, operands, tape):
    ...     tape[equation.path] = total(jnp.ones(()))
    ...     return operands
    >>> outputs, tape = evaluate(closed, [jnp.float32(0.5)], {"sin": idle})
    >>> float(outputs[0]), [measured.integers() for measured in tape.values()]
    (0.5, [[5]])
    """
    tape: Tape = {}
    inside = partial(evaluate, rules=rules)

    def visit(equation: Equation, operands: list[Any]) -> Sequence[Any]:
        rule = rules.get(equation.primitive)
        if rule is not None:
            return rule(equation, operands, tape)
        inner = called(equation)
        if not _concerned(equation, rules):
            return equation.bind(operands)
        if inner is not None:
            return walk(inner, operands, visit, path=equation.path, name=equation.name)
        outputs, measured = _CONTROL[equation.primitive](equation, operands, inside)
        tape.update(measured)
        return outputs

    return walk(closed, operands, visit, path=path, name=name), tape


def walk(
    closed: ClosedJaxpr, operands: Sequence[Any], visit: Visit, *,
    constant: Callable[[Any], Any] = lambda value: value, path: Path = (), name: str = "",
) -> list[Any]:
    """Walks a jaxpr in order; the values may be anything, not only arrays.

    Args:
      closed: the jaxpr.
      operands: a value for each of its arguments.
      visit: ``visit(equation, values) -> values`` of every equation, calls included.
      constant: the value that stands for an array the jaxpr holds.
      path, name: of the equation that the jaxpr belongs to.

    Returns:
      The values of its outputs.
    """
    jaxpr, values = closed.jaxpr, {}

    def value(atom):
        return constant(atom.val) if isinstance(atom, Literal) else values[atom]

    values.update(zip(jaxpr.constvars, map(constant, closed.consts), strict=True))
    values.update(zip(jaxpr.invars, operands, strict=True))
    for index, eqn in enumerate(jaxpr.eqns):
        scopes = filter(None, (name, str(eqn.source_info.name_stack)))
        equation = Equation(eqn, (*path, index), "/".join(scopes))
        results = visit(equation, [value(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def called(equation: Equation) -> ClosedJaxpr | None:
    """The jaxpr that a call runs once; None for every other equation."""
    if equation.primitive not in CALLS:
        return None
    return closed_jaxpr(equation.params[CALLS[equation.primitive]])


def closed_jaxpr(jaxpr: Any) -> ClosedJaxpr:
    """A jaxpr as closed, with no constants where it is open."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def split(values: Sequence[Any], *sizes: int) -> list[list[Any]]:
    """Cuts a sequence into parts of the given sizes and the rest."""
    cuts = np.cumsum([0, *sizes])
    bounds = zip(cuts, [*cuts[1:], len(values)], strict=True)
    return [list(values[start:stop]) for start, stop in bounds]


def total(counts: Any) -> Total:
    """A measurement below 2^32 as a `Total`."""
    low = jnp.asarray(counts).astype(jnp.uint32)
    return Total(low, jnp.zeros_like(low))


# Control flow: (equation, operands, inside) -> (outputs, tape)


def _scan(equation, operands, inside):
    params, (_, path, name) = equation.params, equation
    body, num_consts, num_carry = params["jaxpr"], params["num_consts"], params["num_carry"]
    consts, carry, inputs = split(operands, num_consts, num_carry)

    def step(carry, inputs):
        outputs, tape = inside(body, [*consts, *carry, *inputs], path=path, name=name)
        return (*split(outputs, num_carry), tape)

    step, (_, _, shapes) = _traced(step, *split(_structs(body)[num_consts:], num_carry))

    def counted(state, inputs):
        carry, outputs, measured = step(state[0], inputs)
        return (carry, _plus(state[1], measured)), outputs

    (carry, tape), outputs = lax.scan(
        counted, (carry, _zeros(shapes)), inputs, params["length"], params["reverse"],
        params["unroll"],
    )
    return [*carry, *outputs], tape


def _while(equation, operands, inside):
    params, (_, path, name) = equation.params, equation
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    first, second, carry = split(operands, params["cond_nconsts"], params["body_nconsts"])

    def test(carry):
        (more,), tape = inside(condition, [*first, *carry], path=(*path, 0), name=name)
        return more, tape

    def turn(carry):
        carry, tape = inside(body, [*second, *carry], path=(*path, 1), name=name)
        more, tested = test(carry)
        return more, carry, tape | tested

    turn, (_, _, shapes) = _traced(turn, _structs(body)[len(second):])
    one = total(jnp.ones(1))

    def counted(state):
        before, old, tape, trips = state
        more, new, measured = turn(old)
        if more.ndim:  # vmapped: each lane stops for itself, the loop with the last of them
            more &= before
            new = [jnp.where(jnp.expand_dims(before, tuple(range(before.ndim, b.ndim))), b, a)
                   for a, b in zip(old, new, strict=True)]
        return more, new, _plus(tape, measured), trips.plus(one)

    # The condition is run where its measurements can leave it: before the loop and in its body.
    more, tested = test(carry)
    tape, trips = _plus(_zeros(shapes), tested), total(jnp.zeros(1))
    _, carry, tape, trips = lax.while_loop(
        lambda state: jnp.any(state[0]), counted, (more, carry, tape, trips)
    )
    return carry, tape | {path: trips}


def _cond(equation, operands, inside):
    _, path, name = equation
    index, *operands = operands
    branches = equation.params["branches"]
    runs, shapes = [], {}
    for number, branch in enumerate(branches):
        run = partial(inside, branch, path=(*path, number), name=name)
        run, (_, measured) = _traced(run, _structs(branch))
        runs.append(run)
        shapes |= measured

    def padded(run, operands):
        outputs, measured = run(operands)
        return outputs, _zeros(shapes) | measured

    outputs, tape = lax.switch(index, [partial(padded, run) for run in runs], operands)
    taken = jnp.arange(len(branches)) == jnp.clip(index, 0, len(branches) - 1)
    return outputs, tape | {path: total(taken)}


def _shard_map(equation, operands, inside):
    params, (_, path, name) = equation.params, equation
    axes = manual_axes(equation)

    def shard(*operands):
        outputs, tape = inside(closed_jaxpr(params["jaxpr"]), operands, path=path, name=name)
        return outputs, jax.tree.map(lambda word: word[None], tape)

    outputs, tape = jax.shard_map(
        shard, mesh=params["mesh"], in_specs=tuple(params["in_specs"]),
        out_specs=(list(params["out_specs"]), jax.sharding.PartitionSpec(axes)),
        axis_names=set(axes), check_vma=params["check_vma"],
    )(*operands)
    none = Total(jnp.uint32(0), jnp.uint32(0))
    summed = {place: lax.reduce(each, none, Total.plus, (0,)) for place, each in tape.items()}
    return outputs, summed


def manual_axes(equation: Equation) -> tuple[str, ...]:
    """Mesh axes over which a shard_map splits its work."""
    params = equation.params
    return tuple(sorted(params.get("newly_manual_axes") or params["manual_axes"]))


_CONTROL = {"scan": _scan, "while": _while, "cond": _cond, "shard_map": _shard_map}


def _concerned(equation: Equation, rules: Mapping[str, Rule]) -> bool:
    """True where a rule applies inside, or something is measured anyway."""
    def holds(eqn):
        name = eqn.primitive.name
        if name in rules or name in ("while", "cond"):
            return True
        return (name in CALLS or name in _CONTROL) and any(
            holds(inner) for jaxpr in _jaxprs(eqn.params) for inner in jaxpr.eqns
        )

    return holds(equation.eqn)


def _jaxprs(params: Mapping[str, Any]) -> list[Jaxpr]:
    values = [part for value in params.values()
              for part in (value if isinstance(value, tuple) else (value,))]
    return [closed_jaxpr(part).jaxpr for part in values if isinstance(part, ClosedJaxpr | Jaxpr)]


def _traced(function: Callable, *operands: Any) -> tuple[Callable, Any]:
    """The function traced, so once however deep loops are nested, and its output's shapes."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*operands)
    run, tree = jaxpr_as_fun(closed), jax.tree.structure(shapes)
    return lambda *operands: tree.unflatten(run(*jax.tree.leaves(operands))), shapes


def _structs(closed: ClosedJaxpr) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
            for aval in closed.in_avals]


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)


def _plus(tape: Tape, measured: Tape) -> Tape:
    return tape | {path: tape[path].plus(value) for path, value in measured.items()}

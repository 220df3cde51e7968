"""Finds products with a parameter whose channels are scaled, and the chains that scale them.

A chain starts at a product of data with a parameter. Its links are views and the elementwise
operations +, -, * and /, in any order, whose other operands follow from the variables alone and
differ only along axes that the weight made, such as its output channels. Only the next link reads
a link's value. Numbers at the end are left out: they may be part of an activation, as that of
1 / (1 + exp(-x)) is. Where the data of a product are a mean, as behind a pool, the division belongs
to the chain. A function with a derivative of its own keeps it: it is passed by, unless it is a
product and nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastsnn_jax import jaxpr
from fastsnn_jax.conversion import activations, features
from fastsnn_jax.energy.origins import CONSTANT, DATA, PARAMETER, held, origin, weight_side
from fastsnn_jax.energy.products import PRODUCTS
from fastsnn_jax.jaxpr import Equation, Path

VIEWS = ("broadcast_in_dim", "reshape", "squeeze", "transpose")
_SCALING, _SHIFTING = ("mul", "div", "neg"), ("add", "add_any", "sub")
_SUMS = ("reduce_sum", "reduce_window_sum")


@dataclass(eq=False)
class Value:
    """What is known of a value.

    Attributes:
      origin: where it comes from.
      varies: axes along which its numbers may differ.
      made: axes of the weight by the axes it made; of a product and what a chain makes of it.
      equation: that gave it.
      place: which operand of the equation is the weight; of a link, the value before it.
      source: the one operand that moves; of a product its data.
      fixed: whether all other operands are numbers of the program.
      even: whether all its numbers are the source's times one number.
      readers: one for each equation that reads it: the value it makes where it can be a link.
    """

    origin: int
    varies: frozenset[Any]
    made: Any = None
    equation: Any = None
    place: int = 0
    source: Any = None
    fixed: bool = False
    even: bool = False
    readers: list["Value | None"] = field(default_factory=list)

    @property
    def moves(self) -> bool:
        return self.origin > PARAMETER

    def elsewhere(self) -> "Value":
        """The same value where no chain follows it."""
        self.readers.append(None)
        return Value(self.origin, self.varies)

    def links(self) -> Iterator["Value"]:
        """What chains on to a product, as far as only the next link reads it."""
        value = self
        while len(value.readers) == 1 and value.readers[0] is not None:
            value = value.readers[0]
            yield value

    def division(self) -> list["Value"]:
        """What makes means of the sums that are a product's data, first to last."""
        found, value = [], self.source
        while value.even and len(value.readers) == 1:
            found.insert(0, value)
            value = value.source
        summed = value.equation is not None and value.equation.primitive in _SUMS
        return found if summed and any(map(_scales, found)) else []


class Chain(NamedTuple):
    """A product, the division of the mean before it, and the links behind it."""

    before: list[Value]
    product: Value
    links: list[Value]


def find(closed: Any, origins: Sequence[int]) -> list[Chain]:
    """Every product that is scaled."""
    finder = _Finder()
    values = [_fresh(where, aval) for where, aval in zip(origins, closed.in_avals, strict=True)]
    finder.body(closed, values, (), "")
    found = []
    for product in finder.products:
        before, links = product.division(), list(product.links())
        while links and links[-1].fixed:
            links.pop()
        if not any(map(_scales, links)):
            links = []
        if before or links:
            found.append(Chain(before, product, links))
    return found


def _scales(link: Value) -> bool:
    name = link.equation.primitive
    return name in _SCALING or name == "sub" and link.place == 1


class _Finder:
    """Walks a program on what is known of its values."""

    def __init__(self) -> None:
        self.products: list[Value] = []

    def body(self, closed: Any, values: Sequence[Value], path: Path, name: str) -> None:
        """Walks a program whose results go where no chain can follow."""
        for result in self.walk(closed, values, path, name):
            result.readers.append(None)

    def walk(self, closed: Any, values: Sequence[Value], path: Path, name: str) -> list[Value]:
        def constant(value: Any) -> Value:
            return _fresh(held(value).origin, value)

        return jaxpr.walk(closed, values, self.visit, constant=constant, path=path, name=name)

    def visit(self, equation: Equation, values: list[Value]) -> list[Value]:
        called = jaxpr.called(equation)
        if called is not None and not equation.primitive.startswith("custom_"):
            results = self.walk(called, values, equation.path, equation.name)
            return [each.elsewhere() if each in values else each for each in results]
        _, path, name = equation
        if equation.primitive == "scan":
            params, num_carry = equation.params, equation.params["num_carry"]
            body = params["jaxpr"]
            consts, _, inputs = jaxpr.split(values, params["num_consts"], num_carry)
            origins = [DATA if each is None else each.origin
                       for each in (*consts, *[None] * num_carry, *inputs)]
            self.body(body, list(map(_fresh, origins, body.in_avals)), path, name)
        elif equation.primitive == "cond":
            for number, branch in enumerate(equation.params["branches"]):
                inside = [_fresh(each.origin, aval)
                          for each, aval in zip(values[1:], branch.in_avals, strict=True)]
                self.body(branch, inside, (*path, number), name)
        return self.compute(equation, values)

    def compute(self, equation: Equation, values: list[Value]) -> list[Value]:
        """What is known of the results of an equation, recorded with those it reads."""
        where = origin(equation, [value.origin for value in values])
        results = [_fresh(where, aval) for aval in equation.outputs]
        first, moving = results[0], [value.moves for value in values]
        product = _product(equation)
        if product is not None:
            first.place, first.made = _made(product, values)
            if first.made is not None:
                first.source = values[1 - first.place]
                self.products.append(first)
        elif not any(moving):
            first.varies &= _varies(equation, values)
        elif sum(moving) == 1:
            first.place = moving.index(True)
            first.source = values[first.place]
            first.made = _passed(equation, values, first.place, first.source.made)
            first.even = _passed(equation, values, first.place, {}) is not None and (
                equation.primitive in (*VIEWS, *_SCALING)
            )
            first.fixed = all(value.moves or value.origin == CONSTANT for value in values)
        first.equation = equation
        for value in values:
            link = first.made is not None and product is None
            value.readers.append(first if link else None)
        return results


def _fresh(where: int, aval: Any) -> Value:
    """A value that may differ along every axis."""
    shape = getattr(aval, "shape", ())
    return Value(where, frozenset(axis for axis, size in enumerate(shape) if size > 1))


def _product(equation: Equation) -> Equation | None:
    """The product that an equation is, or that a call with a derivative of its own is all of."""
    if equation.primitive in PRODUCTS:
        return equation
    called = jaxpr.called(equation)
    if called is None or len(called.jaxpr.eqns) != 1:
        return None
    inside, (eqn,) = called.jaxpr, called.jaxpr.eqns
    alone = eqn.primitive.name in PRODUCTS and list(eqn.invars) == list(inside.invars)
    return Equation(eqn, equation.path, equation.name) if alone else None


def _made(equation: Equation, values: Sequence[Value]) -> tuple[int, dict[int, int] | None]:
    """Which operand is the weight, and its axes by the axes of the result that it made."""
    weight = weight_side(*(value.origin for value in values))
    if weight is None or values[weight].moves or not values[1 - weight].moves:
        return 0, None
    (result,) = equation.outputs
    one_type = {aval.dtype for aval in equation.inputs} == {result.dtype}
    if not one_type or not jnp.issubdtype(result.dtype, jnp.floating):
        return weight, None
    numbers = equation.params["dimension_numbers"]
    if equation.primitive == "dot_general":
        contracting, batch = numbers
        free = [[axis for axis in range(len(aval.shape)) if axis not in (*summed, *shared)]
                for aval, summed, shared in zip(equation.inputs, contracting, batch, strict=True)]
        start = len(batch[0]) + weight * len(free[0])
        made = dict(enumerate(batch[weight])) | dict(enumerate(free[weight], start))
    elif weight == 1:
        made = {numbers[2][1]: numbers[1][0]}
    else:
        return weight, None
    return weight, {ours: theirs for ours, theirs in made.items() if result.shape[ours] > 1}


def _passed(equation: Equation, values: Sequence[Value], place: int, made: Any) -> Any:
    """The axes of the weight by those of a link's result; None of what is no link."""
    name = equation.primitive
    if made is None:
        return None
    if name in VIEWS:
        moved = {features.passed_on(equation, [ours], False): theirs
                 for ours, theirs in made.items()}
        return None if None in moved else moved
    if name not in _SCALING + _SHIFTING or name == "div" and place == 1:
        return None
    same = equation.inputs[place].shape == equation.outputs[0].shape
    others = [value.varies for value in values if not value.moves]
    return dict(made) if same and all(varies <= set(made) for varies in others) else None


def _varies(equation: Equation, values: Sequence[Value]) -> frozenset[int]:
    """Axes along which the results may differ, as far as the operands tell."""
    every = frozenset(range(len(equation.outputs[0].shape)))
    if activations.is_elementwise(equation.primitive):
        return every & frozenset().union(*(value.varies for value in values))
    if equation.primitive not in VIEWS:
        return every
    axes = [features.passed_on(equation, [axis], False) for axis in values[0].varies]
    return every if None in axes else every & frozenset(axes)

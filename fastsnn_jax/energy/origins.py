"""Where the values of a program come from: what tells weights from activations.

CONSTANT   computed from numbers in the program alone, loop counters among them
PARAMETER  computed from parameters, and constants, alone: transposed, masked, scaled, quantised
GATHERED   picked from parameters at places that data name: an embedding's row, an expert's kernel
DATA       everything that data enter by their value

An operation gives the highest origin of its operands. Of GATHERED values only views remain
GATHERED; whatever is computed from them is DATA.

Beside its origin a value is known by its number where it is one number throughout. Adding 0,
multiplying by 1 and whatever has no other operands than such values is no work: XLA folds it before
it counts. It does not look across the border of a jit or a loop for that, nor do we.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastsnn_jax.energy.op_rules import is_elementwise
from fastsnn_jax.jaxpr import Equation

CONSTANT, PARAMETER, GATHERED, DATA = range(4)

_VIEWS = frozenset("""
    broadcast broadcast_in_dim concatenate convert_element_type copy copy_p expand_dims
    optimization_barrier pad reduce_precision reshape rev sharding_constraint slice split squeeze
    stack stop_gradient transpose
""".split())
_PICKS = ("gather", "dynamic_slice")
_NEUTRAL = {"add": 0, "add_any": 0, "sub": 0, "mul": 1}
_ARITHMETIC = {
    "add": operator.add, "mul": operator.mul, "neg": operator.neg, "sub": operator.sub,
    "square": lambda number: number * number,
}
_NOT_FOLDED = ("select_n", "clamp")


class Value(NamedTuple):
    """What is known of an array before the program runs.

    Attributes:
      origin: CONSTANT, PARAMETER, GATHERED or DATA.
      number: the number it is throughout; ``...`` for one not worked out, None for no such.
    """

    origin: int
    number: Any = None


def held(value: Any) -> Value:
    """Of what a program holds, scalars are constants and arrays the weights it was closed over."""
    if getattr(value, "ndim", 0):
        return Value(PARAMETER)
    return Value(CONSTANT, value.item() if hasattr(value, "item") else value)


def folded(equation: Equation, values: Sequence[Value]) -> Value | None:
    """The result of an equation that is no work; None of one that is."""
    name, numbers = equation.primitive, [value.number for value in values]
    if name in _NEUTRAL and len(values) == 2:
        first, second = (number == _NEUTRAL[name] for number in numbers)
        if second or first and name != "sub":
            return values[0 if second else 1]
    if not numbers or None in numbers or name in _NOT_FOLDED:
        return None
    if name in _VIEWS:
        same = all(number == numbers[0] for number in numbers)
        return Value(CONSTANT, numbers[0]) if same else None
    if not is_elementwise(name):
        return None
    worked_out = ... not in numbers and name in _ARITHMETIC
    return Value(CONSTANT, _ARITHMETIC[name](*numbers) if worked_out else ...)


def origin(equation: Equation, operands: Sequence[int]) -> int:
    """Origin of an equation's results, from those of its operands."""
    if equation.primitive in _PICKS:
        return picked(operands[0], max(operands[1:]))
    highest = max(operands, default=CONSTANT)
    return DATA if highest == GATHERED and equation.primitive not in _VIEWS else highest


def picked(source: int, place: int) -> int:
    """Origin of what stands at ``place``, an index or the number of a branch, in ``source``."""
    if place < GATHERED:
        return max(source, place)
    return GATHERED if source in (PARAMETER, GATHERED) else DATA


def weight_side(left: int, right: int) -> int | None:
    """Which operand of a product is the weight, 0 or 1; None where neither is.

    Of a parameter and what was gathered from one the parameter; of two alike the right one.
    """
    ranks = [origin if origin in (PARAMETER, GATHERED) else DATA for origin in (left, right)]
    if min(ranks) == DATA:
        return None
    return 0 if ranks[0] < ranks[1] else 1

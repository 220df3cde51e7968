"""What one equation costs beside products: operations by class, and elements moved.

The classes follow XLA's cost analysis, read off ``jax.jit(f).lower(*args).cost_analysis()`` for
each primitive on its own (jax 0.7.2 and 0.10.2 agree; a test repeats it): one operation per element
of the result, whatever it is, comparisons, selections and conversions too; ``exp``, ``log``,
``sqrt`` and ``trig`` are transcendentals, which XLA counts apart from flops. A reduction of n to m
elements takes n - m. What XLA makes of larger primitives is kept: a cumulative sum of n elements is
n windowed sums, n (n - 1) additions; a sort of n takes n ceil(log2 n) comparisons.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastsnn_jax.jaxpr import Equation

TRANSCENDENTAL = ("exp", "log", "sqrt", "trig")

# One 32-bit number of threefry2x32: 20 rounds on a pair of words with their key additions
THREEFRY = 116


class Cost(NamedTuple):
    """Operations by class, and elements moved by kind of movement."""

    operations: Mapping[str, int] = {}
    moved: Mapping[str, int] = {}


def flops(operations: Mapping[str, int]) -> int:
    """What XLA calls flops of operations by class: all but the transcendentals."""
    return sum(n for name, n in operations.items() if name not in TRANSCENDENTAL)


def cost(equation: Equation) -> Cost | None:
    """Cost of an equation; None where no rule covers it. Products and control flow are elsewhere.

    >>> import jax
    >>> from fastsnn_jax import jaxpr
    >>> closed, _ = jaxpr.trace(jax.nn.sigmoid, jax.numpy.ones(5))
    >>> cost(jaxpr.Equation(closed.jaxpr.eqns[0], (0,), "")).operations
    {'add': 10, 'div': 5, 'exp': 5}
    """
    name = equation.primitive
    if name in _FREE:
        return Cost()
    if name in _PER_ELEMENT:
        size = equation.outputs[0].size
        return Cost({kind: n * size for kind, n in _PER_ELEMENT[name].items()})
    rule = _RULES.get(name)
    return None if rule is None else rule(equation)


def is_elementwise(primitive: str) -> bool:
    """True of primitives that give each element of the result from those at its place."""
    return primitive in _PER_ELEMENT


# Views, bookkeeping and what compilers fold away
_FREE = frozenset("""
    axis_index broadcast broadcast_in_dim complex copy_p create_token
    debug_callback device_put empty empty2 expand_dims full imag iota mesh_cast name
    optimization_barrier pbroadcast pcast platform_index pvary random_unwrap random_wrap real
    reshape sharding_constraint slice split squeeze stop_gradient
""".split())

_ONCE = {
    "add": "add add_any neg sub",
    "mul": "mul square",
    "div": "div rem",
    "convert": "bitcast_convert_type",
    "compare": "clamp eq ge gt is_finite le lt max min ne sign",
    "select": "abs and clz not or population_count xor",
    "round": "ceil floor reduce_precision round",
    "shift": "shift_left shift_right_arithmetic shift_right_logical",
    "exp": "erf exp expm1 pow tanh",
    "log": "log log1p",
    "sqrt": "cbrt rsqrt sqrt",
    "trig": "atan atan2 cos sin tan",
}

# What XLA expands these into, per element
_COMPOSITE = {
    "acos": {"other": 3, "trig": 1, "sqrt": 1},
    "acosh": {"other": 7, "log": 2, "sqrt": 2},
    "asin": {"other": 5, "trig": 1, "sqrt": 1},
    "asinh": {"other": 11, "log": 2, "sqrt": 1},
    "atanh": {"other": 6, "log": 2},
    "cosh": {"other": 3, "exp": 2},
    "digamma": {"other": 73, "log": 2, "trig": 1},
    "erf_inv": {"other": 37, "log": 1, "sqrt": 1},
    "erfc": {"other": 62, "exp": 1},
    "exp2": {"mul": 1, "exp": 1},
    "lgamma": {"other": 53, "log": 3, "trig": 1},
    "logistic": {"add": 2, "div": 1, "exp": 1},
    "nextafter": {"other": 24},
    "sinh": {"other": 10, "exp": 3},
}

_PER_ELEMENT = {
    name: {kind: 1} for kind, names in _ONCE.items() for name in names.split()
} | _COMPOSITE


def _size(aval: Any) -> int:
    return math.prod(aval.shape)


def _convert(equation: Equation) -> Cost:
    (source,), (result,) = equation.inputs, equation.outputs
    return Cost({"convert": 0 if source.dtype == result.dtype else result.size})


def _select(equation: Equation) -> Cost:
    which, *cases = equation.inputs
    choices = 1 if which.dtype == bool else 2 * (len(cases) - 1)
    return Cost({"select": choices * equation.outputs[0].size})


def _integer_power(equation: Equation) -> Cost:
    exponent, size = equation.params["y"], equation.outputs[0].size
    products = abs(exponent).bit_length() + abs(exponent).bit_count() - 2
    return Cost({"mul": max(products, 0) * size, "div": (exponent < 0) * size})


def _reduction(kind: str, steps: int = 1) -> Callable[[Equation], Cost]:
    def rule(equation: Equation) -> Cost:
        merged = equation.inputs[0].size - equation.outputs[0].size
        return Cost({kind: steps * merged})

    return rule


def _arg_reduction(equation: Equation) -> Cost:
    # A pair of value and index is merged: with NaN to look for, in more steps.
    steps = 9 if np.issubdtype(equation.inputs[0].dtype, np.inexact) else 7
    return _reduction("compare", steps)(equation)


def _general_reduction(equation: Equation) -> Cost:
    steps = len(equation.params["jaxpr"].eqns)
    return _reduction("reduce", steps)(equation)


def _cumulative(operations: Mapping[str, int]) -> Callable[[Equation], Cost]:
    def rule(equation: Equation) -> Cost:
        (aval,), axis = equation.inputs, equation.params["axis"]
        merged = aval.size * (aval.shape[axis] - 1)
        return Cost({kind: n * merged for kind, n in operations.items()})

    return rule


def _window(kind: str) -> Callable[[Equation], Cost]:
    def rule(equation: Equation) -> Cost:
        entries = math.prod(equation.params["window_dimensions"])
        return Cost({kind: (entries - 1) * equation.outputs[0].size})

    return rule


def _scatter_window(equation: Equation) -> Cost:
    entries, sources = math.prod(equation.params["window_dimensions"]), equation.inputs[0].size
    return Cost({"compare": (entries - 1) * sources, "add": sources}, {"scatter": sources})


def _sort(equation: Equation) -> Cost:
    size = equation.inputs[0].size
    moved = sum(aval.size for aval in equation.inputs)
    return Cost({"compare": size * (size - 1).bit_length() if size else 0}, {"sort": moved})


def _moved(kind: str, whole: bool = True) -> Callable[[Equation], Cost]:
    """Elements of the result, or of the update that is written into it."""
    def rule(equation: Equation) -> Cost:
        aval = equation.outputs[0] if whole else equation.inputs[1]
        return Cost(moved={kind: _size(aval)})

    return rule


def _gather(equation: Equation) -> Cost:
    indices, result = equation.inputs[1], equation.outputs[0].size
    operations = {}
    if "FILL" in str(equation.params["mode"]):  # every index is looked at, every element chosen
        rows = _size(indices) // max(indices.shape[-1], 1)
        operations = {"compare": 4 * _size(indices) - rows, "select": result}
    return Cost(operations, {"gather": result})


def _scatter(kind: str) -> Callable[[Equation], Cost]:
    def rule(equation: Equation) -> Cost:
        _, indices, updates = equation.inputs
        operations = {kind: updates.size} if kind else {}
        if "CLIP" in str(equation.params["mode"]):
            operations["compare"] = operations.get("compare", 0) + indices.size
        return Cost(operations, {"scatter": updates.size})

    return rule


def _random_bits(equation: Equation) -> Cost:
    shape, numbers = equation.params["shape"], _size(equation.outputs[0])
    narrow = equation.params["bit_width"] < 32
    counters = (2 * len(shape) + 2) * math.prod(shape)  # shared by all keys
    return Cost({"random": numbers * (THREEFRY + 1 + narrow) + counters})


def _random(per_key: int) -> Callable[[Equation], Cost]:
    return lambda equation: Cost({"random": per_key * _size(equation.outputs[0])})


_RULES: dict[str, Callable[[Equation], Cost]] = {
    "convert_element_type": _convert,
    "select_n": _select,
    "integer_pow": _integer_power,
    "argmax": _arg_reduction,
    "argmin": _arg_reduction,
    "reduce": _general_reduction,
    **{f"reduce_{kind}": _reduction("reduce")
       for kind in ("sum", "max", "min", "prod", "and", "or", "xor")},
    "cumsum": _cumulative({"add": 1}),
    "cumprod": _cumulative({"mul": 1}),
    "cummax": _cumulative({"compare": 1}),
    "cummin": _cumulative({"compare": 1}),
    "cumlogsumexp": _cumulative({"other": 8, "exp": 1, "log": 1}),
    "reduce_window_sum": _window("add"),
    "reduce_window_max": _window("compare"),
    "reduce_window_min": _window("compare"),
    "select_and_scatter_add": _scatter_window,
    "sort": _sort,
    "top_k": lambda equation: Cost(moved={"sort": equation.inputs[0].size}),
    "gather": _gather,
    "dynamic_slice": _moved("gather"),
    "dynamic_update_slice": _moved("scatter", whole=False),
    "scatter": _scatter(""),
    "scatter-add": _scatter("add"),
    "scatter-sub": _scatter("add"),
    "scatter-mul": _scatter("mul"),
    "scatter-min": _scatter("compare"),
    "scatter-max": _scatter("compare"),
    **{name: _moved("copy") for name in (
        "concatenate", "copy", "pad", "rev", "stack", "tile", "transpose",
    )},
    **{name: _moved("collective") for name in (
        "all_gather", "all_to_all", "pmax", "pmin", "ppermute", "psum", "psum_invariant",
        "reduce_scatter",
    )},
    "random_bits": _random_bits,
    "random_fold_in": _random(THREEFRY + 2),
    "random_split": _random(THREEFRY + 4),
    "random_seed": _random(2),
    "threefry2x32": _random(THREEFRY),
}

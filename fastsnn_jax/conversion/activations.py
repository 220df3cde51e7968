"""Knows activation functions by what they compute, not by how they are written.

A function of one number is followed through a program by its values at `PROBES`, in float64. Those
of ``jax.nn.silu(x)``, of ``x * sigmoid(x)`` and of ``x / (1 + exp(-x))`` are the same, in whatever
framework, inlined or not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastsnn_jax.energy import op_rules
from fastsnn_jax.jaxpr import Equation

PROBES = np.array([  # around the corners of the hard functions, and numbers that are no corner
    -11.3, -7.0, -6.0, -4.9, -3.3, -3.0, -2.6, -1.9, -1.3, -1.0, -0.8, -0.45, -0.2, -0.03, 0.0,
    0.04, 0.17, 0.5, 0.75, 1.0, 1.15, 1.7, 2.3, 3.0, 3.4, 4.4, 5.6, 6.0, 6.5, 9.7,
])

# How far a function may be from its formula: constants in bfloat16 are off by 2^-9, and the tanh
# form of gelu is within 5e-4 of the exact one. Piecewise linear ones have no such excuse.
SMOOTH, SHARP = 3e-3, 1e-5

NONNEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus")
"""Activations whose results are never negative: unsigned spikes carry them."""


def recognise(values: np.ndarray) -> str | None:
    """Name of the activation whose values at `PROBES` these are; None of another function.

    >>> recognise(PROBES / (1 + np.exp(-PROBES))), recognise(2 * PROBES)
    ('silu', None)
    """
    if not np.all(np.isfinite(values)):
        return None
    for name, expected, tolerance in (*_FIXED, *_scaled(values)):
        if _close(values, expected, tolerance):
            return name
    return None


def is_affine(values: np.ndarray) -> bool:
    """True where the values at `PROBES` lie on one line, as those of ``2 x + 1`` do."""
    if not np.all(np.isfinite(values)):
        return False
    line = np.polynomial.Polynomial.fit(PROBES, values, 1)(PROBES)
    return bool(np.max(np.abs(line - values)) <= 1e-9 * (1 + np.max(np.abs(values))))


def is_identity(values: np.ndarray) -> bool:
    """True where the values are those of `PROBES` themselves."""
    return _close(values, PROBES, 1e-12)


def is_elementwise(primitive: str) -> bool:
    """True of primitives that give each element of the result from those at its place."""
    return primitive in _NUMPY or op_rules.is_elementwise(primitive)


def at_probes(equation: Equation, operands: Sequence[np.ndarray | float]) -> np.ndarray | None:
    """What an elementwise equation makes of its operands' values; None where it is not known."""
    rule = _NUMPY.get(equation.primitive)
    if rule is None:
        return None
    with np.errstate(all="ignore"):
        return np.asarray(rule(equation.params, *operands))


def _close(values: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """True within ``tolerance`` of ``|expected|``, and of 0.1 near 0; where 0 is sharp, exactly."""
    floor = 0.1 if tolerance == SMOOTH else 0.0
    return bool(np.all(np.abs(values - expected) <= tolerance * (np.abs(expected) + floor)))


def _scaled(values: np.ndarray) -> list[tuple[str, np.ndarray, float]]:
    """The functions with a constant of their own, at the constant that fits ``values`` at -1."""
    at_minus_one = values[PROBES == -1.0].item()
    slope, depth = -at_minus_one, at_minus_one / math.expm1(-1.0)
    found = []
    if 0 < slope < 1:
        found.append(("leaky_relu", np.where(PROBES < 0, slope * PROBES, PROBES), SHARP))
    if depth > 0:
        found.append(("elu", np.where(PROBES < 0, depth * np.expm1(PROBES), PROBES), SMOOTH))
    return found


def _each(function: Callable[[float], float]) -> Callable[[Any], np.ndarray]:
    return np.vectorize(function, otypes=[np.float64])


_erf, _erfc = _each(math.erf), _each(math.erfc)


def _logistic(x: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def _convert(params: Mapping[str, Any], x: Any) -> np.ndarray:
    kind = np.dtype(params["new_dtype"]).kind
    return np.asarray(x).astype(bool if kind == "b" else np.int64 if kind in "iu" else np.float64)


def _select(params: Mapping[str, Any], which: Any, *cases: Any) -> np.ndarray:
    if len(cases) != 2:
        return np.full_like(PROBES, np.nan)
    no, yes = cases
    return np.where(np.asarray(which, bool), yes, no)


def _plain(function: Callable) -> Callable:
    return lambda params, *operands: function(*operands)


_FIXED = (
    ("relu", np.maximum(PROBES, 0), SHARP),
    ("relu6", np.clip(PROBES, 0, 6), SHARP),
    ("hard_tanh", np.clip(PROBES, -1, 1), SHARP),
    ("hard_sigmoid", np.clip(PROBES + 3, 0, 6) / 6, SHARP),
    ("hard_silu", PROBES * np.clip(PROBES + 3, 0, 6) / 6, SHARP),
    ("tanh", np.tanh(PROBES), SMOOTH),
    ("sigmoid", _logistic(PROBES), SMOOTH),
    ("softplus", np.log1p(np.exp(PROBES)), SMOOTH),
    ("silu", PROBES * _logistic(PROBES), SMOOTH),
    ("gelu", PROBES * 0.5 * _erfc(-PROBES / math.sqrt(2)), SMOOTH),
    ("gelu", PROBES * 0.5 * (1 + np.tanh(
        math.sqrt(2 / math.pi) * (PROBES + 0.044715 * PROBES**3))), SMOOTH),
)

_NUMPY: dict[str, Callable] = {
    **{name: _plain(function) for name, function in {
        "abs": np.abs, "add": np.add, "add_any": np.add, "and": np.logical_and, "cos": np.cos,
        "div": np.divide, "eq": np.equal, "erf": _erf, "erfc": _erfc, "exp": np.exp,
        "exp2": np.exp2, "expm1": np.expm1, "ge": np.greater_equal, "gt": np.greater,
        "is_finite": np.isfinite, "le": np.less_equal, "log": np.log, "log1p": np.log1p,
        "logistic": _logistic, "lt": np.less, "max": np.maximum, "min": np.minimum,
        "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "not": np.logical_not,
        "or": np.logical_or, "pow": np.power, "rsqrt": lambda x: 1 / np.sqrt(x),
        "sign": np.sign, "sin": np.sin, "sqrt": np.sqrt, "square": np.square,
        "sub": np.subtract, "tanh": np.tanh, "copy": np.asarray, "copy_p": np.asarray,
        "optimization_barrier": np.asarray, "reduce_precision": np.asarray,
    }.items()},
    "clamp": lambda params, low, x, high: np.clip(x, low, high),
    "convert_element_type": _convert,
    "integer_pow": lambda params, x: np.power(np.asarray(x, np.float64), float(params["y"])),
    "select_n": _select,
}

"""Matrix products and convolutions: their multiply-adds, and what arrives at them.

A multiply-add (MAC) is one tap: padding and the zeros that dilate an input are none, as in XLA's
cost analysis. Every element of an operand has a fan-out, the number of MACs it enters; those of an
operand add up to the MACs of the product. In a dot_general all elements of an operand have the
same; in a convolution it depends on the place, near borders and between strides. So

    effective MACs = sum over places of (non-zero elements there) * fan-out

which is exact, and of which only the numbers of non-zero elements are measured on the device.
"""

import math
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._typing import Array, Int
from fastsnn_jax.jaxpr import Equation, Path

PRODUCTS = ("dot_general", "conv_general_dilated")


class Side(NamedTuple):
    """One operand of a product, as it is measured.

    Attributes:
      operand: 0 left, 1 right.
      size: its elements.
      axes: its axes along which the fan-out differs.
      group_of: group of each place along ``axes``, int32, in ascending order of the axes.
      fan_outs: MACs that each element of a group enters.
    """

    operand: int
    size: int
    axes: tuple[int, ...]
    group_of: np.ndarray
    fan_outs: tuple[int, ...]


class Site(NamedTuple):
    """One product where it stands in a program.

    Attributes:
      path: place of its equation.
      name: the name scopes it stands in.
      kind: "weight" or "activation", see ``fastsnn_jax.energy.accountant``.
      macs: of one run.
      bits: of an element, left and right.
      sides: the operands that are measured.
    """

    path: Path
    name: str
    kind: str
    macs: int
    bits: tuple[int, int]
    sides: tuple[Side, ...]


class Arrived(NamedTuple):
    """What arrived at one side of a product, over all its runs.

    Attributes:
      zeros, units, size: elements that were 0, that were -1, 0 or 1, and all.
      effective_macs: MACs of the elements that were not 0.
      spike_driven_macs: those of runs whose elements were all -1, 0 or 1.
    """

    zeros: int
    units: int
    size: int
    effective_macs: int
    spike_driven_macs: int


def sides(equation: Equation) -> tuple[Side, Side]:
    """Both operands of a product, with their fan-outs.

    >>> from fastsnn_jax import jaxpr
    >>> closed, _ = jaxpr.trace(jnp.matmul, jnp.ones((5, 2)), jnp.ones((2, 3)))
    >>> [side.fan_outs for side in sides(jaxpr.Equation(closed.jaxpr.eqns[0], (0,), ""))]
    [(3,), (5,)]
    """
    one, other = (_dot if equation.primitive == "dot_general" else _convolution)(equation)
    return one, other


def macs(side: Side) -> int:
    """MACs of one run."""
    places = np.bincount(side.group_of.ravel(), minlength=len(side.fan_outs)).tolist()
    share = side.size // max(sum(places), 1)
    return share * sum(n * fan for n, fan in zip(places, side.fan_outs, strict=True))


def bits(dtype: Any) -> int:
    """Bits of an element."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return 1
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return 8 * np.dtype(dtype).itemsize
    return (jnp.iinfo if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo)(dtype).bits


def measure(operand: Array, side: Side) -> Int[Array, " 2+2G"]:
    """What one run sees of a side: units, 1 if all are, non-zeros by group, the same if all are."""
    nonzero, unit = operand != 0, (operand == 0) | (operand == 1)
    if bits(operand.dtype) > 1 and not jnp.issubdtype(operand.dtype, jnp.unsignedinteger):
        unit |= operand == -1
    rest = tuple(axis for axis in range(operand.ndim) if axis not in side.axes)
    units = jnp.sum(unit, dtype=jnp.uint32)
    counts = jnp.sum(nonzero, axis=rest, dtype=jnp.uint32).ravel()
    if len(side.fan_outs) > 1:
        counts = jax.ops.segment_sum(counts, side.group_of.ravel(), len(side.fan_outs))
    else:
        counts = jnp.sum(counts, dtype=jnp.uint32, keepdims=True)
    whole = (units == side.size).astype(jnp.uint32)
    return jnp.concatenate([units[None], whole[None], counts, whole * counts])


def arrived(measured: list[int], side: Side, runs: int) -> Arrived:
    """Reads `measure`, summed over all runs."""
    groups = len(side.fan_outs)
    units, _, *nonzeros = measured
    effective, driven = (
        sum(n * fan for n, fan in zip(part, side.fan_outs, strict=True))
        for part in (nonzeros[:groups], nonzeros[groups:])
    )
    size = runs * side.size
    return Arrived(size - sum(nonzeros[:groups]), units, size, effective, driven)


def _dot(equation: Equation) -> list[Side]:
    (contracting, batch) = equation.params["dimension_numbers"]
    found = []
    for operand, aval in enumerate(equation.inputs):
        other = 1 - operand
        used = (*contracting[other], *batch[other])
        fan = math.prod(n for axis, n in enumerate(equation.inputs[other].shape)
                        if axis not in used)
        found.append(Side(operand, math.prod(aval.shape), (), np.zeros((), np.int32), (fan,)))
    return found


def _convolution(equation: Equation) -> list[Side]:
    params, (left, right) = equation.params, equation.inputs
    (batch, _, *places), (features, _, *taps), (_, _, *results) = params["dimension_numbers"]
    window = [
        _taps(left.shape[place], right.shape[tap], equation.outputs[0].shape[result], *geometry)
        for place, tap, result, *geometry in zip(
            places, taps, results, params["window_strides"], params["padding"],
            params["lhs_dilation"], params["rhs_dilation"], strict=True,
        )
    ]
    groups = params["feature_group_count"] * params["batch_group_count"]
    each_place = right.shape[features] // groups
    each_tap = left.shape[batch] // params["batch_group_count"]
    return [
        _side(0, left.shape, places, [valid.sum(1) for valid in window], each_place),
        _side(1, right.shape, taps, [valid.sum(0) for valid in window], each_tap),
    ]


def _taps(size, taps, results, stride, padding, dilation, tap_dilation) -> np.ndarray:
    """How often each input place meets each tap, ``[size, taps]``."""
    result, tap = np.mgrid[:results, :taps]
    place = result * stride + tap * tap_dilation - padding[0]
    valid = (place >= 0) & (place % dilation == 0) & (place // dilation < size)
    met = np.zeros((size, taps), np.int64)
    np.add.at(met, (place[valid] // dilation, tap[valid]), 1)
    return met


def _side(operand, shape, axes, fans, factor) -> Side:
    """A side whose fan-out is a product over its axes."""
    order = np.argsort(axes, kind="stable")
    ordered = [fans[i] for i in order]
    fan = np.asarray(reduce(np.multiply.outer, ordered, np.int64(1)))
    values, group_of = np.unique(fan, return_inverse=True)
    return Side(operand, math.prod(shape), tuple(sorted(axes)),
                group_of.reshape(fan.shape).astype(np.int32),
                tuple(factor * value for value in values.tolist()))

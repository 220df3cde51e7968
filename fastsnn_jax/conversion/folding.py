"""Folds what scales the channels of a product into its weight: a BatchNorm in inference, mostly.

    ((x W + c) - mean) * rsqrt(var + eps) * scale + bias  =  x (W a) + b

What comes of a chain, see ``chains``, is one product and one addition: on the way from spikes to
membrane nothing is multiplied. Of a mean before the product only the sum is left. W a and b are
computed from the user's own variables, so gradients reach them. Source of the equation: Jacob et
al. 2018, CVPR, section 3.2.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax import jaxpr
from fastsnn_jax._typing import Array
from fastsnn_jax.conversion import threaded
from fastsnn_jax.conversion.chains import VIEWS, Chain, Value, find
from fastsnn_jax.jaxpr import Equation, Path

_MARK = "folded"  # in the name of the call that a folded product becomes


def fold(closed: Any, arguments: Sequence[Any], origins: Sequence[int]) -> tuple[Any, int]:
    """A program with every chain as one product and one addition.

    Args:
      closed: its jaxpr.
      arguments: of it, flat; only their shapes and dtypes matter.
      origins: of them, see ``energy.origins``.

    Returns:
      The program, and the number of its chains.

    >>> from fastsnn_jax.energy.origins import DATA, PARAMETER
    >>> def dense(variables, x):
    ...     return (x @ variables["w"] - variables["mean"]) * lax.rsqrt(variables["var"] + 1e-5)
    >>> ones = jnp.ones
    >>> arguments = {"mean": ones(3), "var": ones(3), "w": ones((5, 3))}, ones((2, 5))
    >>> leaves = jax.tree.leaves(arguments)
    >>> folded, number = fold(jaxpr.trace(dense, *arguments)[0], leaves, [PARAMETER] * 3 + [DATA])
    >>> number, folded.jaxpr.eqns[-1].params["name"]
    (1, 'folded.sub.mul')
    """
    chains = find(closed, origins)
    rules = {path: rule for chain in chains for path, rule in _rules(chain)}
    if not rules:
        return closed, 0
    folded, _ = jaxpr.trace(
        lambda arguments: threaded.run(closed, arguments, rules, {})[0], list(arguments)
    )
    return folded, len(chains)


def operations(equation: Equation) -> tuple[str, ...]:
    """What was folded in the product that a call runs; empty for any other call."""
    mark, *folded = str(equation.params.get("name", "")).split(".")
    return tuple(folded) if mark == _MARK else ()


class _Pending(NamedTuple):
    """A product that is not run yet, and what its chain has come to: ``W scale``, plus shift.

    Scale and shift are laid out as the weight is, with 1 for the axes along which they are equal.
    """

    product: Equation
    operands: list[Array]
    weight: int
    scale: Any = 1.0
    shift: Any = None
    views: tuple[Equation, ...] = ()
    names: tuple[str, ...] = ()

    def scaled(self, by: Callable[[Any], Any]) -> "_Pending":
        """The same with what multiplies its result, or changes its sign."""
        return self._replace(scale=by(self.scale),
                             shift=None if self.shift is None else by(self.shift))


class _Sum(NamedTuple):
    """The sum that a mean is made of, and by what it is to be multiplied."""

    number: Array
    scale: Any = 1.0
    names: tuple[str, ...] = ()


def _rules(chain: Chain) -> Iterator[tuple[Path, threaded.Rule]]:
    """Rules that hold a product back, gather its links, and run it in the place of the last."""
    before, product, links = chain
    for link in before:
        yield link.equation.path, partial(_sum, link.place)
    yield product.equation.path, partial(_start, product, not links)
    for link in links:
        yield link.equation.path, partial(_continue, link, link is links[-1])


def _sum(place: int, equation: Equation, operands: list[Any], feed: Any):
    del feed
    given, name = operands[place], equation.primitive
    held = given if isinstance(given, _Sum) else _Sum(given)
    if name in VIEWS:
        with threaded.scope(equation):
            return [held._replace(number=equation.bind([held.number])[0])], ()
    by = -1.0 if name == "neg" else _laid_out(operands[1 - place], {}, 0)
    scale = held.scale / by if name == "div" else held.scale * by
    return [held._replace(scale=scale, names=(*held.names, name))], ()


def _start(product: Value, last: bool, equation: Equation, operands: list[Any], feed: Any):
    del feed
    weight, operands = product.place, list(operands)
    data = operands[1 - weight]
    held = data if isinstance(data, _Sum) else _Sum(data)
    operands[1 - weight] = held.number
    pending = _Pending(equation, operands, weight, held.scale, names=held.names)
    return [_run(pending, product.made) if last else pending], ()


def _continue(link: Value, last: bool, equation: Equation, operands: list[Any], feed: Any):
    del feed
    pending = _linked(operands[link.place], link, equation, operands)
    return [_run(pending, link.made) if last else pending], ()


def _linked(
    pending: _Pending, link: Value, equation: Equation, operands: Sequence[Any]
) -> _Pending:
    """What a chain comes to with one link more."""
    name = equation.primitive
    if name in VIEWS:
        return pending._replace(views=(*pending.views, equation))
    pending = pending._replace(names=(*pending.names, name))
    if name == "neg":
        return pending.scaled(operator.neg)
    rank = jnp.ndim(pending.operands[pending.weight])
    other = _laid_out(operands[1 - link.place], link.made, rank)
    if name == "mul":
        return pending.scaled(lambda number: number * other)
    if name == "div":
        return pending.scaled(lambda number: number / other)
    if name == "sub" and link.place == 1:
        pending = pending.scaled(operator.neg)
    elif name == "sub":
        other = -other
    return pending._replace(shift=other if pending.shift is None else pending.shift + other)


def _run(pending: _Pending, made: Mapping[int, int]) -> Array:
    """Runs the product with its weight scaled, and adds what is left."""
    product, operands, weight, scale, shift, views, names = pending
    places = {theirs: ours for ours, theirs in made.items()}

    def folded(operands: list[Array], scale: Any, shift: Any) -> Array:
        operands[weight] = operands[weight] * scale
        (result,) = product.bind(operands)
        for view in views:
            (result,) = view.bind([result])
        return result if shift is None else result + _laid_out(shift, places, result.ndim)

    folded.__name__ = ".".join((_MARK, *names))
    with threaded.scope(product):
        return jax.jit(folded)(list(operands), scale, shift)


def _laid_out(number: Array, axes: Mapping[int, int], rank: int) -> Array:
    """The number with its ``axes`` where they are told to go; it is the same along all others."""
    number = jnp.asarray(number)
    if not number.ndim:
        return number
    sizes = [size if axis in axes else 1 for axis, size in enumerate(number.shape)]
    number = lax.slice(number, [0] * number.ndim, sizes)
    number = lax.squeeze(number, [axis for axis in range(number.ndim) if axis not in axes])
    order = [axes[axis] for axis in sorted(axes)]
    number = lax.transpose(number, sorted(range(len(order)), key=order.__getitem__))
    return lax.expand_dims(number, [axis for axis in range(rank) if axis not in order])

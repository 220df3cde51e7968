"""Which axis of a value are its channels: the one that the weights of the last product made.

It is the last axis of most values, but the second of NCHW images, and the first where vmap put the
samples behind it.
"""

import math
from collections.abc import Sequence

from fastsnn_jax.jaxpr import Equation

_SAME_AXES = frozenset("""
    concatenate cumsum pad reduce_window_max reduce_window_min reduce_window_sum rev select_n slice
""".split())


def of_product(equation: Equation, weight: int) -> int | None:
    """The axis of a product's result that its weight made; the last of several."""
    numbers = equation.params["dimension_numbers"]
    if equation.primitive != "dot_general":
        return numbers[2][1]
    contracting, batch = numbers
    free = [len(aval.shape) - len(contracting[side]) - len(batch[side])
            for side, aval in enumerate(equation.inputs)]
    if not free[weight]:
        return None
    return len(batch[0]) + (free[0] if weight == 0 else sum(free)) - 1


def passed_on(equation: Equation, axes: Sequence[int | None], elementwise: bool) -> int | None:
    """The axis of a result's channels, from those of the operands; None where it is lost.

    >>> import jax, jax.numpy as jnp, fastsnn_jax.jaxpr as jaxpr
    >>> closed, _ = jaxpr.trace(lambda x: jnp.moveaxis(x, 1, 2), jnp.ones((5, 3, 4)))
    >>> passed_on(jaxpr.Equation(closed.jaxpr.eqns[0], (0,), ""), [1], False)
    2
    """
    known = [axis for axis in axes if axis is not None]
    if not known:
        return None
    axis, name, params = known[0], equation.primitive, equation.params
    before, after = equation.inputs[0].shape, equation.outputs[0].shape
    if elementwise or name in _SAME_AXES:
        return axis
    if axes[0] is None:
        return None
    if name == "transpose":
        return params["permutation"].index(axis)
    if name == "broadcast_in_dim":
        return params["broadcast_dimensions"][axis]
    gone = params.get("axes", params.get("dimensions"))
    if name == "squeeze" or name.startswith("reduce_") and gone is not None:
        return None if axis in gone else axis - sum(other < axis for other in gone)
    if name == "reshape":
        places = [place for place, size in enumerate(after) if size == before[axis]
                  and math.prod(after[:place]) == math.prod(before[:axis])]
        return places[0] if places else None
    return None

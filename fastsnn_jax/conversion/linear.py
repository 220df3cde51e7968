"""Which equations are linear in what changes from step to step.

An equation is linear in its moving operands where, its other operands held,

    f(a + b) = f(a) + f(b) - f(0)

f(0) being what the others add to it, a bias for example. Of such an equation the spikes of each
step can be worked on as they come; of any other the whole sum is needed.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from fastsnn_jax.jaxpr import Equation

_ALWAYS = frozenset("""
    add add_any broadcast_in_dim concatenate copy copy_p cumsum expand_dims neg
    optimization_barrier pad real reduce_sum reduce_window_sum reshape rev sharding_constraint slice
    split squeeze stack sub transpose
""".split())
_IN_ONE = ("mul", "dot_general", "conv_general_dilated", "ragged_dot_general")
_IN_THE_FIRST = ("div", "gather", "dynamic_slice")


def is_linear(equation: Equation, moving: Sequence[bool]) -> bool:
    """True where an equation is linear in the operands that are ``moving``.

    >>> import jax, fastsnn_jax.jaxpr as jaxpr
    >>> closed, _ = jaxpr.trace(jnp.divide, 1.0, 2.0)
    >>> half = jaxpr.Equation(closed.jaxpr.eqns[-1], (0,), "")
    >>> is_linear(half, (True, False)), is_linear(half, (False, True))
    (True, False)
    """
    name = equation.primitive
    if name == "convert_element_type":
        # Narrowing rounds, but rounds whatever is computed in the narrow type anyway.
        return all(jnp.issubdtype(aval.dtype, jnp.floating)
                   for aval in (*equation.inputs, *equation.outputs))
    if name in _ALWAYS:
        return all(jnp.issubdtype(aval.dtype, jnp.inexact) for aval in equation.outputs)
    if name in _IN_ONE:
        return sum(moving) == 1
    if name in _IN_THE_FIRST:
        return not any(moving[1:])
    if name == "select_n":
        return not moving[0]
    if name in ("scatter-add", "dynamic_update_slice"):
        indices = moving[1:2] if name == "scatter-add" else moving[2:]
        return not any(indices)
    return False


def addends(equation: Equation) -> range:
    """Operands that a linear equation adds, places or chooses, each a part of the result.

    What is held among them adds its share once; every other held operand is a factor or an index.
    """
    last = len(equation.inputs)
    first, stop = _ADDENDS.get(equation.primitive, (0, 0))
    return range(first, min(stop, last))


_ADDENDS = {
    **dict.fromkeys(("add", "add_any", "concatenate", "pad", "stack", "sub"), (0, 1 << 30)),
    "dynamic_update_slice": (0, 2),
    "select_n": (1, 1 << 30),
    "scatter-add": (0, 3),  # the indices between them are held: integers, never masked
}

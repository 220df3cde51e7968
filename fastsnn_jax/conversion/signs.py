"""Which values of a program can never be negative: unsigned spikes carry them."""

from collections.abc import Sequence

from fastsnn_jax.jaxpr import Equation

_ALWAYS = frozenset("abs erfc exp exp2 iota is_finite logistic rsqrt sqrt square".split())
_IF_ALL = frozenset("""
    add add_any broadcast_in_dim concatenate convert_element_type copy cumsum div dot_general
    conv_general_dilated expand_dims min mul optimization_barrier pad reduce_max reduce_min
    reduce_sum reduce_window_max reduce_window_sum reshape rev slice squeeze split stack transpose
""".split())
_OF_THE_FIRST = frozenset("dynamic_slice gather".split())


def is_nonnegative(equation: Equation, operands: Sequence[bool]) -> bool:
    """True where the results of an equation are >= 0 because the ``operands`` marked are.

    >>> import jax.numpy as jnp, fastsnn_jax.jaxpr as jaxpr
    >>> closed, _ = jaxpr.trace(jnp.multiply, 1.0, 2.0)
    >>> product = jaxpr.Equation(closed.jaxpr.eqns[-1], (0,), "")
    >>> is_nonnegative(product, (True, True)), is_nonnegative(product, (True, False))
    (True, False)
    """
    name = equation.primitive
    if name in _ALWAYS:
        return True
    if name == "max":
        return any(operands)
    if name == "clamp":
        return operands[0]
    if name == "integer_pow":
        return operands[0] or equation.params["y"] % 2 == 0
    if name == "select_n":
        return all(operands[1:])
    if name in _OF_THE_FIRST:
        return operands[0]
    return name in _IF_ALL and all(operands)

"""XLA's own count of a block's flops, to hold ours against.

Of the program as lowered, not as compiled: what the compiler of one backend repeats inside fusions,
folds or replaces by a library is not work that the program asks for, and changes from release to
release. It is lowered as for a TPU, whatever the machine, because there the rounds of the
random-number generator stand one by one; elsewhere they are a loop, of which XLA counts one turn.
Loops and branches inside the block are left out: they are blocks of their own.
"""

from typing import Any

import jax

from fastsnn_jax import jaxpr

_CONTROL = ("scan", "while", "cond", "shard_map")


def xla_flops(closed: Any) -> int | None:
    """Flops of one run of a jaxpr; None where XLA cannot say, as of one split over devices.

    >>> import jax.numpy as jnp
    >>> closed, _ = jaxpr.trace(jnp.matmul, jnp.ones((5, 2)), jnp.ones((2, 3)))
    >>> xla_flops(closed)
    60
    """
    found: list[jaxpr.Equation] = []

    def look(equation, values):
        inner = jaxpr.called(equation)
        if inner is not None:
            return jaxpr.walk(inner, values, look)
        if equation.primitive in _CONTROL:
            found.append(equation)
        return [None] * len(equation.outputs)

    jaxpr.walk(closed, [None] * len(closed.in_avals), look)
    if any(equation.primitive == "shard_map" for equation in found):
        return None
    given = [aval for equation in found for aval in equation.outputs]

    def without_loops(operands, results):
        results, read = iter(results), []

        def cut(equation, operands, tape):
            read.extend(operands)
            return [next(results) for _ in equation.outputs]

        # What a loop reads is an output here, and what it gives an argument: nothing else changes.
        outputs, _ = jaxpr.evaluate(closed, operands, dict.fromkeys(_CONTROL, cut))
        return outputs, read

    arguments = [
        [jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type) for aval in avals]
        for avals in (closed.in_avals, given)
    ]
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            traced = jax.jit(without_loops).trace(*arguments)
            analysis = traced.lower(lowering_platforms=("tpu",)).cost_analysis()
    except (RuntimeError, NotImplementedError):  # no CPU backend; a primitive no TPU has
        return None
    return None if analysis is None else round(analysis.get("flops", 0))

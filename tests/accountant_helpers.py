"""What the accountant's tests share: loops written out, and XLA's own count."""

import jax
import jax.numpy as jnp
from jax import lax

from fastsnn_jax.jaxpr import evaluate, split, trace

TRANSCENDENTAL = ("exp", "log", "sqrt", "trig")


def written_out(function):
    """The function with every loop of known length written out, turn by turn."""
    def scan(equation, operands, tape):
        params, num_carry = equation.params, equation.params["num_carry"]
        consts, carry, inputs = split(operands, params["num_consts"], num_carry)
        rows, order = [], range(params["length"])
        for turn in reversed(order) if params["reverse"] else order:
            row = [lax.index_in_dim(leaf, turn, keepdims=False) for leaf in inputs]
            outputs, _ = evaluate(params["jaxpr"], [*consts, *carry, *row], {"scan": scan})
            carry, given = split(outputs, num_carry)
            rows.append(given)
        rows = rows[::-1] if params["reverse"] else rows
        return [*carry, *(jnp.stack(column) for column in zip(*rows, strict=True))]

    def run(*args):
        closed, tree = trace(function, *args)
        outputs, _ = evaluate(closed, jax.tree.leaves(args), {"scan": scan})
        return jax.tree.unflatten(tree, outputs)

    return run


def xla(function, *args):
    """Flops and transcendentals that XLA counts in a program, whose loops it counts once."""
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=("tpu",))
    analysis = lowered.cost_analysis() or {}
    return tuple(round(analysis.get(key, 0)) for key in ("flops", "transcendentals"))


def transcendentals(counts):
    """Transcendental operations of `OpCounts`."""
    return sum(counts.elementwise.get(name, 0) for name in TRANSCENDENTAL)

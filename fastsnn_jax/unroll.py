"""The time loop: walks a step over axis 0."""

import jax

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Params, PyTree, State, Step


def unroll(
    step: Step, params: Params, state: State, inputs: PyTree, *, remat: bool = False
) -> tuple[State, PyTree]:
    """Runs ``step`` over the time axis of ``inputs``.

        state[t], outputs[t] = step(params, state[t-1], inputs[t])

    The returned state can be handed back to go on: two halves equal the whole.

    Args:
      step: ``step(params, state, x) -> (state, y)``; keeps shapes and dtypes of the state.
      params: given to every step.
      state: pytree before the first step.
      inputs: pytree whose leaves all have T as axis 0.
      remat: recompute each step in the backward pass instead of storing what it computed.

    Returns:
      The state after T steps, and the outputs stacked to ``[T, ...]``.

    Raises:
      ValueError: if ``inputs`` has no leaves, a leaf has no time axis, lengths differ or T is 0.

    >>> import jax.numpy as jnp
    >>> total = lambda params, state, x: (state + x, state + x)
    >>> unroll(total, None, jnp.float32(0), jnp.array([1.0, 2.0, 3.0]))[1]
    Array([1., 3., 6.], dtype=float32)
    """
    time_steps("unroll", inputs)

    def body(state, x):
        return step(params, state, x)

    # Inside a scan the barriers against common-subexpression elimination only cost time.
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False) if remat else body, state, inputs)


def time_steps(where: str, inputs: PyTree) -> int:
    """T of a pytree whose leaves all have it as axis 0; raises as `unroll`, in ``where``'s name."""
    shapes = [jax.numpy.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    check(bool(shapes), where, "inputs must hold at least one array", inputs)
    for shape in shapes:
        check(
            len(shape) > 0, where, "every input needs T as its axis 0", f"shape {shape}",
            "stack or broadcast the input over time",
        )
    lengths = sorted({shape[0] for shape in shapes})
    check(len(lengths) == 1, where, "inputs must agree on T, their axis 0", f"lengths {lengths}")
    check(lengths[0] > 0, where, "inputs must have at least one time step", f"shapes {shapes}")
    return lengths[0]

"""Long T in windows: what a gradient stores of each, and of how many.

A network runs fastest over windows of time whose arrays fit the cache. Their gradient needs the
charged membranes and the event lists: what kernels mark with `keep`. From these all else follows
without another run of a time loop. Neurons that mark nothing run again: all but `lif` and
`current_lif` without delays.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fastsnn_jax._checks import check_count
from fastsnn_jax._typing import Array, Params, PyTree, State, Step
from fastsnn_jax.unroll import time_steps, unroll

AT_ONCE, WINDOW = 50, 25  # steps; docs/design.md says what else was tried
_STORED = 16  # windows
_KEPT = "fastsnn_jax.kept"


def keep(values: Array) -> Array:
    """Marks an array that `unroll_windows` stores of each of a few windows; the identity."""
    return checkpoint_name(values, _KEPT)


def sum_windows(
    run: Callable[..., tuple[State, PyTree]], params: Params, state: State, num_steps: int
) -> tuple[State, PyTree]:
    """Runs ``num_steps`` and adds up the outputs: at once if they are few, else in windows.

    Args:
      run: ``run(params, state, start, steps) -> (state, outputs)``, the ``steps`` from ``start``
        on; its outputs are sums over time, such as logits and spike counts, whose shapes and dtypes
        do not depend on ``steps``.
      params: given to every window.
      state: before the first step.
      num_steps: T, at least 1.

    Returns:
      The state after T steps and the sums of the outputs, in their dtypes. The gradient stores of
      each window but the last what `unroll_windows` does.

    Raises:
      ValueError, TypeError: if ``num_steps`` is below 1 or no int.

    >>> add = lambda params, state, start, steps: (state + steps, params * steps)
    >>> [float(x) for x in sum_windows(add, 0.5, jnp.float32(0), 120)]
    [120.0, 60.0]
    """
    check_count("sum_windows", "num_steps", num_steps)
    if num_steps <= AT_ONCE:
        return run(params, state, 0, num_steps)
    return add_windows(unroll_windows, run, params, state, num_steps)


def add_windows(
    walk: Callable[..., tuple[State, PyTree]], run: Callable[..., tuple[State, PyTree]],
    params: Params, state: State, num_steps: int,
) -> tuple[State, PyTree]:
    """`sum_windows` in windows, however few the steps; ``walk`` is `unroll_windows` or its twin."""
    shapes = jax.eval_shape(lambda first: run(params, first, 0, WINDOW)[1], state)
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def window(params, carry, start, steps=WINDOW):
        state, sums = carry
        state, outputs = run(params, state, start, steps)
        return (state, jax.tree.map(jnp.add, sums, outputs)), None

    # The last window, perhaps a shorter one, stays outside the loop: its gradient comes first, so
    # what it computed is at hand and need be neither stored for long nor run again.
    last = (num_steps - 1) % WINDOW + 1
    carry = (state, sums)
    if num_steps > last:
        carry, _ = walk(window, params, carry, jnp.arange(0, num_steps - last, WINDOW))
    return window(params, carry, num_steps - last, last)[0]


def unroll_windows(
    step: Step, params: Params, state: State, inputs: PyTree
) -> tuple[State, PyTree]:
    """`unroll` of a step that is a window of time, with little memory for a long gradient.

    Up to 16 windows store what is marked with `keep`, and the backward pass takes the rest from
    that. Of more only the states between them are stored, and each runs once more in the backward
    pass. So memory grows up to 16 windows, is less beyond, and then grows only by those states.
    Plain twin: ``unroll(step, params, state, inputs)``.

    Args:
      step: ``step(params, state, x) -> (state, y)`` over one window, as `unroll` takes it.
      params, state: as `unroll` takes them.
      inputs: pytree whose leaves have one entry for each window, such as its first step.

    Returns:
      The state after the last window, and the outputs of all windows stacked.

    Raises:
      ValueError: as `unroll`.

    Source: Chen, Xu, Zhang, Guestrin 2016, arXiv:1604.06174.
    """
    if time_steps("unroll_windows", inputs) > _STORED:
        return unroll(step, params, state, inputs, remat=True)
    marked = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return unroll(jax.checkpoint(step, prevent_cse=False, policy=marked), params, state, inputs)

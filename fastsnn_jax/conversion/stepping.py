"""A converted network in time: its state at rest, one step, and how long its trains are."""

from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax._typing import Array, PyTree
from fastsnn_jax.conversion.program import Program, count_rules
from fastsnn_jax.conversion.temporal import Moving, Stepper


def rest(network: Any, x: PyTree, input_steps: int) -> dict[str, Any]:
    """The state before the first step, see ``Converted.rest``."""
    state = {"time": jnp.int32(0), "ready": jnp.int32(input_steps - 1)}

    def after(variables: PyTree, x: PyTree) -> dict[str, Array]:
        return _advance(network, variables, state, x)[2]

    shapes = jax.eval_shape(after, network.variables, x)
    numbers = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return state | {"numbers": numbers}


def step(
    network: Any, variables: PyTree, state: dict[str, Any], x: PyTree
) -> tuple[dict[str, Any], PyTree]:
    """One step, see ``Converted.step``."""
    y, _, numbers = _advance(network, variables, state, x)
    return {"time": state["time"] + 1, "ready": state["ready"], "numbers": numbers}, y


def duration(network: Any, x: PyTree, input_steps: int) -> int:
    """Steps until the last share of the output has come, see ``Converted.duration``."""
    state = {"time": jnp.int32(0), "ready": jnp.int32(input_steps - 1)}

    def last(variables: PyTree, x: PyTree) -> Array:
        return jnp.stack([jnp.int32(0), *_advance(network, variables, state, x)[1]])

    x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)
    return int(jnp.max(jax.jit(last)(network.variables, x))) + 1


def _advance(
    network: Any, variables: PyTree, state: dict[str, Any], x: PyTree
) -> tuple[PyTree, list[Any], dict[str, Any]]:
    """Shares of the output in one step, the steps that complete them, and the numbers kept."""
    program: Program = network.program(variables["model"], x)
    feeds = program.by_path(variables["sites"])
    stepper = Stepper(
        network.temporal, network.method, network.coding,
        {site.path: site for site in program.converted}, count_rules(program, network.method),
        feeds, state.get("numbers"), state["time"],
    )
    arguments = [
        *jax.tree.leaves(variables["model"]),
        *(Moving(f"x{place}", state["ready"], share=jnp.asarray(leaf))
          for place, leaf in enumerate(jax.tree.leaves(x))),
    ]
    results = stepper.walk(program.closed, arguments, (), "")
    shares = [
        stepper.share(result) if isinstance(result, Moving) else stepper.once(result)
        for result in results
    ]
    ready = [jnp.asarray(result.ready) for result in results if isinstance(result, Moving)]
    return jax.tree.unflatten(program.tree, shares), ready, stepper.after

"""Axis letters and array aliases: the map of the library.

T spike time step (axis 0 wherever it exists) · B batch · L token position · H head · D feature ·
N any neuron shape · K class · V vocabulary. T and L are never mixed: attention mixes L, neurons
integrate T. ``rate`` is spikes per neuron per step, in [0, 1]; ``count`` is spikes over all T.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, PyTree, Shaped

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
"""A typed PRNG key, ``jax.random.key(seed)``."""
Params: TypeAlias = Any
"""Pytree of learnable leaves."""
State: TypeAlias = Any
"""Pytree carried from one time step to the next."""
Step: TypeAlias = Callable[[Params, State, Any], tuple[State, Any]]
"""``step(params, state, x) -> (state, y)``: anything with time."""

__all__ = [
    "Array", "ArrayLike", "Bool", "Float", "Int", "Key", "Params", "PyTree", "Shaped", "State",
    "Step",
]

"""Feature maps: what linear attention makes of queries and keys, never below 0."""

from collections.abc import Callable

import jax

from fastsnn_jax._checks import check_choice
from fastsnn_jax._typing import Array

FEATURE_MAPS = ("softplus", "relu", "elu1", "exp")


def feature_map(name: str) -> Callable[[Array], Array]:
    """The elementwise feature map of that name.

        softplus: log(1 + exp(x));   relu: max(x, 0);   elu1: elu(x) + 1

    "exp", the fourth that ``linear_attention`` takes, is not elementwise there: it needs the
    running maximum of the keys.

    Raises:
      ValueError: if the name is unknown.

    >>> feature_map("relu")(jax.numpy.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    maps = {"softplus": jax.nn.softplus, "relu": jax.nn.relu, "elu1": _elu1}
    check_choice("feature_map", "name", name, tuple(maps))
    return maps[name]


def _elu1(x):
    return jax.nn.elu(x) + 1

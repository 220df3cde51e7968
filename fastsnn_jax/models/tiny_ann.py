"""The smallest conventional network worth converting."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from fastsnn_jax._typing import Array, Float
from fastsnn_jax.models._layers import dense_synapse

_LAYERS = ("dense0", "dense1", "dense2")


class TinyANN(nn.Module):
    """Two hidden layers, one signed activation and one unsigned; ``apply`` returns y alone.

        y = Dense(relu(Dense(gelu(Dense(x)))))

    The network of FastSNN's conversion demo: the same layers, written as one function of ``x``
    ``[..., N]``, over any leading axes.

    Attributes:
      hidden: width of both hidden layers.
      out_dim: width of the output.

    >>> import jax, jax.numpy as jnp
    >>> ann, x = TinyANN(hidden=8, out_dim=3), jnp.ones((2, 5, 4))
    >>> ann.apply(ann.init(jax.random.key(0), x), x).shape
    (2, 5, 3)
    """

    hidden: int = 256
    out_dim: int = 10

    @nn.compact
    def __call__(self, x: Float[Array, "... N"]) -> Float[Array, "... M"]:
        x = nn.gelu(nn.Dense(self.hidden, name=_LAYERS[0])(x))
        x = nn.relu(nn.Dense(self.hidden, name=_LAYERS[1])(x))
        return nn.Dense(self.out_dim, name=_LAYERS[2])(x)

    def synapses(self, variables: Any, input_shape: tuple[int, ...]) -> dict[str, Callable]:
        """Linear map ``[N] -> [M]`` of every synapse, from input to output, by its kernel."""
        del input_shape  # a dense synapse has one shape only
        params = variables["params"]
        return {f"{name}/kernel": dense_synapse(params[name]["kernel"]) for name in _LAYERS}

"""Conventional networks for images, made to be converted: ``apply(variables, x) -> logits``."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from fastsnn_jax._typing import Array, Float
from fastsnn_jax.kernels.convolution import same_convolution
from fastsnn_jax.models._layers import dense_synapse

KERNEL, POOL = (3, 3), (2, 2)


class AnnMLP(nn.Module):
    """Multilayer perceptron with ReLU; the twin of `MLP` that computes in values.

        x [B, *N] -> dense0 -> relu -> ... -> dense -> logits [B, K]

    Attributes:
      features: neurons of each hidden layer.
      num_classes: K.

    >>> import jax.numpy as jnp
    >>> model, x = AnnMLP((6,), 3), jnp.ones((2, 4, 4, 1))
    >>> variables = model.init(jax.random.key(0), x)
    >>> model.apply(variables, x).shape, sorted(variables["params"])
    ((2, 3), ['dense', 'dense0'])
    """

    features: tuple[int, ...] = (1280,)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: Float[Array, "B *N"], train: bool = False) -> Float[Array, "B K"]:
        del train  # nothing here behaves differently
        x = x.reshape(len(x), -1)
        for name, width in zip(self.layer_names[:-1], self.features, strict=True):
            with jax.named_scope(name):
                x = nn.relu(nn.Dense(width, name=name)(x))
        return nn.Dense(self.num_classes, name="dense")(x)

    def synapses(self, variables: Any, input_shape: tuple[int, ...]) -> dict[str, Callable]:
        """Linear map ``[*N] -> [*M]`` of every synapse, from input to output, by its kernel."""
        del input_shape  # a dense synapse has one shape only
        params = variables["params"]
        return {
            f"{name}/kernel": dense_synapse(params[name]["kernel"]) for name in self.layer_names
        }

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return (*(f"dense{i}" for i in range(len(self.features))), "dense")


class AnnCNN(nn.Module):
    """3x3 convolutions with BatchNorm, ReLU and average pooling, and a dense readout.

        x [B, H, W, C] -> conv0 -> norm0 -> relu -> pool -> conv1 -> ... -> dense -> logits [B, K]

    Pooling by the mean is linear, so that spikes pass through it as they are. With ``train`` the
    normalisation is by the batch itself; collection "batch_stats" then becomes the statistics of
    that batch alone, without a running average.

    Attributes:
      channels: of each convolution.
      num_classes: K.

    >>> import jax.numpy as jnp
    >>> model, x = AnnCNN((2, 3), 5), jnp.ones((2, 8, 8, 1))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (2, 5)
    """

    channels: tuple[int, ...] = (32, 32, 64)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B K"]:
        for i, width in enumerate(self.channels):
            with jax.named_scope(f"conv{i}"):
                x = _Convolution(width, name=f"conv{i}")(x)
                x = nn.BatchNorm(
                    use_running_average=not train, momentum=0.0, name=f"norm{i}"
                )(x)
                x = nn.avg_pool(nn.relu(x), POOL, POOL)
        return nn.Dense(self.num_classes, name="dense")(x.reshape(len(x), -1))

    def synapses(self, variables: Any, input_shape: tuple[int, ...]) -> dict[str, Callable]:
        """Linear map ``[*N] -> [*M]`` of every synapse, from input to output, by its kernel.

        A synapse begins at the spikes, before the pooling. It sums where the network takes the
        mean: the factor is the kernel's, and what is left are connections.
        """
        del input_shape  # convolutions take any
        params = variables["params"]
        maps = {"conv0/kernel": _convolved(params["conv0"]["kernel"])}
        for i in range(1, len(self.channels)):
            maps[f"conv{i}/kernel"] = _after_pool(_convolved(params[f"conv{i}"]["kernel"]))
        return {**maps, "dense/kernel": _after_pool(dense_synapse(params["dense"]["kernel"]))}

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return (*(f"conv{i}" for i in range(len(self.channels))), "dense")


class _Convolution(nn.Module):
    """3x3, without a bias, which the normalisation behind it has."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W M"]:
        shape = (*KERNEL, x.shape[-1], self.features)
        return same_convolution(x, self.param("kernel", nn.initializers.he_normal(), shape))


def _convolved(kernel: Float[Array, "h w C M"]) -> Callable[[Array], Array]:
    return lambda x: same_convolution(x[None], kernel)[0]


def _after_pool(synapse: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: synapse(nn.avg_pool(x[None], POOL, POOL)[0] * (POOL[0] * POOL[1]))

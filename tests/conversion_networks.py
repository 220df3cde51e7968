"""The networks that conversion is tested on: one MLP in every framework, and larger shapes."""

from functools import cache
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax


class Network(NamedTuple):
    apply: Any
    variables: Any
    x: Any


def dyadic(*shape, scale=8):
    """Multiples of 1/scale between -1 and 1, the same for every shape."""
    random = np.random.default_rng(shape)
    return (random.integers(-scale, scale + 1, shape) / scale).astype(np.float32)


X = dyadic(3, 5)
HIDDEN, BIAS, OUT = dyadic(5, 7), dyadic(7), dyadic(7, 2)
INNER = dyadic(7, 7)


# The same MLP: Dense relu Dense gelu Dense


def plain_mlp():
    def apply(variables, x):
        x = jax.nn.relu(x @ variables["hidden"] + variables["bias"])
        x = jax.nn.gelu(x @ variables["inner"])
        return x @ variables["out"]

    return Network(apply, {"hidden": HIDDEN, "bias": BIAS, "inner": INNER, "out": OUT}, X)


def handwritten_mlp():
    def apply(variables, x):
        hidden, bias, inner, out = variables
        x = x @ hidden + bias
        x = jnp.where(x > 0, x, 0) @ inner
        x = 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)))
        return x @ out

    return Network(apply, (HIDDEN, BIAS, INNER, OUT), X)


def linen_mlp():
    class MLP(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Dense(7)(x))
            x = linen.gelu(linen.Dense(7, use_bias=False)(x))
            return linen.Dense(2, use_bias=False)(x)

    params = {"Dense_0": {"kernel": HIDDEN, "bias": BIAS}, "Dense_1": {"kernel": INNER},
              "Dense_2": {"kernel": OUT}}
    return Network(MLP().apply, {"params": params}, X)


def nnx_mlp():
    class MLP(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(5, 7, rngs=rngs)
            self.inner = nnx.Linear(7, 7, use_bias=False, rngs=rngs)
            self.out = nnx.Linear(7, 2, use_bias=False, rngs=rngs)
            self.hidden.kernel[...], self.hidden.bias[...] = HIDDEN, BIAS
            self.inner.kernel[...], self.out.kernel[...] = INNER, OUT

        def __call__(self, x):
            return self.out(nnx.gelu(self.inner(nnx.relu(self.hidden(x)))))

    graph, state = nnx.split(MLP(nnx.Rngs(0)))
    return Network(lambda state, x: nnx.merge(graph, state)(x), state, X)


def equinox_mlp():
    equinox = pytest.importorskip("equinox")

    class MLP(equinox.Module):
        layers: list

        def __call__(self, x):
            hidden, inner, out = self.layers
            return out(jax.nn.gelu(inner(jax.nn.relu(hidden(x)))))

    keys = iter(jax.random.split(jax.random.key(0), 3))
    layers = [equinox.nn.Linear(*shape, use_bias=shape[0] == 5, key=next(keys))
              for shape in ((5, 7), (7, 7), (7, 2))]
    model = equinox.tree_at(
        lambda model: (model.layers[0].weight, model.layers[0].bias, model.layers[1].weight,
                       model.layers[2].weight),
        MLP(layers), (HIDDEN.T, BIAS, INNER.T, OUT.T),
    )
    variables, static = equinox.partition(model, equinox.is_array)
    return Network(lambda v, x: jax.vmap(equinox.combine(v, static))(x), variables, X)


FRAMEWORKS = {
    "plain": plain_mlp, "handwritten": handwritten_mlp, "linen": linen_mlp, "nnx": nnx_mlp,
    "equinox": equinox_mlp,
}


# Other shapes


class CNN(linen.Module):
    """Convolution, BatchNorm, relu, max pooling; convolution, relu, mean pooling; Dense."""

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(3, (3, 3))(x)))
        x = linen.max_pool(x, (2, 2), (2, 2))
        x = linen.avg_pool(linen.relu(linen.Conv(4, (2, 2))(x)), (2, 2), (1, 1))
        return linen.Dense(5)(x.reshape(x.shape[0], -1))


class ResNetBlock(linen.Module):
    """Two convolutions around which the input goes, and a relu after the sum."""

    @linen.compact
    def __call__(self, x):
        y = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(2, (3, 3))(x)))
        y = linen.BatchNorm(use_running_average=True)(linen.Conv(2, (3, 3))(y))
        return linen.Dense(3)(linen.relu(x + y).mean((1, 2)))


class Transformer(linen.Module):
    """A block with softmax attention, and a gelu MLP, each after a norm."""

    @linen.compact
    def __call__(self, tokens):
        x = linen.Embed(11, 8)(tokens)
        y = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=2)(y, y)
        y = linen.gelu(linen.Dense(12)(linen.RMSNorm()(x)), approximate=False)
        return linen.Dense(11)(x + linen.Dense(8)(y))


def of_module(module, x):
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(dyadic(*leaf.shape)) if leaf.ndim > 1 else jnp.abs(leaf) + 0.25,
        jax.jit(module.init)(jax.random.key(0), x),
    )
    return Network(module.apply, variables, x)


def cnn():
    return of_module(CNN(), dyadic(2, 6, 6, 1))


def channels_first():
    """The first layers of the CNN, on NCHW images."""
    def apply(variables, x):
        x = lax.conv_general_dilated(x, variables["kernel"], (1, 1), "SAME")
        x = jax.nn.relu(x + variables["bias"][:, None, None])
        x = lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return x.reshape(len(x), -1) @ variables["out"]

    variables = {"kernel": dyadic(3, 2, 3, 3), "bias": dyadic(3), "out": dyadic(18, 5)}
    return Network(apply, variables, dyadic(2, 2, 6, 5))


def channels_last():
    """The same on NHWC images."""
    def apply(variables, x):
        x = lax.conv_general_dilated(x, variables["kernel"], (1, 1), "SAME",
                                     dimension_numbers=("NHWC", "OIHW", "NHWC"))
        x = jax.nn.relu(x + variables["bias"])
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return jnp.moveaxis(x, -1, 1).reshape(len(x), -1) @ variables["out"]

    first = channels_first()
    return Network(apply, first.variables, np.moveaxis(first.x, 1, -1))


def resnet_block():
    return of_module(ResNetBlock(), dyadic(2, 5, 4, 2))


def transformer():
    return of_module(Transformer(), np.arange(10, dtype=np.int32).reshape(2, 5)[:, ::-1])


def stack():
    """Three layers as one scan."""
    def apply(variables, x):
        def layer(x, kernel):
            return x + jax.nn.silu(x @ kernel), None

        return lax.scan(layer, x, variables["stack"])[0] @ variables["out"]

    return Network(apply, {"stack": dyadic(3, 7, 7), "out": OUT}, dyadic(4, 7))


def recurrent():
    """A cell scanned over the tokens, in each of two layers that are a scan too."""
    def apply(variables, x):
        def layer(x, kernels):
            def cell(state, row):
                state = jnp.tanh(state @ kernels[0] + row @ kernels[1])
                return state, state - row

            rows = jnp.swapaxes(x, 0, 1)
            return jnp.swapaxes(lax.scan(cell, jnp.zeros_like(rows[0]), rows)[1], 0, 1), None

        return lax.scan(layer, x, variables["layers"])[0].sum(1) @ variables["out"]

    return Network(apply, {"layers": dyadic(2, 2, 7, 7) / 2, "out": OUT}, dyadic(3, 5, 7))


def vmapped():
    """A function of one sample, with the samples as the last axis of the batch."""
    def apply(variables, x):
        return jax.vmap(lambda x: jax.nn.softplus(x @ variables[0]) @ variables[1])(x)

    return Network(apply, (HIDDEN, OUT), X)


def with_cond():
    """A branch chosen by data."""
    def apply(variables, x):
        x = x @ variables["hidden"]
        x = lax.cond(x.sum() > 0, jax.nn.relu, lambda x: jnp.tanh(2 * x), x)
        return x @ variables["out"]

    return Network(apply, {"hidden": HIDDEN, "out": OUT}, X)


NETWORKS = {name: cache(make) for name, make in {
    "plain": plain_mlp, "cnn": cnn, "resnet block": resnet_block, "transformer": transformer,
    "stack": stack, "recurrent": recurrent, "vmapped": vmapped, "cond": with_cond,
}.items()}

HEAVY = ("cnn", "resnet block", "transformer", "recurrent")  # seconds of compilation each
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name
         for name in NETWORKS]

"""Programs compiled from whole models hold no counts that nobody reads."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.neurons import lif
from fastsnn_jax.nn import SpikingConv, SpikingDense
from fastsnn_jax.spikes import SpikeTensor

T, B, N, HIDDEN, CLASSES = 7, 3, 11, 6, 4
MAP = (7, 6, 2)


def train_of(shape):
    """Random spikes [T, B, *shape]."""
    return jnp.asarray(np.random.default_rng(0).random((T, B, *shape)) < 0.4, jnp.float32)


class Uncounted(nn.Module):
    """The layers of a model by hand, without a count anywhere."""

    @nn.compact
    def __call__(self, x):
        if len(x.shape) == 5:
            x = SpikingConv(3, lif(), strides=(2, 2), name="conv0")(x)[1]
            x = x.reshape(*x.shape[:2], -1)
            x = SpikingDense(CLASSES, lif(), name="dense")(x)[1]
        else:
            x = SpikingDense(HIDDEN, lif(), name="dense0")(x)[1]
            x = SpikingDense(CLASSES, lif(), name="dense1")(x)[1]
        return 1.0 * jnp.sum(x, axis=0, dtype=jnp.float32)


def program(function, *arguments):
    """Optimised HLO, its instructions numbered in order and without the places in our source."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    text = re.sub(r"HloModule \S+|, metadata=\{[^{}]*\}", "", text)
    text = re.sub(r"^(FileNames|FunctionNames|FileLocations|StackFrames)\n(\d+ .*\n)*", "", text,
                  flags=re.MULTILINE)
    numbers: dict[str, str] = {}
    return re.sub(r"%[\w.\-]+", lambda name: numbers.setdefault(name[0], f"%{len(numbers)}"), text)


@pytest.mark.parametrize("form", ["dense", "event", "maps"])
@pytest.mark.parametrize("differentiate", [False, True])
def test_a_program_that_drops_activity_is_that_of_a_model_that_counts_nothing(form, differentiate):
    model = CNN((3,), CLASSES) if form == "maps" else MLP((HIDDEN, CLASSES))
    x = train_of(MAP if form == "maps" else (N,))
    x = SpikeTensor.from_dense(x).to_event(N) if form == "event" else x
    variables = jax.jit(model.init)(jax.random.key(0), x)
    counting, dropping, twin = (
        lambda variables, x: model.apply(variables, x),
        lambda variables, x: model.apply(variables, x)[0],
        lambda variables, x: Uncounted().apply(variables, x),
    )
    if differentiate:
        dropping, twin = (
            jax.grad(lambda v, x, f=f: (f(v, x) ** 2).sum()) for f in (dropping, twin)
        )
    expected = program(twin, variables, x)
    assert "ENTRY" in expected
    assert program(dropping, variables, x) == expected
    assert program(counting, variables, x) != expected

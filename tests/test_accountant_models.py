"""The accountant against XLA's own count: primitives one by one, models and whole train steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accountant_helpers import transcendentals, written_out, xla
from flax import nnx
from jax import lax
from lm_helpers import ATTENTIONS, model_of, random_parameters, tokens_of

from fastsnn_jax.energy.accountant import COMPLETE, count
from fastsnn_jax.recipes.lm import network as lm_network
from fastsnn_jax.recipes.lm import preset as lm_preset
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan
from fastsnn_jax.train import init_state, make_train_step, next_token_loss

X = np.linspace(0.1, 0.9, 28, dtype=np.float32).reshape(4, 7)
INDICES = np.arange(28, dtype=np.int32).reshape(4, 7)
KEY = jax.random.key(0)
OLD = pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="its lowering folds less")

# Every family of rules at once where they do not disturb each other: few programs to lower.
PRIMITIVES = {
    "binary": lambda x: [f(x, x[::-1]) for f in (
        lax.add, lax.sub, lax.mul, lax.div, lax.max, lax.min, lax.rem, lax.pow, lax.atan2,
        lax.nextafter, lax.eq, lax.lt, lax.ge)],
    "unary": lambda x: [f(x) for f in (
        lax.neg, lax.sign, lax.floor, lax.ceil, lax.round, lax.abs, lax.exp, lax.exp2, lax.expm1,
        lax.log, lax.log1p, lax.tanh, lax.sin, lax.cos, lax.tan, lax.sqrt, lax.rsqrt, lax.cbrt,
        lax.logistic, lax.is_finite, lax.square, lax.erf, lax.erfc, lax.erf_inv, lax.lgamma,
        lax.digamma, lax.asin, lax.acos, lax.atan, lax.sinh, lax.cosh, lax.asinh, lax.acosh,
        lax.atanh)],
    "powers": lambda x: [lax.integer_pow(x, n) for n in (1, 2, 3, 7, 8, -1, -3)],
    "conversions": lambda x: [x.astype(d) for d in (bool, jnp.int8, jnp.bfloat16, jnp.float32)],
    "reductions": lambda x: [x.sum(), x.max(1), x.prod(0), (x > 0.5).any(1), x.argmax(1),
                             (10 * x).astype(int).argmin(0), lax.cumsum(x, 1), lax.cummax(x, 0),
                             lax.cumlogsumexp(x, 1), x.var(1)],
    "orders": lambda x: [jnp.sort(x), jnp.argsort(x), lax.top_k(x, 3)],
    "windows": lambda x: [lax.reduce_window(x, 0.0, lax.add, (1, 3), (1, 2), "SAME"),
                          lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID")],
    "pooling's gradient": jax.grad(lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3), (1, 2), "VALID").sum()),
    "activations": lambda x: [jax.nn.softmax(x), jax.nn.gelu(x), jax.nn.silu(x), jax.nn.relu(x),
                              jax.nn.softplus(x), jax.nn.logsumexp(x, 1)],
    "choices": lambda x: [jnp.where(x > 0.5, x, 0), jnp.clip(x, 0.2, 0.5),
                          lax.select_n((10 * x).astype(int) % 3, x, 2 * x, -x)],
    "folded": lambda x: [x + 0.0, 1.0 * x, x - jnp.zeros_like(x), x / 1.0, 0.0 * x,
                         x + jnp.square(jnp.zeros_like(x))],
    "moves": lambda x: [x.T, jnp.concatenate([x, x]), jnp.pad(x, ((1, 0), (0, 2))), x[::-1],
                        lax.dynamic_slice(x, (1, 2), (2, 2)), jnp.stack([x, x])],
}
INTEGERS = {
    "bits": lambda i: [i & 3, i | 5, i ^ 7, ~i, i << 2, i >> 1, lax.population_count(i),
                       lax.clz(i), lax.shift_right_logical(i, i)],
    "gathers": lambda i: [i[i[0] % 4], jnp.take(i, i[0] % 4, axis=0, mode="fill"),
                          jnp.take(i, i[0] % 4, axis=0, mode="clip"), i[i[0] % 4, i[1] % 7]],
    "scatters": lambda i: [i.at[i[0] % 4].add(1), i.at[i[0] % 4].max(3, mode="clip"),
                           i.at[i[0] % 4].set(0), i.at[2].set(9)],
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=OLD) if name in ("activations", "folded") else name
    for name in (*PRIMITIVES, *INTEGERS)
])
def test_primitives_cost_what_xla_says(name):
    function, argument = (
        (PRIMITIVES[name], X) if name in PRIMITIVES else (INTEGERS[name], INDICES)
    )
    _, counts = count(function)(argument)
    assert not counts.unknown
    assert (counts.flops, transcendentals(counts)) == xla(function, argument)


@pytest.mark.parametrize("shape", [(), (1,), (40,), (5, 8)])
def test_random_numbers_cost_what_xla_says(shape):
    def function(key):
        one, other = jax.random.split(jax.random.fold_in(key, 3))
        return (jax.random.bits(one, shape), jax.random.uniform(other, shape),
                jax.random.normal(other, shape), jax.random.bernoulli(one, 0.3, shape))

    _, counts = count(function)(KEY)
    flops, curved = xla(function, KEY)
    assert not counts.unknown and transcendentals(counts) == curved
    # Beside the numbers XLA counts a few operations on the key's words, one key for all.
    assert flops - 25 <= counts.flops <= flops


# Models


def mnist_step(synapse):
    config = preset(model="mlp", num_steps=4, batch_size=16, max_rate_hz=300.0)
    model = network.build_model(config)
    params = network.init_params(config, model, (6, 5, 1), jax.random.key(0))
    random = np.random.default_rng(0)
    images = (255 * random.random((16, 6, 5, 1)) ** 2).astype(np.uint8)
    tx = network.build_optimiser(config, 6).tx
    step = make_train_step(network.make_loss(model, config, InputPlan(synapse, 8, 0.1)), tx)
    state = init_state(params, tx, jax.random.key(1))
    return step, state, (images, random.integers(0, 10, 16).astype(np.int32))


def language_model(kind, which):
    config = dataclasses.replace(ATTENTIONS[kind], n_layers=1)
    model, tokens = model_of(config), tokens_of(config, (2, 8))
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
    variables = random_parameters(shapes)
    if which == "forward":
        return model.apply, variables, tokens
    if which == "decode":
        return model.decode_step, variables, model.init_cache(2, 8), tokens[:, 0]
    tx = lm_network.build_optimiser(lm_preset("nanogpt-cpu", vocab_size=29))
    step = make_train_step(next_token_loss(model), tx)
    return step, init_state(variables, tx, jax.random.key(1)), tokens


def nnx_model():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Linear(6, 9, rngs=rngs), nnx.Linear(9, 3, rngs=rngs)

        def __call__(self, x):
            return self.two(jax.nn.gelu(self.one(x)))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    return lambda state, x: nnx.merge(graph, state)(x), state, X[:, :6]


def plain_function():
    def function(w, x):
        return jax.nn.softmax(jnp.tanh(x @ w) @ w.T), jnp.linalg.norm(w)

    return function, np.ones((7, 5), np.float32), X


MODELS = {
    "mnist step": lambda: mnist_step("dense"),
    "language model": lambda: language_model("interleaved", "forward"),
    "decode step": lambda: language_model("interleaved", "decode"),
    "nnx model": nnx_model,
    "plain function": plain_function,
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name == "mnist step" else name for name in MODELS
])
def test_models_cost_within_one_percent_of_what_xla_says(name):
    function, *args = MODELS[name]()
    output, counts = count(function)(*args)
    flops, curved = xla(written_out(function), *args)
    assert not counts.unknown and counts.complete and counts.coverage >= COMPLETE
    assert abs(counts.flops - flops) <= 0.01 * flops
    assert abs(transcendentals(counts) - curved) <= 0.01 * curved
    expected = jax.jit(function)(*args)
    for ours, theirs in zip(*map(jax.tree.leaves, (output, expected)), strict=True):
        np.testing.assert_allclose(np.asarray(ours, np.float64), np.asarray(theirs, np.float64),
                                   rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "which"), [
    ("interleaved", "train"), ("linear_decay", "forward"), ("hybrid_alt", "forward"),
])
def test_written_out_language_models_cost_what_xla_says(kind, which):
    # A loop also does what nobody reads of its first and last turn: written out, that is dead code.
    function, *args = language_model(kind, which)
    flops, curved = xla(written_out(function), *args)
    _, flat = count(written_out(function))(*args)
    assert not flat.unknown and abs(flat.flops - flops) <= 0.01 * flops
    assert abs(transcendentals(flat) - curved) <= 0.01 * curved
    _, looped = count(function)(*args)
    assert looped.complete and abs(looped.coverage - 1) <= 0.01 and looped.flops >= flat.flops


@pytest.mark.slow
def test_the_synapses_of_a_network_are_its_weight_products():
    step, state, batch = mnist_step("dense")
    (_, (_, metrics)), counts = count(step)(state, batch)
    forward = [p for p in counts.products if p.kind == "weight" and p.spike_driven_macs]
    spikes = metrics["spikes"]
    assert [p.spike_driven_macs for p in forward] == [
        400 * int(spikes["input"]), 10 * int(spikes["hidden"])]
    assert [p.macs for p in forward] == [4 * 16 * 30 * 400, 4 * 16 * 400 * 10]

"""What scales a product's channels is run as its weight: the same function, the same gradients."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversion_networks import dyadic
from flax import nnx
from helpers import assert_trees_close
from jax import lax

import fastsnn_jax as fs
from fastsnn_jax import jaxpr
from fastsnn_jax.conversion import convert
from fastsnn_jax.conversion.folding import fold
from fastsnn_jax.conversion.program import Program
from fastsnn_jax.energy.origins import DATA, PARAMETER, held, origin
from fastsnn_jax.models.ann import AnnCNN

NORM = {"mean": dyadic(3), "var": np.abs(dyadic(3)) + 0.25, "scale": dyadic(3) + 1.5,
        "bias": dyadic(3) / 2, "kernel_bias": dyadic(1, 3)[0]}
DENSE = {"w": dyadic(5, 3), **NORM}


def normalised(y, v, shape=(3,)):
    """BatchNorm in inference, after a bias, its statistics in the given shape."""
    kernel_bias, mean, var, scale, bias = (
        jnp.reshape(v[name], shape) for name in ("kernel_bias", "mean", "var", "scale", "bias")
    )
    return (y + kernel_bias - mean) * (lax.rsqrt(var + 1e-3) * scale) + bias


def folded_twin(function, variables, x):
    """A function and what folding makes of it, as ``run(variables, x) -> outputs``; and counts."""
    closed, _ = jaxpr.trace(function, variables, x)
    origins = [PARAMETER] * len(jax.tree.leaves(variables)) + [DATA]
    changed, number = fold(closed, jax.tree.leaves((variables, x)), origins)

    def run(variables, x):
        return jaxpr.evaluate(changed, jax.tree.leaves((variables, x)), {})[0]

    return run, number, worked(changed, origins)


def worked(closed, origins):
    """The primitives that data go through, calls and loops opened."""
    found = []

    def visit(equation, moves):
        inner = jaxpr.called(equation)
        if equation.primitive == "scan":
            inner = equation.params["jaxpr"]
        if inner is not None:
            return jaxpr.walk(inner, moves, visit, constant=lambda value: held(value).origin)
        where = origin(equation, moves)
        if where == DATA:
            found.append(equation.primitive)
        return [where] * len(equation.outputs)

    jaxpr.walk(closed, origins, visit, constant=lambda value: held(value).origin)
    return found


def assert_same(function, variables, x, run):
    """Outputs and gradients with respect to everything, within rounding."""
    def both(each):
        return lambda v, x: jnp.sum(jnp.tanh(jax.tree.leaves(each(v, x))[0] / 8))

    assert_trees_close(jax.jit(run)(variables, x), [jax.jit(function)(variables, x)])
    ours, theirs = (jax.jit(jax.grad(both(each), (0, 1)))(variables, x)
                    for each in (run, function))
    assert_trees_close(ours, theirs, 1e-4)


def dense(v, x):
    return normalised(x @ v["w"], v)


def weight_first(v, x):
    return jax.vmap(lambda row: normalised(v["w"].T @ row, v))(x)


def channels_last(v, x):
    y = lax.conv_general_dilated(x, v["w"], (1, 1), "SAME",
                                 dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return normalised(y, v)


def channels_first(v, x):
    return normalised(lax.conv_general_dilated(x, v["w"], (2, 1), "SAME"), v, (1, 3, 1, 1))


def sample_by_sample(v, x):
    """An image at a time, channels first without an axis of samples, as Equinox has them."""
    return jax.vmap(lambda image: normalised(
        jnp.squeeze(lax.conv_general_dilated(image[None], v["w"], (1, 1), "SAME"), 0), v, (3, 1, 1)
    ))(x)


def grouped(v, x):
    y = lax.conv_general_dilated(x, v["w"], (1, 1), "SAME", feature_group_count=3)
    return normalised(y, v, (3, 1, 1))


def in_parts(v, x):
    """The norm in a function of its own, on a view of the product, broadcast by hand."""
    def norm(y):
        return jnp.swapaxes(y, 1, 2) / jnp.broadcast_to(v["scale"], (2, 4, 3)) - v["bias"]

    return jax.jit(norm)(jnp.einsum("blj,jc->bcl", x, v["w"]))


def heads(v, x):
    """A scale that differs along both axes the weight made, and a difference the other way."""
    return v["bias"] - jnp.einsum("bj,jhc->bhc", x, v["w"]) / v["scale"] * -v["table"]


def pooled(v, x):
    """The mean of a pool before the product, and nothing else."""
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2), (1, 2), "VALID") / 2
    return x @ v["w"] + v["bias"]


def layers(v, x):
    """A norm inside the body of a scan over layers."""
    def layer(x, v):
        return jax.nn.relu(normalised(x @ v["w"], v)), None

    return lax.scan(layer, x, v)[0]


STACK = {name: np.stack([value, value + 0.125]) for name, value in NORM.items()}
CASES = {
    "dense": (dense, DENSE, dyadic(2, 5)),
    "weight first": (weight_first, DENSE, dyadic(2, 5)),
    "channels last": (channels_last, {"w": dyadic(2, 2, 4, 3), **NORM}, dyadic(2, 5, 3, 4)),
    "channels first": (channels_first, {"w": dyadic(3, 4, 2, 2), **NORM}, dyadic(2, 4, 5, 3)),
    "sample by sample": (sample_by_sample, {"w": dyadic(3, 4, 2, 2), **NORM}, dyadic(2, 4, 5, 3)),
    "grouped": (grouped, {"w": dyadic(3, 2, 2, 2), **NORM}, dyadic(2, 6, 4, 5)),
    "in parts": (in_parts, {"w": dyadic(5, 3), **NORM}, dyadic(2, 4, 5)),
    "heads": (heads, {"w": dyadic(5, 4, 3), "table": dyadic(4, 3), **NORM}, dyadic(2, 5)),
    "pooled": (pooled, DENSE, dyadic(2, 10)),
    "layers": (layers, {"w": dyadic(2, 3, 3), **STACK}, dyadic(4, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_norm_becomes_one_product_and_one_bias_with_the_same_gradients(case):
    function, variables, x = CASES[case]
    run, number, primitives = folded_twin(function, variables, x)
    assert number == 1
    assert set(primitives) & {"mul", "div", "sub", "neg"} == set()
    assert primitives.count("add") == 1
    assert_same(function, variables, x, run)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_affine_chain_is_one_product_and_one_bias(seed):
    random = np.random.default_rng(seed)
    links = {
        "add": lambda y, a: y + a, "sub": lambda y, a: y - a, "from": lambda y, a: a - y,
        "mul": lambda y, a: a * y, "div": lambda y, a: y / a, "neg": lambda y, a: -y,
        "number": lambda y, a: y * 0.75,
    }
    names = ["mul", *random.choice([*links], 5), "sub"]
    variables = {"w": dyadic(5, 3), "a": list(random.uniform(0.5, 2, (7, 3)).astype("f"))}

    def chain(v, x):
        y = x @ v["w"]
        for name, a in zip(names, v["a"], strict=True):
            y = links[name](y, a)
        return y

    run, number, primitives = folded_twin(chain, variables, dyadic(2, 5))
    assert number == 1
    assert set(primitives) <= {"dot_general", "add"} and primitives.count("add") <= 1
    assert_same(chain, variables, dyadic(2, 5), run)


def read_twice(v, x):
    y = x @ v["w"]
    return y * v["scale"] + jnp.sin(y)


def of_the_batch(v, x):
    y = x @ v["w"]
    return (y - y.mean(0)) * lax.rsqrt(y.var(0) + 1e-3) * v["scale"] + v["bias"]


@jax.custom_vjp
def with_own_derivative(v, x):
    return dense(v, x)


with_own_derivative.defvjp(lambda v, x: (dense(v, x), (v, x)),
                           lambda saved, _: jax.tree.map(jnp.ones_like, saved))

KEPT = {
    "a value read twice": read_twice,
    "a value that is a result too": lambda v, x: (lambda y: (y * v["scale"], y))(x @ v["w"]),
    "statistics of the batch": of_the_batch,
    "a scale for each sample": lambda v, x: x @ v["w"] * v["rows"],
    "a scale that is data": lambda v, x: (x @ v["w"]) * x[:, :3],
    "a divisor": lambda v, x: v["scale"] / (x @ v["w"] + 9),
    "a narrow weight": lambda v, x: lax.dot(
        x, v["w"].astype(jnp.bfloat16), preferred_element_type=jnp.float32) * v["scale"],
    "a product of data": lambda v, x: (x.T @ x) * 3,
    "numbers that an activation may be made of": lambda v, x: 1 / (1 + jnp.exp(-(x @ v["w"]))),
    "half of an activation": lambda v, x: (jnp.abs(x) + x) / 2 @ v["w"],
    "a bias alone": lambda v, x: x @ v["w"] + v["bias"] + v["mean"],
    "a derivative of its own": with_own_derivative,
    "a loop of unknown length": lambda v, x: lax.while_loop(
        lambda y: y.sum() < 9, lambda y: jnp.abs(y @ v["w"] * v["scale"]) + 1, x[:, :3]),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_no_chain_stays_as_it_is(case):
    variables = DENSE | {"rows": dyadic(2, 1)}
    if case == "a loop of unknown length":
        variables["w"] = dyadic(3, 3)
    x = dyadic(2, 5) if case != "a narrow weight" else dyadic(2, 5).astype(jnp.bfloat16)
    closed, _ = jaxpr.trace(KEPT[case], variables, x)
    kept, number = fold(closed, jax.tree.leaves((variables, x)), [PARAMETER] * 7 + [DATA])
    assert (kept is closed, number) == (True, 0)


def test_a_chain_ends_where_another_reads_it():
    def function(v, x):
        y = (x @ v["w"]) * v["scale"]
        return y * v["bias"] + jnp.sin(y)

    run, number, primitives = folded_twin(function, DENSE, dyadic(2, 5))
    assert (number, primitives.count("mul")) == (1, 1)
    assert_same(function, DENSE, dyadic(2, 5), run)


def test_a_product_keeps_a_derivative_of_its_own():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)),
                   lambda saved, g: (2 * g @ saved[1].T, 3 * saved[0].T @ g))

    def function(v, x):
        return product(x, v["w"]) * v["scale"]

    run, number, _ = folded_twin(function, DENSE, dyadic(2, 5))
    assert number == 1
    gradient, by_input = jax.grad(lambda v, x: jnp.sum(run(v, x)[0]), (0, 1))(DENSE, dyadic(2, 5))
    np.testing.assert_allclose(by_input, 2 * np.tile(DENSE["w"] @ DENSE["scale"], (2, 1)), 1e-5)
    columns = np.outer(dyadic(2, 5).sum(0), DENSE["scale"])
    np.testing.assert_allclose(gradient["w"], 3 * columns, 1e-5)


# Conversions


def images():
    model, x = AnnCNN((2, 3), 5), dyadic(2, 8, 4, 1)
    variables = model.init(jax.random.key(0), x)
    return model.apply, jax.tree.map(  # statistics that are not 0 and 1
        lambda leaf: leaf if leaf.ndim > 1 else jnp.abs(leaf + dyadic(*leaf.shape)) + 0.5, variables
    ), x


@pytest.fixture(scope="module")
def network():
    apply, variables, x = images()
    twins = [convert(apply, variables, x, method="qcfs", num_steps=6, fold=flag)
             for flag in (False, True)]
    return *twins, x


def test_a_folded_network_is_the_same_network(network):
    plain, folded, x = network

    def loss(snn, variables):
        y, activity = snn.apply(variables, x)
        return jnp.sum(jnp.sin(y)), (y, activity)

    (_, (y, activity)), gradient = jax.value_and_grad(
        lambda v: loss(plain, v), has_aux=True)(plain.variables)
    (_, (z, spikes)), other = jax.value_and_grad(
        lambda v: loss(folded, v), has_aux=True)(folded.variables)
    np.testing.assert_allclose(z, y, rtol=1e-5, atol=1e-5)
    assert list(spikes) == list(activity)
    assert_trees_close(spikes, activity)
    assert_trees_close(other, gradient, 1e-3)


def test_a_folded_network_in_time_adds_up_to_its_counts(network):
    _, folded, x = network
    y, _ = folded.apply(folded.variables, x)
    _, shares = fs.unroll(folded.step, folded.variables, folded.rest(x), folded.present(x))
    np.testing.assert_allclose(shares.sum(0), y, rtol=1e-5, atol=1e-5)


def test_the_report_names_what_was_folded_at_every_site(network):
    plain, folded, _ = network
    assert [site.name for site in folded.sites] == [site.name for site in plain.sites]
    norm = ("sub", "mul", "add")
    assert [site.folded for site in folded.report.sites] == [norm, ("div", *norm)]
    assert ", products folded: 3" in folded.report.format()  # the readout's too, behind a pool
    assert "folded: div, sub, mul, add" in folded.report.format()
    assert "folded" not in plain.report.format()
    assert json.loads(json.dumps(folded.report.as_dict())) == folded.report.as_dict()


def test_a_network_of_nnx_is_folded_at_its_synapses():
    class Dense(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(5, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.linear(x))

    graph, state = nnx.split(Dense(nnx.Rngs(0)))
    snn = convert(lambda state, x: nnx.merge(graph, state)(x), state, dyadic(4, 5),
                  sites="synapses", method="max", num_steps=2**16, fold=True)
    (site,) = snn.report.sites
    assert site.folded[0] == "add" and "mul" in site.folded
    assert snn.report.output_error < 1e-3


def test_sites_keep_their_names_in_loops_and_branches():
    def apply(v, x):
        def layer(x, v):
            with jax.named_scope("norm"):
                return jax.nn.relu(normalised(x @ v["w"], v)), None

        with jax.named_scope("stack"):
            x = lax.scan(layer, x, v)[0]
            return lax.cond(x.sum() > 0, jax.nn.relu6, jnp.tanh, x)

    plain, folded = (Program.trace(apply, *CASES["layers"][1:], "activations", flag).sites
                     for flag in (False, True))
    assert [site.name for site in folded] == [site.name for site in plain]
    assert [site.name for site in plain][0] == "stack/norm/relu"
    assert folded[0].loops == (2,) and folded[0].folded == ("add", "sub", "mul", "add")


def test_statistics_of_the_batch_are_left_to_the_batch():
    apply, variables, x = images()
    snn = convert(lambda v, x: apply(v, x, train=True, mutable=["batch_stats"])[0], variables, x,
                  fold=True)
    assert [site.folded for site in snn.sites] == [(), ("div",)]  # of the pool between them


def test_fold_is_yes_or_no():
    with pytest.raises(TypeError, match="convert: fold must be a bool, got 1"):
        convert(dense, DENSE, dyadic(2, 5), fold=1)

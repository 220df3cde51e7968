"""What a conversion finds, the same in every framework, and what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversion_networks import (
    FRAMEWORKS,
    HIDDEN,
    NAMES,
    NETWORKS,
    X,
    channels_first,
    channels_last,
    dyadic,
    plain_mlp,
)
from helpers import assert_trees_equal
from jax import lax

from fastsnn_jax.conversion import anytime, convert
from fastsnn_jax.conversion.program import Program

WEIGHT = jnp.asarray(HIDDEN[:, :5])


def between(function):
    """A network with a function between two products."""
    return lambda w, x: function(x @ w) @ w


def kinds(function):
    """What is found of a function between two products."""
    return [site.kind for site in Program.trace(between(function), WEIGHT, X, "activations").sites]


# The same network in every framework


@pytest.mark.parametrize("sites", [
    "activations", pytest.param("synapses", marks=pytest.mark.slow),
])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_function_is_converted_alike_in_every_framework(framework, sites):
    plain, other = (convert(*FRAMEWORKS[name](), sites=sites) for name in ("plain", framework))
    y, activity = plain.apply(plain.variables, X)
    theirs, spikes = other.apply(other.variables, X)
    np.testing.assert_allclose(theirs, y, rtol=1e-5)
    assert_trees_equal([spikes[site.name] for site in other.sites],
                       [activity[site.name] for site in plain.sites])
    for ours, site in zip(plain.report.sites, other.report.sites, strict=True):
        numbers = ("threshold", "relative_error", "rate", "saturation", "spikes_per_synapse")
        assert (site.kind, site.shape, site.loops) == (ours.kind, ours.shape, ours.loops)
        for name in numbers:
            assert getattr(site, name) == pytest.approx(getattr(ours, name), rel=1e-5), name


@pytest.mark.parametrize("method", ["dynamic_mean", "ltb"])
@pytest.mark.parametrize("sites", ["activations", "synapses"])
def test_channels_are_channels_on_whatever_axis(method, sites):
    first, last = channels_first(), channels_last()
    one, other = (convert(*network, sites=sites, method=method) for network in (first, last))
    if sites == "activations":
        assert (one.sites[0].channels, other.sites[0].channels) == ((1,), (3,))
    np.testing.assert_allclose(one.apply(one.variables, first.x)[0],
                               other.apply(other.variables, last.x)[0], rtol=1e-5, atol=1e-5)


EXPECTED = {
    "plain": (["relu", "gelu"], 3),
    "cnn": (["relu", "relu"], 3),
    "resnet block": (["relu", "relu"], 3),
    "transformer": (["gelu"], 7),  # query, key, value and output; two of the MLP, and the head
    "stack": (["silu"], 2),
    "recurrent": (["tanh"], 3),
    "vmapped": (["softplus"], 2),
    "cond": (["relu", "tanh"], 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_activation_and_synapse_of_a_network_is_found(name):
    network = NETWORKS[name]()
    activations, synapses = EXPECTED[name]
    found = [Program.trace(*network, kind).sites for kind in ("activations", "synapses")]
    assert all(site.converted for sites in found for site in sites)
    assert sorted(site.kind for site in found[0]) == sorted(activations)
    assert len(found[1]) == synapses


@pytest.mark.parametrize("sites", ["activations", "synapses"])
@pytest.mark.parametrize("name", NAMES)
def test_many_steps_give_the_function_itself(name, sites):
    network = NETWORKS[name]()
    snn = convert(*network, sites=sites, method="max", num_steps=2**20)
    y, _ = snn.apply(network.variables, network.x)
    expected = network.apply(network.variables, network.x)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    assert snn.report.output_error < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_conversion_is_a_function_like_any_other(name):
    network = NETWORKS[name]()
    snn = convert(*network, num_steps=6, method="qcfs")
    y, activity = snn.apply(snn.variables, network.x)
    assert_trees_equal(jax.jit(snn.apply)(snn.variables, network.x), (y, activity))
    rows = jax.vmap(lambda x: snn.apply(snn.variables, x[None])[0][0])(network.x)
    np.testing.assert_allclose(rows, y, rtol=2e-5, atol=1e-5) if name != "cond" else None
    gradient = jax.grad(lambda v: jnp.sum(snn.apply(v, network.x)[0] ** 2))(snn.variables)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["model"]))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["sites"]))
    for site in snn.sites:
        if site.name in activity:
            assert len(activity[site.name].nonzero) == len(network.x)


# What counts as an activation


WRITTEN = {
    "relu": [jax.nn.relu, lambda x: jnp.maximum(0, x), lambda x: x * (x > 0),
             lambda x: (x + jnp.abs(x)) / 2, jax.checkpoint(jax.nn.relu),
             lambda x: jax.nn.relu(x.astype(jnp.bfloat16)).astype(jnp.float32)],
    "relu6": [jax.nn.relu6, lambda x: jnp.clip(x, 0, 6)],
    "leaky_relu": [jax.nn.leaky_relu, lambda x: jnp.maximum(x, 0.2 * x)],
    "elu": [jax.nn.elu, lambda x: jnp.where(x > 0, x, 0.5 * (jnp.exp(x) - 1))],
    "gelu": [jax.nn.gelu, lambda x: jax.nn.gelu(x, approximate=False),
             lambda x: 0.5 * x * (1 + lax.erf(x / jnp.sqrt(2))),
             lambda x: jax.nn.gelu(x.astype(jnp.bfloat16)).astype(jnp.float32)],
    "silu": [jax.nn.silu, lambda x: x / (1 + jnp.exp(-x)), lambda x: x * jax.nn.sigmoid(x)],
    "softplus": [jax.nn.softplus, lambda x: jnp.log(1 + jnp.exp(x))],
    "tanh": [jnp.tanh, lambda x: 2 * jax.nn.sigmoid(2 * x) - 1],
    "sigmoid": [jax.nn.sigmoid, lambda x: 1 / (1 + jnp.exp(-x)),
                lambda x: 0.5 * (1 + jnp.tanh(0.5 * x))],
    "hard_sigmoid": [jax.nn.hard_sigmoid],
    "hard_silu": [jax.nn.hard_silu, lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1)],
    "hard_tanh": [jax.nn.hard_tanh, lambda x: jnp.clip(x, -1, 1)],
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_activation_is_known_however_it_is_written(kind):
    for function in WRITTEN[kind]:
        assert kinds(function) == [kind]


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_activation_is_known_though_a_vmap_turns_its_axes(kind):
    for function in WRITTEN[kind]:
        def each(w, x, function=function):
            return jax.vmap(lambda sample: w @ function(w.T @ sample))(x)

        found = Program.trace(each, WEIGHT, X, "activations").sites
        assert [site.kind for site in found] == [kind]


def test_a_value_beside_its_own_transpose_is_no_activation():
    def each(w, x):
        h = x @ w
        return jnp.where(h > 0, h.T, 0) @ w.T

    (site,) = Program.trace(each, WEIGHT, jnp.ones((5, 5)), "activations").sites
    assert not site.converted and "no activation that is known" in site.reason


def test_what_keeps_a_statistic_in_range_is_no_activation():
    def normed(x):
        mean = jnp.mean(x, -1, keepdims=True)
        variance = jnp.maximum(0, jnp.mean(x**2, -1, keepdims=True) - mean**2)
        return jax.nn.relu(x * lax.rsqrt(variance + 1e-6) / jnp.maximum(jnp.sum(x**2), 1e-12))

    assert kinds(normed) == ["relu"]


@pytest.mark.parametrize("function", [jnp.sin, jax.nn.mish, lambda x: jax.nn.relu(x)**2, jnp.abs])
def test_an_unknown_function_before_a_product_is_listed_and_refused_when_strict(function):
    network = between(lambda x: function(x) + jax.nn.relu(x))
    snn = convert(network, WEIGHT, X)
    kept = [site for site in snn.sites if not site.converted]
    assert len(kept) == 1 and "no activation that is known" in kept[0].reason
    assert kept[0].reason in snn.report.format()
    with pytest.raises(ValueError, match="strict allows no leftovers, got site"):
        convert(network, WEIGHT, X, strict=True)


def test_activations_are_found_inside_custom_derivatives():
    @jax.custom_vjp
    def layer(x):
        return jax.jit(jax.nn.silu)(x)

    layer.defvjp(lambda x: (layer(x), x), lambda x, cotangent: (cotangent,))
    assert kinds(layer) == ["silu"]


def test_products_of_spikes_are_no_sites():
    def apply(w, x):
        return jax.nn.one_hot(jnp.argmax(x, -1), 5) @ w @ w.T

    (site,) = Program.trace(apply, HIDDEN, X, "synapses").sites
    assert site.shape == (3, 7)  # what the weights of the chosen row are, not the choice


def test_an_outer_product_is_a_synapse_too():
    snn = convert(lambda w, x: jnp.einsum("bi,j->bij", x, w), HIDDEN[0], X, sites="synapses",
                  method="max", num_steps=2**16, smooth=True)
    assert snn.report.output_error < 1e-4


def test_softmax_norms_and_pooling_are_no_leftovers():
    def function(x):
        x = jax.nn.relu(jax.nn.softmax(x) * x)
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 1), "SAME") / jnp.std(x)

    assert kinds(function) == ["relu"]


def test_sites_in_a_while_loop_are_listed_with_the_reason():
    def function(x):
        x = lax.while_loop(lambda x: x.sum() < -1e9, jax.nn.relu, x)
        return x + jax.nn.tanh(x)

    loop, after = Program.trace(between(function), WEIGHT, X, "activations").sites
    assert (loop.kind, loop.converted, after.kind, after.converted) == ("relu", False, "tanh", True)
    assert "while" in loop.reason


# Bad input


def test_a_function_without_sites_is_refused_with_what_was_seen():
    with pytest.raises(ValueError, match="must have activations that can spike, got none"):
        convert(lambda w, x: x @ w, WEIGHT, X)
    with pytest.raises(ValueError, match="must have synapses that can spike, got none"):
        convert(lambda w, x: jax.nn.relu(x), (), X, sites="synapses")
    with pytest.raises(ValueError, match=r"got site0:sin \(sin ends no activation"):
        convert(lambda w, x: jnp.sin(x) @ w, WEIGHT, X)


BATCHES = {
    "empty": (X[:0], "at least one sample"),
    "no batch axis": (np.float32(1.0), "at least one sample"),
    "nothing": ((), "at least one array"),
    "NaN": (np.where(X > 0.5, np.nan, X), "must be finite"),
    "infinite": (np.where(X > 0.5, np.inf, X), "must be finite"),
    "wrong shape": (X[:, :4], r"must run, got TypeError for x of shape \(3, 4\)"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_bad_calibration_batch_is_refused(name):
    batch, message = BATCHES[name]
    if name == "no batch axis":
        batch = np.asarray(batch)
    network = plain_mlp()
    with pytest.raises(ValueError, match=f"convert: .*{message}"):
        convert(network.apply, network.variables, batch)


OPTIONS = {
    "method": ({"method": "best"}, "method must be one of dynamic_mean"),
    "sites": ({"sites": "neurons"}, "sites must be one of activations, synapses"),
    "temporal": ({"temporal": "later"}, "temporal must be one of layerwise, differences"),
    "unknown option": ({"steps": 3}, "options of method 'dynamic_mean' are k, num_steps, signed"),
    "other's option": ({"method": "max", "k": 3.0}, "options of method 'max' are num_steps"),
    "num_steps": ({"method": "max", "num_steps": 0}, "num_steps must be >= 1"),
    "k": ({"k": 0.0}, "k must be > 0"),
    "percentile": ({"method": "percentile", "percentile": 101.0}, "percentile must be"),
    "initial": ({"method": "max", "initial": -0.5}, "initial must be"),
    "smooth": ({"smooth": True}, "smooth is for synapses"),
    "dynamic differences": ({"temporal": "differences"}, "a threshold per token is known when"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_option_is_refused(name):
    options, message = OPTIONS[name]
    with pytest.raises(ValueError, match=f"convert: {message}"):
        convert(*plain_mlp(), **options)


def test_what_is_no_function_or_no_array_is_a_type_error():
    network = plain_mlp()
    with pytest.raises(TypeError, match="apply_fn must be callable"):
        convert(network.variables, network.apply, X)
    with pytest.raises(TypeError, match="must hold arrays"):
        convert(network.apply, network.variables, "images")
    with pytest.raises(TypeError, match="signed must be a bool"):
        convert(*network, signed=1)


def test_thresholds_that_are_not_finite_are_refused():
    def overflowing(w, x):
        return jax.nn.relu(x @ w * 3e38 * 1e3) @ w.T

    for method in ("max", "dynamic_mean"):
        with pytest.raises(ValueError, match="values at site0:relu must be finite"):
            convert(overflowing, WEIGHT, X, method=method)
    snn = convert(*plain_mlp(), method="max")
    broken = snn.variables | {"sites": {
        name: {"threshold": jnp.float32(np.nan)} for name in snn.variables["sites"]
    }}
    state = snn.rest(X)
    ways = snn.apply, lambda variables, x: snn.step(variables, state, x), partial(anytime, snn)
    for run in ways:
        with pytest.raises(ValueError, match="thresholds of site0:relu must be finite"):
            run(broken, X)
        with pytest.raises(ValueError, match="thresholds must be"):
            run(snn.variables | {"sites": {}}, X)


def test_a_branch_that_the_calibration_batch_does_not_take_stays_as_it_is():
    def apply(variables, x):
        return jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda x: jnp.tanh(2 * x), x @ variables)

    variables, x = jnp.asarray(dyadic(3, 4)), jnp.abs(jnp.asarray(dyadic(5, 3)))
    snn = convert(apply, variables, x, method="max", num_steps=50)
    left = [(site.kind, site.reason) for site in snn.sites if not site.converted]
    assert left == [("tanh", "no branch that the calibration batch takes has it")]
    y, activity = snn.apply(variables, -x)
    np.testing.assert_allclose(y, apply(variables, -x), rtol=1e-5)
    assert len(activity) == 1
    with pytest.raises(ValueError, match="strict allows no leftovers, got .*tanh"):
        convert(apply, variables, x, method="max", num_steps=50, strict=True)


@pytest.mark.parametrize("method", ["max", "dynamic_mean"])
def test_a_branch_that_some_turns_of_a_scan_take_is_converted_by_those(method):
    weights, kinds = jnp.asarray(dyadic(2, 4, 4)), jnp.array([0, 1])

    def scanned(variables, x):
        def layer(x, given):
            weight, kind = given
            return jax.lax.cond(kind == 0, jax.nn.relu, lambda x: x, x @ weight), None

        return jax.lax.scan(layer, x, (variables, kinds))[0]

    def written_out(variables, x):
        return jax.nn.relu(x @ variables[0]) @ variables[1]

    x = jnp.asarray(dyadic(5, 4))
    some, all_ = (convert(each, weights, x, method=method) for each in (scanned, written_out))
    np.testing.assert_array_equal(some.apply(weights, x)[0], all_.apply(weights, x)[0])
    (ours,), (expected,) = some.report.sites, all_.report.sites
    for name in ("threshold", "rate", "saturation", "spikes_per_synapse", "relative_error"):
        assert getattr(ours, name) == pytest.approx(getattr(expected, name)), name
    other = convert(scanned, weights, x, method=method, sites="synapses").report.sites
    assert [site.macs for site in other] == [2 * 5 * 4 * 4]


def test_a_function_may_insist_on_the_size_of_its_batch():
    def apply(variables, x):
        assert x.shape == (5, 3)
        return jax.nn.relu(x @ variables)

    variables, x = jnp.asarray(dyadic(3, 4)), jnp.asarray(dyadic(5, 3))
    assert [site.kind for site in convert(apply, variables, x).sites] == ["relu"]


def test_additions_and_spikes_are_exact_beyond_what_float32_counts():
    size = 2**18 + 3
    snn = convert(lambda w, x: jax.nn.relu(x) * w, jnp.float32(1), jnp.ones((1, size)),
                  method="max", num_steps=127)
    assert int(snn.apply(jnp.float32(1), jnp.ones((1, size)))[1]["site0:relu"].nonzero[0]) == (
        127 * size)

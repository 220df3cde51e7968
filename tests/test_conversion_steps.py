"""A converted network in time: its steps add up to its counts, in every coding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversion_networks import NAMES, NETWORKS, Network, dyadic, plain_mlp
from jax import lax

from fastsnn_jax import unroll
from fastsnn_jax.codings import CODINGS
from fastsnn_jax.conversion import anytime, convert
from fastsnn_jax.energy.accountant import count


def relu_net(seed):
    """Two convolutions with a pool, a sum of branches, and Dense: dyadic throughout."""
    random = np.random.default_rng(seed)

    def weight(*shape):
        return jnp.asarray(random.integers(-4, 5, shape) / 4, jnp.float32)

    variables = {"first": weight(2, 2, 2, 3), "bias": weight(3), "second": weight(2, 2, 3, 3),
                 "out": weight(3, 4), "last": weight(4)}

    def apply(variables, x):
        def convolve(x, kernel):
            return lax.conv_general_dilated(x, kernel, (1, 1), "SAME",
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))

        x = jax.nn.relu(convolve(x, variables["first"]) + variables["bias"])
        y = jax.nn.relu6(convolve(x, variables["second"]) - 1)
        x = jax.nn.leaky_relu(x[..., ::-1] - 0.5 * y, 0.25)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
        return jnp.where(jnp.arange(4) < 3, x.sum((1, 2)) @ variables["out"], 0) + variables["last"]

    return Network(apply, variables, jnp.asarray(random.integers(-4, 5, (2, 3, 4, 2)) / 4,
                                                 jnp.float32))


def summed(snn, network, variables, input_steps=1):
    """The shares of the output of all steps, added up."""
    inputs = snn.present(network.x, input_steps)
    state = snn.rest(network.x, input_steps)
    _, shares = jax.jit(lambda state, inputs: unroll(snn.step, variables, state, inputs))(
        state, inputs
    )
    return shares.sum(0)


def dyadic_thresholds(snn):
    """The variables with thresholds of one bit: sums of their spikes are exact."""
    sites = jax.tree.map(lambda v: 2.0 ** jnp.round(jnp.log2(v)), snn.variables["sites"])
    return {"model": snn.variables["model"], "sites": sites}


@pytest.mark.parametrize("coding", CODINGS[1:])
@pytest.mark.parametrize("sites", [
    "activations", pytest.param("synapses", marks=pytest.mark.slow),
])
def test_steps_add_up_to_counts_bit_for_bit_in_every_coding(coding, sites):
    network = relu_net(len(coding))
    snn = convert(*network, sites=sites, method="max", num_steps=5).expand(coding)
    variables = dyadic_thresholds(snn)
    expected = snn.apply(variables, network.x)[0]
    assert len(np.unique(expected)) > 4
    for input_steps in (1, 4):
        np.testing.assert_array_equal(summed(snn, network, variables, input_steps), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_steps_add_up_to_counts_bit_for_bit_on_random_networks(seed):
    network = relu_net(100 + seed)
    sites, coding = ("activations", "synapses")[seed % 2], CODINGS[1 + seed % 3]
    snn = convert(*network, sites=sites, method="max", num_steps=3 + seed).expand(coding)
    variables = dyadic_thresholds(snn)
    np.testing.assert_array_equal(summed(snn, network, variables, 2),
                                  snn.apply(variables, network.x)[0])


def test_unsigned_networks_step_in_binary_trains():
    weights = (jnp.asarray(dyadic(5, 7)), jnp.asarray(dyadic(7, 3)))
    network = Network(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, jnp.asarray(dyadic(2, 5)))
    snn = convert(*network, method="max", num_steps=4)
    assert (snn.coding, snn.duration(network.x)) == ("binary", 4)
    variables = dyadic_thresholds(snn)
    expected = snn.apply(variables, network.x)[0]
    np.testing.assert_array_equal(summed(snn, network, variables), expected)


@pytest.mark.parametrize("sites", ["activations", "synapses"])
def test_spikes_by_differences_add_up_to_counts_bit_for_bit(sites):
    network = relu_net(3)
    snn = convert(*network, sites=sites, method="max", num_steps=5, temporal="differences")
    variables = dyadic_thresholds(snn)
    expected = snn.apply(variables, network.x)[0]
    for input_steps in (1, 4):
        np.testing.assert_array_equal(summed(snn, network, variables, input_steps), expected)


@pytest.mark.parametrize("temporal", ["layerwise", "differences"])
@pytest.mark.parametrize("name", NAMES)
def test_every_network_steps(name, temporal):
    network = NETWORKS[name]()
    snn = convert(*network, method="max", num_steps=3, temporal=temporal)
    expected = snn.apply(snn.variables, network.x)[0]
    np.testing.assert_allclose(summed(snn, network, snn.variables), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_threshold_per_token_steps_layerwise():
    network = NETWORKS["transformer"]()
    snn = convert(*network, sites="synapses", num_steps=15).expand("bitwise")
    expected = snn.apply(snn.variables, network.x)[0]
    np.testing.assert_allclose(summed(snn, network, snn.variables), expected, rtol=1e-4, atol=1e-4)


def test_a_network_steps_through_the_layers_one_after_the_other():
    network = NETWORKS["stack"]()
    snn = convert(*network, method="max", num_steps=4)
    assert snn.duration(network.x) == 1 + 3 * (4 - 1)  # a plane is passed on in its own step
    assert snn.expand("bitwise").duration(network.x) == 1 + 3 * (3 - 1)
    assert snn.duration(network.x, 3) == 3 + 3 * (4 - 1)
    state = snn.rest(network.x)
    sizes = []
    for shown in snn.present(network.x):
        state, share = snn.step(snn.variables, state, shown)
        sizes.append(jnp.abs(share).max().item())
    assert sizes[-1] > 0  # the strongest neuron of the last layer fires to the end


def test_what_arrives_at_a_synapse_are_spikes():
    weights = (jnp.eye(3), jnp.ones((3, 1)))
    x = jnp.array([[4.0, 1.0, -2.0]])
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, x, method="max", num_steps=4)
    state, shares = snn.rest(x), []
    for shown in snn.present(x):
        state, share = snn.step(weights, state, shown)
        shares.append(share.item())
    assert shares == [2.0, 1.0, 1.0, 1.0]  # both fire, then the first alone


def test_the_accountant_counts_the_additions_of_a_network_in_time():
    weights = (jnp.asarray(dyadic(5, 7)), jnp.asarray(dyadic(7, 3)))
    x = jnp.asarray(dyadic(2, 5))
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, x, method="mse", num_steps=6)
    (spikes,) = snn.apply(weights, x)[1].values()
    _, counts = count(partial(unroll, snn.step))(weights, snn.rest(x), snn.present(x))
    first, second = counts.products
    assert first.effective_macs == 7 * jnp.sum(x != 0)
    assert second.effective_macs == 3 * jnp.sum(spikes.events) > 0


def test_the_additions_of_a_report_are_what_the_accountant_counts():
    kernel = jnp.asarray(dyadic(3, 3, 2, 4))
    x = jnp.asarray(dyadic(2, 5, 4, 2))

    def apply(w, x):
        return lax.conv_general_dilated(x, w, (2, 1), "SAME",
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    snn = convert(apply, kernel, x, sites="synapses", method="max", num_steps=3)
    for coding in ("ternary", "bitwise"):
        network = snn.expand(coding)
        run = count(partial(unroll, network.step))
        _, counts = run(kernel, network.rest(x), network.present(x))
        (product,), (site,) = counts.products, network.report.sites
        assert site.additions == product.effective_macs
        assert site.macs * network.duration(x) == product.macs


def test_codings_that_cannot_hold_the_counts_are_refused():
    network = plain_mlp()
    snn = convert(*network, method="max")
    with pytest.raises(ValueError, match="binary spikes have no sign, got site1:gelu"):
        snn.expand("binary")
    with pytest.raises(ValueError, match="coding must be one of binary"):
        snn.expand("morse")
    moved = convert(*network, method="max", temporal="differences")
    with pytest.raises(ValueError, match="spikes that may be taken back have no coding"):
        moved.expand("ternary")
    with pytest.raises(ValueError, match="input_steps must be >= 1"):
        snn.rest(network.x, 0)
    tokens = convert(*NETWORKS["transformer"]())
    with pytest.raises(ValueError, match="input_steps must be 1 for whole numbers"):
        tokens.present(NETWORKS["transformer"]().x, 2)


def test_an_expanded_network_counts_the_spikes_of_its_coding():
    weights = (jnp.eye(3), jnp.eye(3))
    x = jnp.array([[1.0, 3.0, 4.0]])
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, x, method="max", num_steps=4)
    events = {}
    for coding in CODINGS:
        expanded = snn.expand(coding)
        events[coding] = expanded.apply(weights, x)[1]["site0:relu"].events.tolist()
        steps = {"bitwise": 3, "twos_complement": 4}.get(coding, 4)
        (site,) = expanded.report.sites
        spikes = np.mean(events[coding])
        assert (site.time_steps, site.spikes_per_synapse) == (steps, pytest.approx(spikes))
        assert site.rate == pytest.approx(spikes / steps)
    assert events == {"binary": [[1, 3, 4]], "ternary": [[1, 3, 4]], "bitwise": [[1, 2, 1]],
                      "twos_complement": [[1, 2, 1]]}


# Anytime


def classifier(seed):
    random = np.random.default_rng(seed)
    weights = (jnp.asarray(random.normal(size=(6, 9)), jnp.float32),
               jnp.asarray(random.normal(size=(9, 4)), jnp.float32))
    return Network(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1] + 0.1, weights,
                   jnp.asarray(random.normal(size=(300, 6)), jnp.float32))


@pytest.mark.parametrize("method, sites", [
    ("dynamic_mean", "synapses"), ("mse", "activations"),
    pytest.param("dynamic_mean", "activations", marks=pytest.mark.slow),
    pytest.param("mse", "synapses", marks=pytest.mark.slow),
])
def test_anytime_predicts_what_all_planes_predict_with_fewer(method, sites):
    network = classifier(0)
    snn = convert(*network, sites=sites, method=method, num_steps=63)
    prediction, planes = anytime(snn, network.variables, network.x)
    np.testing.assert_array_equal(
        prediction, jnp.argmax(snn.apply(network.variables, network.x)[0], -1)
    )
    assert planes.min() >= 1 and planes.max() <= 6 and planes.mean() < 5.5


def test_anytime_uses_all_planes_where_logits_tie():
    weights = (jnp.eye(2), jnp.eye(2))
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, jnp.array([[7.0, 7.0]]),
                  method="max", num_steps=7)
    x = jnp.array([[7.0, 7.0], [7.0, 0.0], [2.0, 3.0]])
    prediction, planes = anytime(snn, weights, x)
    # 7 - 0: at least 4 after a plane, of which the rest can take 3; 2 and 3 agree in two planes
    assert prediction.tolist() == [0, 0, 1] and planes.tolist() == [3, 1, 3]


def test_anytime_knows_that_silent_neurons_stay_silent():
    # One neuron for class 0, ten for class 1; 4 spikes are all there are, and come at once. Of 6,
    # the 2 that are left could be of class 1: 4 - 2 is still ahead. Of 4 and 1 + 1 they are.
    weights = (jnp.eye(11), jnp.zeros((11, 2)).at[0, 0].set(1).at[1:, 1].set(1))
    x = jnp.zeros((3, 11)).at[:, 0].set(jnp.array([4.0, 6, 4])).at[2, 1:3].set(1)
    snn = convert(lambda w, x: jax.nn.relu(x @ w[0]) @ w[1], weights, jnp.full((1, 11), 7.0),
                  method="max", num_steps=7)
    prediction, planes = anytime(snn, weights, x)
    assert prediction.tolist() == [0, 0, 0] and planes.tolist() == [1, 1, 1]


def test_anytime_refuses_a_softmax_at_the_end():
    network = classifier(1)
    snn = convert(lambda w, x: jax.nn.softmax(network.apply(w, x)), *network[1:])
    with pytest.raises(ValueError, match="return logits, without a softmax"):
        anytime(snn, network.variables, network.x)
    images = convert(lambda w, x: network.apply(w, x)[:, None], *network[1:])
    with pytest.raises(ValueError, match=r"output must be logits \[B, K\], got \(300, 1, 4\)"):
        anytime(images, network.variables, network.x)


def test_anytime_refuses_samples_that_are_not_the_first_axis():
    network = classifier(0)
    turned = convert(lambda w, x: (w[1].T @ jax.nn.relu(w[0].T @ x.T)).T, network.variables,
                     network.x, method="mse", num_steps=7)
    with pytest.raises(ValueError, match="must be the samples alone"):
        anytime(turned, network.variables, network.x)

"""The price of spikes as a loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.activity import SpikeCount, count_spikes, count_tokens
from fastsnn_jax.energy.objective import above_target, energy_pj, synaptic_operations
from fastsnn_jax.recipes import lm, mnist
from fastsnn_jax.recipes.lm import network as lm_network
from fastsnn_jax.recipes.mnist import network as mnist_network
from fastsnn_jax.recipes.mnist.inputs import InputPlan
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.surrogate import straight_through

FANS = np.array([3, 0, 2])


def signal():
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, 2, 3)), jnp.float32)


def test_operations_are_every_spike_times_its_synapses_by_hand():
    train = np.asarray(signal())
    counted = {"a": count_spikes(signal())}
    assert float(synaptic_operations(counted, {"a": FANS})) == (train.sum(0) * FANS).sum() / 2
    assert float(synaptic_operations(counted, {"a": 7})) == 7 * train.sum() / 2
    priced = energy_pj(counted, {"a": FANS}, per_operation_pj=0.5, per_event_pj=0.25)
    assert float(priced) == (0.5 * (train.sum(0) * FANS).sum() + 0.25 * train.sum()) / 2


def test_what_no_fan_out_names_is_free():
    counted = {"a": count_spikes(signal()), "output": count_spikes(signal())}
    alone = synaptic_operations({"a": counted["a"]}, {"a": FANS})
    assert synaptic_operations(counted, {"a": FANS}) == alone > 0


def test_gradients_flow_through_the_surrogate_also_of_silent_neurons():
    spike = straight_through(0.5)

    def operations(v):
        return synaptic_operations({"a": count_spikes(spike(v))}, {"a": FANS})

    v = jnp.asarray(signal() - 0.75)
    np.testing.assert_array_equal(
        jax.grad(operations)(v), np.broadcast_to(0.5 * FANS / 2, v.shape)
    )


def test_of_tokens_the_logarithm_bounds_the_planes_and_carries_the_gradient():
    counts = jnp.array([[[7.0, -1.0, 0.0, 4.0]], [[3.0, 0.0, 0.0, 0.0]]])

    def operations(counts):
        tokens = count_tokens(SpikeTensor.from_count(counts, coding="bitwise"))
        return synaptic_operations({"a": tokens}, {"a": 8})

    expected = (3 + 1 + np.log2(5) + 2) * 8 / 2  # planes: 3 + 1 + 1 + 2
    np.testing.assert_allclose(operations(counts), expected, rtol=1e-6)
    slope = 8 / 2 / np.log(2) / (1 + np.abs(counts)) * np.sign(counts)
    np.testing.assert_allclose(jax.grad(operations)(counts), slope, rtol=1e-6)


def test_only_what_lies_above_the_target_is_lost():
    loss, slope = jax.value_and_grad(lambda x: above_target(x, 8.0, 16.0))(jnp.float32(12.0))
    assert (float(loss), float(slope)) == (0.25, 1 / 16)
    loss, slope = jax.value_and_grad(lambda x: above_target(x, 8.0, 16.0))(jnp.float32(7.0))
    assert (float(loss), float(slope)) == (0.0, 0.0)


@pytest.mark.parametrize("message, call", [
    ("fan_outs must name synapses of activity", lambda a: synaptic_operations(a, {"b": 1})),
    ("neurons' shape", lambda a: synaptic_operations(a, {"a": np.ones(4)})),
    ("per_event_pj must be >= 0", lambda a: energy_pj(
        a, {"a": 1}, per_operation_pj=1.0, per_event_pj=-1.0)),
    ("unit must be > 0", lambda a: above_target(jnp.float32(1), 0.0, 0.0)),
])
def test_bad_input_is_refused(message, call):
    count = SpikeCount(jnp.ones((2, 3)), jnp.ones(2, int), jnp.zeros(2, int))
    with pytest.raises(ValueError, match=message):
        call({"a": count})


def mnist_loss(weight):
    config = mnist.preset(num_steps=6, batch_size=16, max_rate_hz=300.0, energy_weight=weight)
    model = mnist_network.build_model(config)
    params = mnist_network.init_params(config, model, (4, 5, 1), jax.random.key(0))
    fans = mnist_network.fan_outs(model, (20,))
    loss = mnist_network.make_loss(model, config, InputPlan("dense", 1, 0.0), fans)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 1)).astype(np.uint8)
    batch = jnp.asarray(images), jnp.array([1, 7, 4])
    run = jax.jit(jax.value_and_grad(lambda p: loss(p, batch, jax.random.key(1)), has_aux=True))
    (value, sums), gradient = run(params)
    return value, gradient, sums["spikes"]


def test_the_images_pay_for_hidden_spikes_by_their_synapses_over_all_synapses():
    (free, slope, spikes), (priced, other, _) = mnist_loss(0.0), mnist_loss(4.0)
    expected = 4 * int(spikes["hidden"]) / 3 * 10 / (20 * 400 + 400 * 10)
    np.testing.assert_allclose(priced - free, expected, rtol=1e-5)
    into_hidden, without = (g["dense0"]["kernel"] for g in (other, slope))
    assert (np.asarray(into_hidden) != np.asarray(without)).any()


@pytest.mark.slow
def test_the_text_pays_for_every_synapse_it_drives():
    config = lm.preset("smoke", vocab_size=13, energy_weight=2.0)
    model = lm_network.build_model(config)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 13, (3, 9)))
    variables = jax.jit(model.init)(jax.random.key(0), tokens[:, :-1])
    free = dataclasses.replace(config, energy_weight=0.0)
    losses = [jax.jit(lm_network.make_loss(model, one))(variables, tokens, jax.random.key(1))[0]
              for one in (config, free)]
    _, activity = jax.jit(model.apply)(variables, tokens[:, :-1])
    kernels = model.kernels(variables)
    operations = sum(np.mean(activity[key].log_counts) * kernels[key].shape[1] for key in kernels)
    connections = sum(kernel.size for kernel in kernels.values())
    np.testing.assert_allclose(losses[0] - losses[1], 2 * operations / connections, rtol=1e-4)

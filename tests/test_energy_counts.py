"""Exact counts of work: against every addition counted one by one, by hand, and their laws."""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_helpers import ATTENTIONS, coding_of, model_of, variables_of, whole

from fastsnn_jax.activity import SpikeCount, TokenSpikes
from fastsnn_jax.energy.counts import count_layers
from fastsnn_jax.energy.neuron_work import state_words, update_ops
from fastsnn_jax.models import CNN, MLP
from fastsnn_jax.models._layers import dense_synapse
from fastsnn_jax.neurons import (
    adaptive_lif,
    adaptive_threshold,
    current_lif,
    leaky_integrator,
    lif,
    recurrent,
)
from fastsnn_jax.recipes.mnist import network, preset
from fastsnn_jax.record.mnist.figures import derived_figures

T, B, N = 5, 4, 11
MODELS = {"mlp": (MLP((6, 3), lif(0.5)), (N,)), "cnn": (CNN((2, 5), 3, lif(0.5)), (7, 6, 2))}
every_model = pytest.mark.parametrize("name", MODELS)
CONFIG = ATTENTIONS["interleaved"]


@cache
def ran(name):
    """A model with pruned weights, its shape and variables, its activity and every train."""
    model, shape = MODELS[name]
    random = np.random.default_rng(0)
    x = jnp.asarray(random.random((T, B, *shape)) < 0.4, jnp.float32)
    variables = jax.tree.map(
        lambda leaf: jnp.where(random.random(leaf.shape) < 0.3, 0.0, leaf + 0.15),
        jax.jit(model.init)(jax.random.key(1), x[:1]),
    )
    run = jax.jit(lambda variables, x: model.apply(variables, x, model.layer_names))
    _, activity, traces = run(variables, x)
    trains = [np.asarray(signal) for signal in (x, *(t.spikes for t in traces.values()))]
    return model, shape, variables, activity, dict(zip((*model.layer_names, "output"), trains,
                                                       strict=True))


def counted(name, activity=None, **options):
    model, shape, variables, own, _ = ran(name)
    options = {"num_steps": T, "input_shape": shape} | options
    return count_layers(model, variables, own if activity is None else activity, **options)


def additions(train, kernel):
    """Every addition of a dense synapse or of a 3x3 convolution of stride 2, one by one."""
    total = 0
    if kernel.ndim == 2:
        for *_, n in np.argwhere(train.reshape(*train.shape[:2], -1)):
            total += np.count_nonzero(kernel[n])
        return total
    for _, _, y, x, channel in np.argwhere(train):
        for rows in taps(train.shape[2], y):
            for columns in taps(train.shape[3], x):
                total += np.count_nonzero(kernel[rows, columns, channel])
    return total


def taps(size, place):
    """Of the kernel's 3 taps along an axis those that see ``place``, once for each output."""
    outputs = -(-size // 2)
    before = max(2 * (outputs - 1) + 3 - size, 0) // 2
    seen = (place - (2 * output - before) for output in range(outputs))
    return [tap for tap in seen if 0 <= tap < 3]


@every_model
def test_additions_are_those_counted_one_by_one(name):
    *_, variables, _, trains = ran(name)
    for key, work in counted(name).items():
        layer = key.split("/")[0]
        kernel = np.asarray(variables["params"][layer]["kernel"])
        assert 0 < np.count_nonzero(kernel) < kernel.size  # pruned
        assert work.ac == additions(trains[layer], kernel) > 0
        assert work.connections == additions(np.ones_like(trains[layer][:1, :1]), kernel)
        assert work.weights == np.count_nonzero(kernel)
        assert (work.drive, work.coding, work.mac) == ("spikes", "binary", 0)


@every_model
def test_events_updates_biases_and_sizes_are_those_of_the_run(name):
    *_, trains = ran(name)
    counts, names = counted(name), [*trains]
    assert [*counts] == [f"{layer}/kernel" for layer in names[:-1]]
    for layer, following, work in zip(names, names[1:], counts.values(), strict=False):
        outputs = trains[following][0, 0].size
        assert (work.samples, work.num_steps) == (B, T)
        assert (work.inputs, work.outputs) == (trains[layer][0, 0].size, outputs)
        assert work.events == work.active == trains[layer].sum()
        assert work.emitted == trains[following].sum()
        assert work.updates == work.bias_add == B * T * outputs
        assert work.update_ops == update_ops(lif(0.5)) and work.state_words == 1
        assert work.saturated == work.product == work.kv_words == work.activation_words == 0


@every_model
def test_half_batches_add_up_to_the_whole(name):
    activity = ran(name)[3]
    halves = [
        counted(name, jax.tree.map(lambda leaf, rows=rows: leaf[rows], activity))
        for rows in (slice(1), slice(1, None))
    ]
    for key, work in counted(name).items():
        assert halves[0][key] + halves[1][key] == work
        assert halves[0][key].ac < work.ac


@every_model
def test_counts_summed_over_samples_are_those_of_their_rows(name):
    summed = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(np.int64).sum(0, keepdims=True), ran(name)[3]
    )
    assert counted(name, summed, samples=B) == counted(name)


@every_model
def test_a_key_order_that_jit_gave_does_not_matter(name):
    activity = ran(name)[3]
    assert counted(name, dict(sorted(activity.items(), reverse=True))) == counted(name)


def test_the_notebooks_network_costs_what_its_record_says():
    config = preset("notebook")
    model = network.build_model(config)
    x = (jax.random.uniform(jax.random.key(0), (T, B, 784)) < 0.3).astype(jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(1), x[:1])
    _, activity = jax.jit(model.apply)(variables, x)
    counts = count_layers(model, variables, activity, num_steps=T, input_shape=(784,))
    fans = network.fan_outs(model, (784,))
    spikes = network.spike_totals(model, activity, jnp.ones(B, bool))
    totals = {f"total_{place}": int(spikes[place]) for place in ("input", "hidden", "output")}
    figures = derived_figures({
        "architecture": network.architecture(config, fans)._asdict(),
        "encoding": {"time_window": T}, "confusion_matrix": [],
        "training_history": {"losses": [], "train_acc": [], "val_acc": []},
        "inference_spikes": totals | {"n_samples": B},
        "training_spikes": totals | {"total_samples": B},
    })["energy_proxies"]
    assert sum(work.ac for work in counts.values()) == figures["event_syn_per_inference"] * B > 0
    dense = sum(work.connections for work in counts.values()) * T
    assert dense == figures["dense_ops_per_inference"] == 317_600 * T


def test_an_analog_input_costs_dense_products_at_every_step():
    model, shape = MODELS["mlp"]
    x = np.broadcast_to(np.linspace(0, 1, N, dtype=np.float32), (T, B, N))
    variables = ran("mlp")[2]
    _, activity = jax.jit(model.apply)(variables, x)
    options = {"num_steps": T, "input_shape": shape}
    with pytest.raises(ValueError, match="dense0/kernel: events must be whole numbers, got .*anal"):
        count_layers(model, variables, activity, **options)
    first, second = count_layers(
        model, variables, activity, analog=("dense0/kernel",), **options
    ).values()
    assert (first.drive, first.coding, first.ac, first.events) == ("analog", "none", 0, 0)
    assert first.mac == B * T * first.connections and first.connections < N * 6
    assert first.activation_words == B * T * N
    assert first.active == B * T * (N - 1)
    assert second.drive == "spikes" and second.mac == 0 and first.emitted == second.events


def tiny(kernel):
    """A model of one synapse ``[N, M]`` and its variables."""
    kernel = jnp.asarray(kernel, jnp.float32)
    model = SimpleNamespace(
        neuron=lif(),
        synapses=lambda variables, shape: {
            "a/kernel": dense_synapse(variables["params"]["a"]["kernel"])
        },
    )
    return model, {"params": {"a": {"kernel": kernel}}}


def trains(events, outputs=2):
    events = np.asarray(events)
    count = SpikeCount(events, events.reshape(len(events), -1).sum(1), np.zeros(len(events), int))
    silence = SpikeCount(np.zeros((len(events), outputs)), *2 * [np.zeros(len(events), int)])
    return {"a/kernel": count, "output": silence}


def test_counts_of_any_size_are_exact():
    events = np.array([[2**40, 2**40 + 1], [2**40, 3]])
    model, variables = tiny([[1, 2], [0, 3]])
    (work,) = count_layers(
        model, variables, trains(events), num_steps=2**41, input_shape=(2,)
    ).values()
    assert work.ac == 2 * 2**41 + (2**40 + 4)
    huge = np.array([[2**62, 1], [2**62, 2], [2**62, 4]])
    (work,) = count_layers(
        model, variables, trains(huge) | {"a/kernel": SpikeCount(huge, np.ones(3, int) * 7, [0])},
        coding="unary", input_shape=(2,),
    ).values()
    assert work.ac == 2 * 3 * 2**62 + 7 and work.events == 3 * 2**62 + 7


def test_a_graded_spike_costs_as_many_additions_as_it_is_large_and_is_no_binary_one():
    model, variables = tiny([[1, 2], [0, 3]])
    activity = trains([[3, 2]]) | {"a/kernel": SpikeCount(np.array([[3, 2]]), [2], [0])}
    (work,) = count_layers(
        model, variables, activity, coding="unary", input_shape=(2,)
    ).values()
    assert (work.ac, work.events, work.active, work.coding) == (3 * 2 + 2, 5, 2, "unary")
    with pytest.raises(ValueError, match="binary events must add up to nonzero, 2, got 5"):
        count_layers(model, variables, activity, num_steps=3, input_shape=(2,))


# Language models


def spikes_of(config):
    """What every kernel read, signed counts [B, L, D] by NumPy, and the activity."""
    _, activity, heard = jax.device_get(whole(config))
    counts = {key: heard[coding_of(key)][1].data.astype(np.int64) for key in activity}
    return counts, activity


@pytest.mark.parametrize("coding", ["unary", pytest.param("bitwise", marks=pytest.mark.slow)])
def test_additions_of_a_language_model_are_those_of_its_spikes(coding):
    model, variables = model_of(CONFIG), variables_of(CONFIG)
    counts, activity = spikes_of(CONFIG)
    kernels = model.kernels(variables)
    layers = count_layers(model, variables, activity, coding=coding)
    assert [*layers] == [*kernels] and {key.split("/")[0] for key in layers} > {"blocks_0"}
    for key, work in layers.items():
        sizes, fans = np.abs(counts[key]), np.count_nonzero(kernels[key], axis=1)
        spikes = sizes if coding == "unary" else np.bitwise_count(sizes).astype(np.int64)
        tokens = sizes[..., 0].size
        assert work.ac == sum((spikes * fans).ravel().tolist()) > 0
        assert (work.events, work.active) == (spikes.sum(), np.count_nonzero(sizes))
        assert (work.samples, work.num_steps, work.coding) == (tokens, 1, coding)
        assert (work.inputs, work.outputs) == kernels[key].shape
        assert work.weights == work.connections == kernels[key].size
        assert (work.updates, work.update_ops, work.state_words) == (0, (), 0)
        assert work.bias_add == 0 and work.emitted == 0


def tiny_reader(kernel, **beside):
    """A model of tokens with one synapse, and its variables."""
    model, variables = tiny(kernel)
    model.kernels = lambda variables: {"a/kernel": variables["params"]["a"]["kernel"]}
    variables["params"]["a"] |= beside
    return model, variables


def test_sequences_add_up_and_a_bias_is_added_for_every_token():
    model, variables = tiny_reader(np.ones((9, 2)), bias=jnp.zeros(2))
    active = np.random.default_rng(0).integers(1, 9, (3, 7))
    tokens = TokenSpikes(active, 9 * active, 2 * active, active // 4, 0.5 * active)
    whole_batch, first, others = (
        count_layers(
            model, variables, {"a/kernel": jax.tree.map(lambda leaf, r=rows: leaf[r], tokens)},
            coding="bitwise",
        )["a/kernel"] for rows in (slice(None), slice(1), slice(1, None))
    )
    assert first + others == whole_batch and 0 < first.ac < whole_batch.ac
    assert whole_batch.ac == 2 * 2 * active.sum() and whole_batch.bias_add == 3 * 7 * 2
    total = {"a/kernel": jax.tree.map(lambda leaf: leaf.sum(keepdims=True), tokens)}
    assert whole_batch == count_layers(
        model, variables, total, coding="bitwise", samples=21
    )["a/kernel"]


def test_channels_of_different_fan_out_are_sent_to_the_accountant():
    model, variables = tiny_reader([[1, 2], [0, 3]])
    activity = {"a/kernel": TokenSpikes(*np.ones((5, 2, 3)))}
    with pytest.raises(ValueError, match="a/kernel: every channel must have .*1 to 2; .*energy.co"):
        count_layers(model, variables, activity, coding="unary")


# Neurons


@pytest.mark.parametrize("neuron, ops, words", [
    (lif(), "mul add compare reset", 1),
    (lif(1.0), "add compare reset", 1),
    (lif(0.5, input_gain="1-decay", reset="none"), "mul mul add compare", 1),
    (lif(learn=("decay",)), "mul add compare reset", 1),
    (current_lif(), "mul add mul add compare reset", 2),
    (current_lif(1.0), "add mul add compare reset", 2),
    (adaptive_lif(), "mul add mul add mul add compare reset", 2),
    (leaky_integrator(0.5, input_gain=0.25), "mul mul add", 1),
])
def test_an_update_costs_what_the_neurons_equations_say(neuron, ops, words):
    names = ops.split()
    assert update_ops(neuron) == tuple((name, names.count(name)) for name in sorted({*names}))
    assert state_words(neuron) == words


@pytest.mark.parametrize("neuron", [recurrent(lif()), adaptive_threshold(), None])
def test_a_neuron_whose_work_is_not_its_own_is_refused(neuron):
    with pytest.raises(ValueError, match="update_ops: neuron must be .*energy.count"):
        update_ops(neuron)


# Bad input


def spoiled(field, value):
    activity = trains([[3, 2], [1, 0]])
    count = activity["a/kernel"]
    return activity | {"a/kernel": count._replace(**{field: value})}


GOOD = trains([[3, 2], [1, 0]])
BAD = {
    "NaN": (spoiled("events", np.array([[np.nan, 2], [1, 0]])), {}, "a/kernel: events .*, got nan"),
    "infinite": (spoiled("nonzero", np.array([np.inf, 1.0])), {}, "a/kernel: nonzero .*, got inf"),
    "negative": (spoiled("saturated", np.array([0, -1])), {}, "a/kernel: saturated .*, got -1"),
    "broken": (spoiled("events", np.array([[2.5, 2], [1, 0]])), {}, "events must be whole numbers"),
    "rounded": (spoiled("events", np.array([[2**24, 2], [1, 0]], np.float32)), {},
                "events must be < 16777216, up to where float32"),
    "text": (spoiled("events", np.array([["3", "2"]])), {}, "events must be numbers"),
    "no batch": (spoiled("events", np.array([3, 2])), {}, r"events must be \[B, \*N\]"),
    "another sum": (spoiled("nonzero", np.array([5, 2])), {}, "must add up to nonzero, 7, got 6"),
    "too few steps": (GOOD, {"num_steps": 1}, "at most|more than num_steps"),
    "no key": ({"output": GOOD["output"]}, {}, "activity must have the keys"),
    "no output": ({"a/kernel": GOOD["a/kernel"]}, {}, "activity must have the keys"),
    "another key": (GOOD | {"b/kernel": GOOD["output"]}, {}, "activity must have the keys"),
    "another width": (trains([[1, 1, 1]]), {"input_shape": (3,)}, "a/kernel: activity must be of"),
    "another output": (trains([[1, 1]], outputs=3), {}, "next signal must be of its 2 outputs"),
    "another shape": (GOOD, {"input_shape": (2, 1)}, "input_shape must be that of the activity"),
    "no mapping": ([GOOD], {}, "activity must be a dict"),
    "no count": (GOOD | {"a/kernel": 3}, {}, "a SpikeCount is needed, got int"),
    "no steps": (GOOD, {"num_steps": 0}, "num_steps must be >= 1"),
    "no samples": (GOOD, {"samples": 0}, "samples must be >= 1"),
    "coding": (GOOD, {"coding": "none"}, "coding must be one of"),
    "analog": (GOOD, {"analog": ("c/kernel",)}, "analog must be among"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_line(case):
    activity, options, message = BAD[case]
    model, variables = tiny([[1, 2], [0, 3]])
    options = {"num_steps": 4, "input_shape": (2,)} | options
    with pytest.raises(ValueError, match=f"^count_layers.*{message}") as caught:
        count_layers(model, variables, activity, **options)
    assert "\n" not in str(caught.value)


def test_variables_of_another_model_are_refused():
    model, variables = tiny([[1, 2], [0, 3]])
    with pytest.raises(ValueError, match="^count_layers: variables must be of this model"):
        count_layers(model, {"params": {"b": variables}}, GOOD, num_steps=4, input_shape=(2,))


TOKENS = TokenSpikes(*(np.full((2, 3), n) for n in (3, 9, 5, 0)), np.ones((2, 3)))
BAD_TOKENS = {
    "binary": (TOKENS, {"coding": "binary"}, "coding of tokens must be unary or bitwise"),
    "order": (TOKENS._replace(unary=np.full((2, 3), 4)), {}, "active <= bit_plane <= unary"),
    "channels": (TOKENS, {"samples": 4}, "active must be <= tokens . channels = 16"),
    "NaN": (TOKENS._replace(active=np.full((2, 3), np.nan)), {}, "active must be finite"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_bad_tokens_are_refused(case):
    count, options, message = BAD_TOKENS[case]
    model, variables = tiny_reader(np.ones((4, 2)))
    with pytest.raises(ValueError, match=f"^count_layers: a/kernel: {message}"):
        count_layers(model, variables, {"a/kernel": count}, **{"coding": "unary"} | options)

"""NeuroBench's view: its own counts on drawn networks, cases worked out by hand, and its laws.

``golden/neurobench.json`` holds what NeuroBench counted (benchmarks/peers/neurobench_golden.py).
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_forward import connections, run
from drawn_networks import checksum, draw, draw_tensors

from fastsnn_jax.energy.neurobench import (
    Connection,
    SynapticOperations,
    connection_sparsity,
    neurobench,
    synaptic_operations,
)
from fastsnn_jax.energy.recurrent_cells import Cell

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("neurobench.json").read_text())
NETWORKS = GOLDEN["networks"]
NAMES = ("Effective_MACs", "Effective_ACs", "Dense")


def dense(*shape, zeros=0):
    """A dense connection [M, N] of ones, but for its first ``zeros`` weights."""
    weight = np.ones(shape, np.float32)
    weight.flat[:zeros] = 0
    return Connection(jnp.matmul, weight)


def per_sample(connection, signal, quirks=None):
    """MACs, ACs and dense operations per sample."""
    counts = neurobench({"it": connection}, {"it": signal}, quirks=quirks)["SynapticOperations"]
    return tuple(counts[name] for name in NAMES)


# NeuroBench's own counts


def test_the_golden_networks_have_everything_that_is_to_be_counted_alike():
    assert GOLDEN["versions"]["neurobench"] == "2.3.0" and len(NETWORKS) >= 40
    layers = [layer for network in NETWORKS for layer in network["layers"]]
    convolutions = [layer for layer in layers if layer["op"] == "conv"]
    assert {layer["op"] for layer in layers} == {
        "linear", "conv", "pool", "flatten", "relu", "leaky", "again", "wired", "rnn", "gru", "lstm"
    }
    for name, values in {
        "kernel": {1, 2, 3}, "stride": {1, 2}, "dilation": {1, 2},
    }.items():
        assert {size for layer in convolutions for size in layer[name]} == values
    assert {layer["mode"] for layer in convolutions} == {
        "zeros", "reflect", "circular", "replicate"
    }
    assert {layer["groups"] for layer in convolutions} == {1, 2}
    assert {len(layer["kernel"]) for layer in convolutions} == {1, 2}
    assert {layer["padding"] == "same" for layer in convolutions} == {True, False}
    assert {layer["kind"] for layer in layers if layer["op"] == "pool"} == {"avg", "max"}
    assert {layer["stated"] for layer in layers if layer["op"] == "rnn"} == {True, False}
    options = [(layer["bias"], layer["pruned"] > 0) for layer in layers if layer["op"] == "linear"]
    assert {*options} == {(True, True), (True, False), (False, True), (False, False)}
    assert {network["signal"] for network in NETWORKS} == {
        "binary", "ternary", "graded", "mixed", "alternating"
    }
    assert {len(network["batches"]) for network in NETWORKS} == {1, 2}
    assert max(network["counts"]["Dense"] for network in NETWORKS) < 2**24


@pytest.mark.parametrize(
    "network", [pytest.param(net, id=f"{net['seed']}-{net['family']}") for net in NETWORKS]
)
def test_counts_are_neurobenchs_to_the_last_operation(network):
    expected, drawn = network["counts"], draw(network["seed"])
    assert network == drawn | {name: network[name] for name in ("checksum", "counts")}
    weights, inputs = draw_tensors(network)
    assert checksum(weights, inputs) == network["checksum"], "the tensors are not those counted"
    layers = connections(network, weights)
    variables = {str(i): weights[i] for i in layers}
    total, updates, sparsities = None, 0, []
    for batch in np.split(inputs, np.cumsum(network["batches"])[:-1], axis=1):
        signals, activations, membranes = run(network, weights, batch)
        operations = synaptic_operations(layers, signals, quirks="2.3.0")
        total = operations if total is None else total + operations
        metrics = neurobench(
            layers, signals, variables=variables, activations=activations, membranes=membranes,
            quirks="2.3.0",
        )
        updates += round(metrics["MembraneUpdates"] * batch.shape[1])
        sparsities.append(metrics["ActivationSparsity"])
    assert (total.macs, total.acs, total.dense) == tuple(expected[name] for name in NAMES)
    assert metrics["ConnectionSparsity"] == expected["ConnectionSparsity"]
    assert updates == (expected["MembraneUpdates"] or 0)
    assert sparsities == (expected["ActivationSparsity"] or [0.0] * len(sparsities))
    assert metrics["Footprint"] == expected["Footprint"] or expected["Footprint"] is None
    assert expected["samples"] == sum(network["batches"])


# What a call is


SPIKES = np.tile(np.array([1, 0, 1, 1, -1, 0, 1, 1], np.float32), (1, 1, 1))
VALUES = SPIKES * np.float32(0.5)


def test_a_call_is_acs_where_all_of_its_inputs_are_spikes_and_else_macs():
    assert per_sample(dense(4, 8), SPIKES) == (0, 24, 32)
    assert per_sample(dense(4, 8), VALUES) == (24, 0, 32)
    assert per_sample(dense(4, 8), 2 * np.abs(SPIKES)) == (24, 0, 32)
    assert per_sample(dense(4, 8), 0 * SPIKES) == (0, 0, 32)


def test_one_analog_sample_makes_macs_of_a_whole_batch_but_not_in_the_strict_split():
    both = np.concatenate([SPIKES, VALUES], axis=1)
    metrics = neurobench({"it": dense(4, 8)}, {"it": both})
    assert metrics["SynapticOperations"] == {
        "Effective_MACs": 24, "Effective_ACs": 0, "Dense": 32
    }
    assert metrics["StrictSynapticOperations"] == {"Effective_MACs": 12, "Effective_ACs": 12}


def test_time_steps_are_calls_of_their_own():
    assert per_sample(dense(4, 8), np.concatenate([SPIKES, VALUES])) == (24, 24, 64)


def test_zero_weights_are_no_operations_but_are_dense_ones():
    connection = dense(4, 8, zeros=24)  # of the last output alone are the weights not zero
    assert per_sample(connection, np.ones_like(SPIKES)) == (0, 8, 32)
    assert connection_sparsity({"it": connection}) == 0.75


def convolution(padding=0, mode="constant", **options):
    def apply(weight, x):
        x = jnp.pad(x, [(0, 0), (padding, padding), (padding, padding)], mode=mode)
        return jax.lax.conv_general_dilated(
            x[None], weight, options.get("stride", (1, 1)), "VALID",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=options.get("groups", 1),
        )[0]

    return apply


def test_padding_with_zeros_is_no_operation_and_mirrored_inputs_are():
    weight, ones = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 2, 1, 4, 4), np.float32)
    # Along an axis of 4 with a border of 1, windows of 3 lie on 2, 3, 3 and 2 inputs.
    assert per_sample(Connection(convolution(1), weight), ones) == (0, 10**2, 10**2)
    assert per_sample(Connection(convolution(1, "reflect"), weight), ones) == (0, 12**2, 12**2)


def test_stride_and_groups_are_those_of_the_convolution():
    weight = np.ones((8, 2, 3, 3), np.float32)
    connection = Connection(convolution(1, stride=(2, 2), groups=2), weight)
    ones = np.ones((1, 1, 4, 5, 5), np.float32)
    # Windows of 3 at every second of 5 lie on 2, 3 and 2 inputs: 7 along each axis.
    assert per_sample(connection, ones) == (0, 7 * 7 * 2 * 8, 7 * 7 * 2 * 8)


# Cells: N = 6 inputs, M = 3 units


def cell(kind, bias=True):
    rows = 3 * {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    biases = (np.ones(rows), np.ones(rows)) if bias else ()
    return Cell(kind, np.ones((rows, 6)), np.ones((rows, 3)), *biases)


X, H, ZERO = np.full((1, 4, 6), 0.5), np.full((1, 4, 3), 0.25), np.zeros((1, 4, 3))
# Synapses gates * 3 * (6 + 3), then the gates' products: f*c, i*g, o*c and r*n, (1-z)*n, z*h.
FULL = {"rnn": 27, "gru": 81 + 9, "lstm": 108 + 9}
AT_REST = {"rnn": 18, "gru": 54 + 6, "lstm": 72 + 6}


@pytest.mark.parametrize("kind", FULL)
def test_a_cell_costs_its_synapses_and_the_products_of_its_gates(kind):
    def state(h):
        return (h, h) if kind == "lstm" else h

    assert per_sample(cell(kind), (X, state(H))) == (FULL[kind], 0, FULL[kind])
    assert per_sample(cell(kind), (X, state(ZERO))) == (AT_REST[kind], 0, FULL[kind])
    assert per_sample(cell(kind), (X,)) == (AT_REST[kind], 0, FULL[kind])
    assert per_sample(cell(kind), (np.ones_like(X), state(H))) == (0, FULL[kind], FULL[kind])


def test_quirks_count_one_row_of_a_stateless_rnn_and_the_zeros_of_an_lstm():
    assert per_sample(cell("rnn"), (X,), "2.3.0") == (4.5, 0, 4.5)
    assert per_sample(cell("lstm"), (X, (ZERO, ZERO)), "2.3.0") == (78, 0, 78)
    assert per_sample(cell("gru"), (X, ZERO), "2.3.0") == (60, 0, 90)


def test_quirks_round_the_sparsity_of_connections():
    third = {"it": dense(1, 3, zeros=1)}
    assert connection_sparsity(third) == 1 / 3
    assert connection_sparsity(third, quirks="2.3.0") == 0.3333


@pytest.mark.parametrize("kind, signal", [("gru", (X,)), ("lstm", (X,)), ("gru bare", (X, H))])
def test_quirks_refuse_what_neurobench_cannot_count(kind, signal):
    it = cell(kind.split()[0], bias="bare" not in kind)
    with pytest.raises(ValueError, match="NeuroBench 2.3.0 needs a state"):
        per_sample(it, signal, "2.3.0")


# Laws


def random_signals(*shape):
    random = np.random.default_rng(1)
    return random.choice([-1.0, -0.5, 0.0, 0.0, 1.0, 2.0], shape).astype(np.float32)


LAWS = {
    "dense": (dense(4, 7, zeros=9), random_signals(3, 5, 7)),
    "convolution": (Connection(convolution(2), np.ones((2, 3, 3, 2), np.float32)),
                    random_signals(2, 5, 3, 4, 3)),
    "lstm": (cell("lstm"), (random_signals(3, 5, 6),
                            (random_signals(3, 5, 3), random_signals(3, 5, 3)))),
    "rnn": (cell("rnn"), (random_signals(3, 5, 6),)),
}
over_laws = pytest.mark.parametrize("name", LAWS)


def of_samples(signal, samples):
    return jax.tree.map(lambda leaf: leaf[:, samples], signal)


@over_laws
def test_the_strict_split_is_that_of_the_samples_one_by_one_and_neurobenchs_is_not(name):
    connection, signal = LAWS[name]
    whole, *parts = (
        synaptic_operations({"it": connection}, {"it": of_samples(signal, samples)})
        for samples in (slice(None), *([i] for i in range(5)))
    )
    alone = sum(parts[1:], parts[0])
    assert (whole.strict_macs, whole.strict_acs) == (alone.strict_macs, alone.strict_acs)
    assert whole.dense == alone.dense
    assert whole.strict_acs > 0 and whole.strict_macs > 0
    assert whole.macs + whole.acs == whole.strict_macs + whole.strict_acs


def test_neurobenchs_split_depends_on_what_is_in_the_batch():
    signal = np.concatenate([SPIKES, VALUES], axis=1)
    apart = [per_sample(dense(4, 8), of_samples(signal, [i])) for i in range(2)]
    assert np.mean(apart, axis=0).tolist() == [12, 12, 32]
    assert per_sample(dense(4, 8), signal) == (24, 0, 32)


@over_laws
def test_quirks_leave_the_strict_split_alone(name):
    connection, signal = LAWS[name]
    plain, quirky = (
        neurobench({"it": connection}, {"it": signal}, quirks=quirks) for quirks in (None, "2.3.0")
    )
    assert quirky["StrictSynapticOperations"] == plain["StrictSynapticOperations"]


def test_counts_beyond_float32_are_exact():
    ones = np.ones((3, 2, 4099), np.float32)
    metrics = synaptic_operations({"it": dense(4099, 4099)}, {"it": ones})
    assert metrics == SynapticOperations(0, 6 * 4099**2, 6 * 4099**2, 0, 6 * 4099**2)


def test_membranes_are_updated_at_first_and_then_where_they_change():
    v = np.array([[[0.0, 1.0, 2.0]], [[0.0, 1.5, 2.0]], [[0.5, 1.5, 1.0]]])
    metrics = neurobench({"it": dense(4, 8)}, {"it": SPIKES}, membranes={"a": v, "b": v[:1]})
    assert metrics["MembraneUpdates"] == (3 + 1 + 2) + 3
    assert metrics["ActivationSparsity"] is metrics["Footprint"] is None


def test_activations_are_pooled_and_the_footprint_is_bytes():
    activations = {"a": np.eye(4).reshape(2, 1, 8), "b": np.ones((1, 1, 4))}
    variables = {"a": jnp.ones((3, 2)), "b": [jnp.ones(5, jnp.int8)]}
    metrics = neurobench(
        {"it": dense(4, 8)}, {"it": SPIKES}, activations=activations, variables=variables
    )
    assert metrics["ActivationSparsity"] == 12 / 20 and metrics["Footprint"] == 24 + 5


BAD = {
    "no connections": (({}, {}), {}, "there must be connections"),
    "other names": (({"it": dense(4, 8)}, {"that": SPIKES}), {}, r"signals of \['it'\]"),
    "other quirks": (({"it": dense(4, 8)}, {"it": SPIKES}), {"quirks": "2.2"}, "quirks must be"),
    "not finite": (({"it": dense(4, 8)}, {"it": SPIKES * np.nan}), {}, "it: signals must be fin"),
    "no batch": (({"it": dense(4, 8)}, {"it": SPIKES[0]}), {}, "it: signals must be .T, B, .N."),
    "other width": (({"it": dense(4, 8)}, {"it": SPIKES[..., :3]}), {}, "it: signals must be"),
    "other batch": (({"it": dense(4, 8)}, {"it": SPIKES}), {"membranes": {"a": np.ones((1, 3, 2))}},
                    "all signals must be of one batch"),
    "a cell's array": (({"it": cell("rnn")}, {"it": X}), {}, "must be a tuple"),
    "a cell's width": (({"it": cell("rnn")}, {"it": (H,)}), {}, "rnn cell: inputs must be"),
    "a cell's states": (({"it": cell("lstm")}, {"it": (X, H)}), {}, "there must be 2 states"),
    "a cell's weights": (({"it": Cell("gru", np.ones((4, 6)), np.ones((4, 3)))}, {"it": (X,)}), {},
                         "gru cell: weights must be"),
    "a cell's kind": (({"it": cell("rnn")._replace(kind="ltc")}, {"it": (X,)}), {},
                      "kind must be one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_counted_is_refused_in_a_line(case):
    arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        neurobench(*arguments, **options)
    assert "\n" not in str(caught.value)

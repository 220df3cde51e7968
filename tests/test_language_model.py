"""Language models: causal, decoded as they are trained, counted as they spike."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from lm_helpers import (
    ATTENTIONS,
    B,
    L,
    coding_of,
    counts_by_numpy,
    in_pieces,
    model_of,
    named_leaves,
    reader,
    relative_difference,
    rows,
    small,
    tokens_of,
    twin,
    variables_of,
    whole,
)
from test_model_programs import program

import fastsnn_jax as fs
from fastsnn_jax.nn import projection

# Causality


@cache
def pulled(config):
    """Jitted logits, and their pull-back to arrays that stand for the embedded tokens."""
    model = model_of(config)

    def logits(embedded, variables):
        def embed(call, args, kwargs, context):
            out = call(*args, **kwargs)
            return embedded if isinstance(context.module, nn.Embed) else out

        with nn.intercept_methods(embed):
            return model.apply(variables, jnp.zeros(embedded.shape[:2], jnp.int32))[0]

    @jax.jit
    def run(variables, embedded, cotangent):
        out, pull = jax.vjp(lambda x: logits(x, variables), embedded)
        return out, pull(cotangent)[0]

    return lambda *arguments: jax.tree.map(np.asarray, run(variables_of(config), *arguments))


@rows(among=ATTENTIONS)
@pytest.mark.parametrize("spiking", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_logits_have_no_gradient_by_later_tokens_or_other_sequences(config, spiking):
    config = config if spiking else twin(config)
    random = np.random.default_rng(2)
    x = random.normal(size=(B, L, config.d_model)).astype(np.float32)
    for t in (0, 6, L - 2):
        weight = np.zeros((B, L, config.vocab_size), np.float32)
        weight[1, t] = random.normal(size=config.vocab_size)
        logits, gradient = pulled(config)(x, weight)
        assert not gradient[1, t + 1 :].any() and not gradient[[0, 2, 3, 4]].any()
        assert gradient[1, t].any() and (t == 0 or gradient[1, :t].any())
        other = x.copy()
        other[:, t + 1] *= -3
        changed, _ = pulled(config)(other, weight)
        np.testing.assert_array_equal(changed[:, : t + 1], logits[:, : t + 1])
        assert (changed[:, t + 1] != logits[:, t + 1]).any(-1).all()


@rows()
def test_a_token_changes_no_logits_before_it(config):
    logits, activity = jax.tree.map(np.asarray, whole(config)[:2])
    for t in (1, 7, L - 1):
        tokens = np.array(tokens_of(config))
        tokens[:, t] = (tokens[:, t] + 1) % config.vocab_size
        _, changed, counts, _ = reader(config)(variables_of(config), None, tokens, {}, False)
        changed = np.asarray(changed)
        np.testing.assert_array_equal(changed[:, :t], logits[:, :t])
        assert (changed[:, t] != logits[:, t]).any(-1).all()
        for before, after in zip(*map(jax.tree.leaves, (activity, counts)), strict=True):
            after = np.asarray(after)
            np.testing.assert_array_equal(before[:, :t], after[:, :t])


# Decoding


def saved_and_restored(folder):
    """A function that sends a cache through a checkpoint."""
    checkpoints = fs.Checkpoints(folder)

    def between(cache):
        checkpoints.save({"cache": cache}, {})
        return checkpoints.restore({"cache": cache}).items["cache"]

    return between


@rows(among=ATTENTIONS)
def test_without_spikes_decoding_gives_the_logits_of_the_whole(config, tmp_path):
    logits, activity = in_pieces(twin(config), between=saved_and_restored(tmp_path))[:2]
    assert activity == {} and logits.dtype == jnp.float32
    assert relative_difference(logits, whole(twin(config))[0]).max() <= 1e-5


def mismatches(config, heard, expected):
    """Entries of all codings, those whose counts differ, and the farthest of these from a tie."""
    entries, distances = 0, []
    for name, (potential, spikes) in expected.items():
        differs = np.asarray(spikes.data) != np.asarray(heard[name][1].data)
        entries += differs.size
        distances += counts_by_numpy(config, name, potential)[1][differs].tolist()
    return entries, len(distances), max(distances, default=0.0)


@rows()
def test_every_coding_decodes_to_the_counts_of_the_whole_given_the_same_before_it(config):
    logits, activity, heard = whole(config)
    decoded, counts, heard_in_pieces = in_pieces(config, force=True)
    entries, different, from_tie = mismatches(config, heard_in_pieces, heard)
    assert entries > 9_000 and different <= 1 and from_tie <= 1e-5
    assert relative_difference(decoded, logits).max() <= 1e-5
    assert {leaf.shape for count in counts.values() for leaf in count} == {(B, L)}


@rows()
def test_with_spikes_decoding_gives_the_logits_of_the_whole(config):
    logits, decoded = whole(config)[0], in_pieces(config)[0]
    assert np.median(relative_difference(decoded, logits)) <= 1e-5
    assert (decoded.argmax(-1) == logits.argmax(-1)).mean() >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["interleaved"])
def test_over_millions_of_counts_decoding_token_by_token_keeps_to_the_whole(name):
    config = dataclasses.replace(ATTENTIONS[name], d_model=64, head_dim=16, d_ff=128, window=32)
    length, batch = 512, 16
    logits, _, heard = whole(config, length, batch)
    cuts = (0, 37, *range(38, length + 1))
    decoded, _, heard_in_pieces = in_pieces(config, cuts=cuts, batch=batch, force=True)
    entries, different, from_tie = mismatches(config, heard_in_pieces, heard)
    print(f"{name}: {entries} counts, {different} differ, at most {from_tie:.1e} from a tie")
    assert entries > 4e6 and different <= 1e-6 * entries and from_tie <= 1e-5
    assert relative_difference(decoded, logits).max() <= 1e-5
    decoded = in_pieces(config, cuts=cuts, batch=batch)[0]
    assert np.median(relative_difference(decoded, logits)) <= 1e-5
    assert (decoded.argmax(-1) == np.asarray(logits).argmax(-1)).mean() >= 0.99


# What is counted


@rows()
def test_counts_are_potentials_over_thresholds_and_activity_counts_their_spikes(config):
    _, activity, heard = whole(config)
    spikes = {}
    for name, (potential, given) in heard.items():
        counts, from_tie = counts_by_numpy(config, name, potential)
        clear = from_tie > 1e-4
        assert clear.mean() > 0.99 and counts.any()
        np.testing.assert_array_equal(np.asarray(given.data)[clear], counts[clear], err_msg=name)
        spikes[name] = np.abs(np.asarray(given.data)).astype(np.int64)
    for key, count in activity.items():
        size = spikes[coding_of(key)]
        np.testing.assert_array_equal(count.active, (size > 0).sum(-1), err_msg=key)
        np.testing.assert_array_equal(count.unary, size.sum(-1), err_msg=key)
        np.testing.assert_array_equal(count.bit_plane, np.bitwise_count(size).sum(-1), err_msg=key)


def test_counts_beyond_the_limit_are_clipped_and_counted():
    config = small("linear", n_layers=1, k=90.0)
    _, activity, heard = whole(config)
    for key, count in activity.items():
        potential, given = heard[coding_of(key)]
        x = np.asarray(potential, np.float64)
        ratio = x / (np.abs(x).mean(-1, keepdims=True) / config.k)
        beyond = np.rint(ratio) > 127 if "down" in key else np.abs(np.rint(ratio)) > 127
        assert beyond.any() and np.abs(given.data).max() == 127
        np.testing.assert_array_equal(count.saturated, beyond.sum(-1))


@cache
def shapes_of(config):
    """Shapes of the parameters, and of what the model returns, by path."""
    model, tokens = model_of(config), jax.ShapeDtypeStruct((2, 7), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    logits, activity = jax.eval_shape(model.apply, variables, tokens)
    parameters = {name.removeprefix("params/"): leaf.shape
                  for name, leaf in named_leaves(variables).items()}
    return parameters, logits, activity


heads = pytest.mark.parametrize("spiking_head", [False, True])


@rows()
@heads
def test_every_projection_reads_spikes_and_is_counted_by_the_path_of_its_kernel(
    config, spiking_head
):
    config = dataclasses.replace(config, spiking_lm_head=spiking_head)
    parameters, logits, activity = shapes_of(config)
    kernels = {name for name in parameters if name.endswith("/kernel") and "blocks_" in name}
    assert len(kernels) >= 2 * 6  # a layer has at least q, k, v, output and an FFN
    head = "embed/embedding" if config.tie_lm_head else "lm_head/kernel"
    assert set(activity) == kernels | ({head} if spiking_head else set())
    assert logits.shape == (2, 7, 29) and logits.dtype == jnp.float32
    assert {leaf.shape for leaf in jax.tree.leaves(activity)} == {(2, 7)}


@rows()
def test_the_twin_has_the_same_parameters_but_those_of_neurons_and_counts_nothing(config):
    parameters, _, _ = shapes_of(config)
    of_twin, _, activity = shapes_of(twin(config))
    neurons = {name for name in parameters if name.endswith("/log_threshold")}
    assert bool(neurons) == (config.neuron == "lif_sint") and activity == {}
    assert of_twin == {name: parameters[name] for name in parameters.keys() - neurons}


@rows()
def test_kernels_are_grouped_by_the_coding_they_read(config):
    groups = model_of(config).input_groups()
    _, _, activity = shapes_of(config)
    assert sorted(key for group in groups for key in group) == sorted(activity)
    codings = {coding_of(key) for key in activity}
    assert len(groups) == len(codings)
    assert all(len({coding_of(key) for key in group}) == 1 for group in groups)


@rows()
def test_kernels_of_a_group_have_the_same_counts_and_no_two_groups_do(config):
    _, activity, _ = whole(config)
    groups = model_of(config).input_groups()
    counts = [{str(jax.tree.map(np.ndarray.tolist, jax.device_get(activity[key])))
               for key in group} for group in groups]
    assert all(len(alike) == 1 for alike in counts)
    assert len(set().union(*counts)) == len(groups)


@pytest.mark.parametrize("tied", [True, False])
def test_synapses_are_the_kernels_as_linear_maps(tied):
    config = small("linear", n_layers=1, spiking_lm_head=True, tie_lm_head=tied)
    variables = variables_of(config)
    leaves = named_leaves(variables["params"])
    synapses = model_of(config).synapses(variables)
    assert set(synapses) == set(shapes_of(config)[2])
    for key, synapse in synapses.items():
        kernel = leaves[key].T if key == "embed/embedding" else leaves[key]
        row = jnp.eye(len(kernel))[3]
        np.testing.assert_array_equal(synapse(row), kernel[3], err_msg=key)
        x = jnp.arange(1.0, 1 + len(kernel))
        np.testing.assert_allclose(synapse(x), np.asarray(x) @ kernel, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "differentiate", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["values", "gradient"]
)
def test_dropping_activity_leaves_the_program_of_a_model_that_counts_nothing(
    monkeypatch, differentiate
):
    config = small("sliding", n_layers=1, spiking_lm_head=True)
    model, variables, tokens = model_of(config), variables_of(config), tokens_of(config)

    def compiled(counting=False):
        def logits(variables):
            outputs = model.apply(variables, tokens)
            return outputs if counting else outputs[0]

        if differentiate and not counting:
            return program(jax.grad(lambda variables: (logits(variables) ** 2).sum()), variables)
        return program(logits, variables)

    dropping, counting = compiled(), compiled(counting=True)
    monkeypatch.setattr(projection, "count_tokens", lambda spikes, tally: None)
    assert "ENTRY" in dropping and dropping == compiled()
    assert counting != dropping

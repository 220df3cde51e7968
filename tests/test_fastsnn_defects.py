"""What went wrong in the language model of FastSNN and does not here, one test each."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_helpers import (
    B,
    L,
    in_pieces,
    model_of,
    named_leaves,
    random_parameters,
    reader,
    relative_difference,
    small,
    tokens_of,
    variables_of,
    whole,
)

from fastsnn_jax.nn import LinearAttention

ONE_LAYER = small("linear", n_layers=1)
SLIDING = small("sliding", n_layers=1, spiking=False)


def logits_of(config, tokens):
    """Logits as NumPy, of as many sequences of as many tokens as the others have."""
    return np.asarray(reader(config)(variables_of(config), None, jnp.asarray(tokens), {}, False)[1])


def arrays_in(jaxpr):
    """Shapes of all arrays that a program computes, those of its loops and functions included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")
        ):
            if hasattr(inner, "jaxpr"):
                yield from arrays_in(inner.jaxpr)
            elif hasattr(inner, "eqns"):
                yield from arrays_in(inner)


def largest_array(config, length):
    """Elements of the largest array in the program of one sequence."""
    model = model_of(config)
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    traced = jax.make_jaxpr(lambda tokens: model.apply(variables_of(config), tokens)[0])(tokens)
    return max(math.prod(shape) for shape in arrays_in(traced.jaxpr))


# Correctness


def test_1_no_position_sees_the_future():
    tokens = np.array(tokens_of(ONE_LAYER))
    tokens[:, 8:] = (tokens[:, 8:] + 5) % 29
    before, after = np.asarray(whole(ONE_LAYER)[0]), logits_of(ONE_LAYER, tokens)
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert (before[:, 8:] != after[:, 8:]).any(-1).all()


def test_2_the_output_of_the_ffn_differs_from_position_to_position():
    _, spikes = whole(ONE_LAYER)[2]["blocks_0/ffn/coding"]
    down = named_leaves(variables_of(ONE_LAYER))["params/blocks_0/ffn/down/kernel"]
    output = np.asarray(spikes.value()) @ np.asarray(down)
    assert np.abs(np.diff(output, axis=1)).max(-1).min() > 1e-3


def test_3_counts_do_not_grow_with_the_length_of_the_sequence():
    alike = jnp.full((B, L), 7, jnp.int32)
    _, _, activity, _ = reader(ONE_LAYER)(variables_of(ONE_LAYER), None, alike, {}, False)
    for key, count in activity.items():
        counts = np.asarray(count.unary)  # the first is that of a sequence of one token
        np.testing.assert_allclose(counts, counts[:, :1].repeat(L, axis=1), atol=1, err_msg=key)
        assert counts.min() > 10


@pytest.mark.parametrize("kind", ["sliding", "hybrid_alt", "interleaved"])
def test_4_every_kind_of_attention_is_built_and_runs(kind):
    config = small(kind)
    model, tokens = model_of(config), jax.ShapeDtypeStruct((2, 7), jnp.int32)
    logits, activity = jax.eval_shape(model.apply, variables_of(config), tokens)
    assert logits.shape == (2, 7, 29) and len(activity) >= 2 * 6


def test_9_a_window_of_w_is_w_keys():
    t, reached = 8, []
    before = np.asarray(whole(SLIDING)[0])[:, t]
    for position in range(L):
        tokens = np.array(tokens_of(SLIDING))
        tokens[:, position] = (tokens[:, position] + 1) % 29
        if (logits_of(SLIDING, tokens)[:, t] != before).any(-1).all():
            reached.append(position)
    assert SLIDING.window == 3 and reached == [6, 7, 8]


def test_10_a_step_of_many_tokens_reads_them_all():
    model, variables = model_of(SLIDING), variables_of(SLIDING)
    tokens = tokens_of(SLIDING)[:, :5]
    cache, logits, _, _ = reader(SLIDING)(variables, model.init_cache(B, L), tokens, {}, False)
    assert int(cache[0].position) == 5
    assert relative_difference(logits, whole(SLIDING)[0][:, :5]).max() <= 1e-5


@pytest.mark.parametrize("config", [
    SLIDING, pytest.param(small("hybrid_alt", spiking=False), marks=pytest.mark.slow)
], ids=["sliding", "hybrid"])
def test_11_a_decoded_token_attends_to_the_earlier_ones(config):
    assert relative_difference(in_pieces(config)[0], whole(config)[0]).max() <= 1e-5


def test_12_every_layer_keeps_a_state_of_its_own():
    config = small("linear", spiking=False)
    model, variables = model_of(config), variables_of(config)
    before = model.init_cache(B, L)
    busy = jax.tree.map(lambda leaf: leaf + 1.0, before[0])
    prefill = reader(config)
    first, *_ = prefill(variables, before, tokens_of(config), {}, False)
    other, *_ = prefill(variables, (before[0], busy), tokens_of(config), {}, False)
    np.testing.assert_array_equal(first[0].kv, other[0].kv)
    np.testing.assert_allclose(other[1].kv - first[1].kv, np.ones(first[1].kv.shape), atol=1e-4)
    assert not np.allclose(first[0].kv, first[1].kv, atol=0.1)


def test_13_positions_are_known():
    tokens = np.array(tokens_of(SLIDING))
    tokens[:, :2] = [3, 4]
    swapped = tokens.copy()
    swapped[:, :2] = [4, 3]
    before, after = (logits_of(SLIDING, ids)[:, 2] for ids in (tokens, swapped))
    assert relative_difference(after, before).min() > 1e-3


@pytest.mark.parametrize("feature_map, key_of_zero", [("softplus", math.log(2)), ("exp", 1.0)])
def test_14_states_are_float32_and_features_stay_finite(feature_map, key_of_zero):
    layer = LinearAttention(4, 2, 2, 2, feature_map=feature_map, dtype=jnp.bfloat16)
    x = jnp.asarray([[[0.0] * 4] * 3 + [[1e3] * 4, [-1e3] * 4]], jnp.bfloat16)
    variables = random_parameters(jax.eval_shape(layer.init, jax.random.key(0), x))
    before = layer.init_cache(1, 9)._replace(z=jnp.full((1, 2, 2), 1024.0))
    run = jax.jit(lambda x: layer.apply(variables, x, before)[:2])
    after, _ = run(x[:, [0, 1, 2, 2, 2]])  # in bfloat16, the next number above 1024 is 1032
    np.testing.assert_allclose(after.z, np.full((1, 2, 2), 1024 + 5 * key_of_zero), atol=0.02)
    after, y = run(x)
    assert y.dtype == jnp.bfloat16 and jnp.isfinite(y).all() and (y != 0).any()
    assert all(leaf.dtype == jnp.float32 for leaf in after)
    assert jnp.isfinite(after.kv).all() and jnp.isfinite(after.z).all()


def test_15_a_train_of_the_spikes_of_tokens_keeps_tokens_apart_and_their_sum():
    _, spikes = whole(ONE_LAYER)[2]["blocks_0/attention_coding"]
    train = spikes.to_dense(7)
    assert train.data.shape == (7, B, L, spikes.shape[-1]) and not train.saturated.any()
    np.testing.assert_array_equal(train.to_count().data, spikes.data)
    np.testing.assert_array_equal(train.num_events(), spikes.num_events())


# Performance


def test_16_training_keeps_no_state_per_token():
    length, size = 512, 24
    layer = LinearAttention(8, 1, 1, size)
    x = jnp.zeros((1, length, 8))
    variables = random_parameters(jax.eval_shape(layer.init, jax.random.key(0), x))

    def pull(variables, x):
        return jax.vjp(lambda *arguments: layer.apply(*arguments)[1], variables, x)[1]

    kept = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(pull, variables, x)))
    assert kept < length * size * size


@pytest.mark.parametrize("kind", ["interleaved", "parallel_sum"])
def test_17_and_18_no_array_grows_with_the_square_of_the_length(kind):
    config = small(kind)
    assert largest_array(config, 2048) <= 2 * largest_array(config, 1024)
    assert largest_array(config, 2048) < 2048**2 / 4


def test_18_softmax_is_seen_to_grow_with_the_square():
    assert largest_array(small("hybrid_alt"), 1024) >= 4 * 1024**2


@pytest.mark.parametrize("kind", ["linear", "sliding", "interleaved", "parallel_sum"])
def test_18_the_state_of_a_sequence_does_not_grow(kind):
    model = model_of(small(kind))
    short, long = (jax.eval_shape(lambda n=n: model.init_cache(2, n)) for n in (1, 10**6))
    assert jax.tree.leaves(short) == jax.tree.leaves(long)


def test_19_branches_share_the_coding_of_their_input_and_need_no_fusion():
    shared = {"query", "key", "value", "gate"}
    for kind in ("hybrid_alt", "parallel_sum"):
        config = small(kind, n_layers=1)
        groups = model_of(config).input_groups()
        names = sorted(key.split("/")[-2] for key in groups[0])
        assert set(names) == shared and names.count("query") == (3 if kind == "hybrid_alt" else 2)
    mixing = [name for name in named_leaves(variables_of(config)) if "/mix/" in name]
    assert config.attn_kind == "parallel_sum" and mixing == []
    per_layer = model_of(small("interleaved")).kernels(variables_of(small("interleaved")))
    attention = [key for key in per_layer if "/attention/" in key]
    assert len(attention) == 5 + 4  # one attention a layer

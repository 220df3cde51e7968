"""Language models from outside: kinds of the user's own, training, dtypes, dropout, bad input."""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from lm_helpers import (
    ATTENTIONS,
    B,
    L,
    in_pieces,
    model_of,
    named_leaves,
    reader,
    relative_difference,
    small,
    tokens_of,
    twin,
    variables_of,
    whole,
)

import fastsnn_jax as fs
from fastsnn_jax import registry
from fastsnn_jax.nn import Coding, Projection, project

# Kinds of the user's own


class Running(nn.Module):
    """An attention: the sum of the values so far."""

    features: int
    neuron: Any = None

    @nn.compact
    def __call__(self, signal, cache=None):
        (values,), activity = project(signal, [Projection(self.features, name="value")])
        sums = jnp.cumsum(values, axis=1) + (0.0 if cache is None else cache["sum"])
        signal = Coding(self.neuron, name="output_coding")(sums)
        (y,), counted = project(signal, [Projection(self.features, name="output")])
        return None if cache is None else {"sum": sums[:, -1:]}, y, activity | counted

    def init_cache(self, batch, max_len):
        return {"sum": jnp.zeros((batch, 1, self.features))}


class Doubled(nn.Module):
    """An FFN of one projection, without a field for a neuron."""

    features: int
    factor: float

    @nn.compact
    def __call__(self, signal):
        (y,), activity = project(signal, [Projection(self.features, name="only")])
        return self.factor * y, activity


@dataclasses.dataclass(frozen=True)
class Sign:
    """A neuron that fires the sign of its input less a threshold drawn at the start."""

    layer: int

    def init(self, key, shape):
        return {"offset": jax.random.uniform(key, shape)}

    def encode(self, params, x):
        return fs.SpikeTensor.from_count(jnp.sign(x - params["offset"]), coding="ternary")

    def channel_scale(self, params):
        return 1.0 + params["offset"]


KINDS = {
    "attention": lambda config, layer: Running(config.d_model),
    "ffn": lambda config, layer: Doubled(config.d_model, float(layer)),
    "neuron": lambda config, layer: Sign(layer),
}
OWN = dataclasses.replace(small("running"), ffn="doubled", neuron="sign")
NAMES = {"attention": "running", "ffn": "doubled", "neuron": "sign"}


@pytest.fixture(params=["explicit", "global"])
def own_model(request, monkeypatch):
    """A model of the kinds above, through registries of its own or the global ones."""
    shared = {"attention": fs.ATTENTION, "ffn": fs.FFN, "neuron": fs.NEURONS}
    if request.param == "global":
        for kind, entries in shared.items():
            monkeypatch.setattr(entries, "_factories", dict(entries._factories))
            getattr(fs, f"register_{kind}")(NAMES[kind])(KINDS[kind])
        return fs.build_model_from_config(OWN)
    copies = {kind: entries.copy() for kind, entries in shared.items()}
    for kind, entries in copies.items():
        entries.register(NAMES[kind])(KINDS[kind])
    return fs.build_model_from_config(
        OWN, neurons=copies["neuron"], attention=copies["attention"], ffn=copies["ffn"]
    )


def test_kinds_of_the_users_own_make_a_model_that_trains_its_neurons_and_decodes(own_model):
    tokens = tokens_of(OWN, (2, 7))
    variables = jax.jit(own_model.init)(jax.random.key(0), tokens)
    leaves = named_leaves(variables["params"])
    drawn = {name: leaf for name, leaf in leaves.items() if name.endswith("/offset")}
    assert sorted(drawn) == sorted(
        f"blocks_{layer}/{name}/offset" for layer in (0, 1)
        for name in ("attention_coding", "attention/output_coding", "ffn_coding")
    )
    assert len({leaf.tobytes() for leaf in map(np.asarray, drawn.values())}) == len(drawn)

    @jax.jit
    def both_ways(variables):
        logits, activity = own_model.apply(variables, tokens)
        cache, (first, _) = own_model.prefill(
            variables, own_model.init_cache(2, 7), tokens[:, :6]
        )
        _, (last, _) = own_model.decode_step(variables, cache, tokens[:, 6])
        return logits, activity, jnp.concatenate([first, last[:, None]], axis=1)

    logits, activity, decoded = both_ways(variables)
    assert relative_difference(decoded, logits).max() <= 1e-5
    assert set(activity) == {name for name in leaves if name.endswith("/kernel")}
    for count in activity.values():
        np.testing.assert_array_equal(count.active, np.full((2, 7), OWN.d_model))
        np.testing.assert_array_equal(count.unary, count.active)


def test_a_neuron_is_given_to_modules_and_branches_with_a_field_for_it_and_to_no_other():
    ffn = fs.FFN.copy()
    ffn.register("doubled")(KINDS["ffn"])
    config = dataclasses.replace(ATTENTIONS["hybrid_alt"], ffn="doubled")
    for spiking in (True, False):
        config = dataclasses.replace(config, spiking=spiking)
        expected = fs.adaptive_threshold(config.k) if spiking else None
        for layer, block in enumerate(fs.build_model_from_config(config, ffn=ffn).blocks):
            branches = block.attention.branches
            assert len(branches) == (3, 2)[layer]
            assert [m.neuron for m in (block, block.attention, *branches)] == [expected] * (
                3 + len(branches) - 1)
            assert block.ffn == Doubled(config.d_model, float(layer))


@pytest.mark.parametrize("field, kind, known", [
    ("attn_kind", "attention", "hybrid_alt, interleaved, linear, parallel_sum, sliding, softmax"),
    ("ffn", "ffn", "gated, pulse"),
    ("neuron", "neuron", "adaptive_threshold, lif_sint"),
])
@pytest.mark.parametrize("spiking", [True, False])
def test_an_unknown_kind_is_refused_with_the_known_ones(field, kind, known, spiking):
    config = dataclasses.replace(small("linear"), spiking=spiking, **{field: "liner"})
    with pytest.raises(ValueError, match=f"{kind}: name must be one of {known}, got 'liner'"):
        fs.build_model_from_config(config)


def test_the_pulse_ffn_needs_a_neuron_that_can_be_unsigned():
    neurons = fs.NEURONS.copy()
    neurons.register("sign")(KINDS["neuron"])
    model = fs.build_model_from_config(small("linear", neuron="sign"), neurons=neurons)
    with pytest.raises(TypeError, match=r"PulseFFN: neuron must have a field signed, got Sign"):
        jax.eval_shape(model.init, jax.random.key(0), tokens_of(OWN))


@pytest.mark.parametrize("make", [fs.adaptive_threshold, fs.lif_sint])
def test_a_neuron_that_sums_over_the_sequence_is_refused(make):
    neurons = registry.Registry("neuron")
    neurons.register("old")(lambda config, layer: make(legacy_time_collapse=True))
    with pytest.raises(ValueError, match="code each position.*later tokens"):
        fs.build_model_from_config(small("linear", neuron="old"), neurons=neurons)


def test_a_head_that_sums_over_the_sequence_is_refused():
    neurons = registry.Registry("neuron")
    neurons.register("last")(lambda config, layer: fs.adaptive_threshold(
        legacy_time_collapse=layer == config.n_layers))
    with pytest.raises(ValueError, match="code each position.*later tokens"):
        fs.build_model_from_config(
            small("linear", neuron="last", spiking_lm_head=True), neurons=neurons)


def test_a_model_is_built_of_a_configuration_only():
    with pytest.raises(TypeError, match="config must be an SNNConfig, got {'d_model': 8}"):
        fs.build_model_from_config({"d_model": 8})


# The limit, and the precision


@pytest.mark.parametrize("name", [
    "interleaved", pytest.param("hybrid_alt", marks=pytest.mark.slow),
    pytest.param("softmax", marks=pytest.mark.slow),
])
def test_with_counts_that_round_nothing_away_a_model_is_its_twin(name):
    config = dataclasses.replace(ATTENTIONS[name], neuron="fine")
    logits, expected = whole(config)[0], whole(twin(config))[0]
    assert 0 < relative_difference(logits, expected).max() <= 1e-4


def test_half_precision_computes_with_float32_parameters_states_and_logits():
    config = dataclasses.replace(ATTENTIONS["interleaved"], dtype="bfloat16", spiking=False)
    variables, model = variables_of(config), model_of(config)
    created = jax.eval_shape(model.init, jax.random.key(0), tokens_of(config))
    assert {leaf.dtype for leaf in jax.tree.leaves(created)} == {jnp.dtype(jnp.float32)}
    cache, (logits, _) = jax.eval_shape(
        model.prefill, variables, model.init_cache(B, L), tokens_of(config)
    )
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in cache[0]} == {jnp.dtype(jnp.float32)}  # linear
    assert cache[1].k.dtype == cache[1].v.dtype == jnp.bfloat16  # sliding


@pytest.mark.slow
def test_half_precision_is_near_the_whole_one_and_does_not_round_the_logits():
    config = dataclasses.replace(ATTENTIONS["interleaved"], dtype="bfloat16", spiking=False)
    logits, precise = whole(config)[0], whole(dataclasses.replace(config, dtype="float32"))[0]
    assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.9
    assert 1e-4 < relative_difference(logits, precise).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["interleaved", "softmax"])
def test_half_precision_is_finite_and_counts_as_much(name):
    config = dataclasses.replace(ATTENTIONS[name], dtype="bfloat16")
    logits, activity, _ = whole(config)
    assert logits.dtype == jnp.float32 and jnp.isfinite(logits).all()
    for key, count in whole(ATTENTIONS[name])[1].items():
        ratio = activity[key].unary.sum() / count.unary.sum()
        assert abs(ratio - 1) < 0.1, key
    assert jnp.isfinite(in_pieces(config)[0]).all()


# The two programs of the README


@pytest.mark.slow
def test_the_first_program_gives_next_token_logits():
    cfg = fs.SNNConfig(
        vocab_size=2000, d_model=128, n_heads=4, n_layers=2, d_ff=256, attn_kind="hybrid_alt"
    )
    model = fs.build_model_from_config(cfg)
    x = jax.random.randint(jax.random.key(0), (2, 64), 0, cfg.vocab_size)
    variables = model.init(jax.random.key(1), x[:, :-1])
    logits, activity = model.apply(variables, x[:, :-1])
    assert logits.shape == (2, 63, 2000) and jnp.isfinite(logits).all()
    # The head is the embedding, of deviation 0.02, and reads a norm.
    assert float(logits.std()) == pytest.approx(0.02 * 128**0.5, rel=0.05)
    assert len(activity) == 2 * (5 + 4 + 1 + 2) + 4  # two branches, mix and FFN; softmax once


def test_ten_steps_on_one_batch_lower_the_loss():
    config = small("softmax", n_layers=1)
    trainer = fs.Trainer(model_of(config), fs.TrainConfig(max_steps=10, lr=1e-2))
    trainer.fit([np.asarray(tokens_of(config))] * 10)
    assert trainer.history[0] == pytest.approx(np.log(config.vocab_size), rel=0.05)
    assert trainer.history[-1] < 0.9 * trainer.history[0]


# Dropout


def test_dropout_needs_a_key_in_training_only_and_draws_from_it():
    config = small("softmax", n_layers=1, dropout=0.25)
    model, variables, tokens = model_of(config), variables_of(config), tokens_of(config)
    keys = jax.random.split(jax.random.key(0))

    @jax.jit
    def run(key):
        rngs = {"dropout": key}
        return [model.apply(variables, tokens, train=train, rngs=rngs)[0]
                for train in (True, False)]

    (dropped, kept), (others, same) = run(keys[0]), run(keys[1])
    np.testing.assert_array_equal(kept, same)
    assert (dropped != others).any(-1).all() and (dropped != kept).any(-1).all()
    np.testing.assert_array_equal(dropped, run(keys[0])[0])
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(lambda: model.apply(variables, tokens, train=True))
    still = model_of(dataclasses.replace(config, dropout=0.0))
    jax.eval_shape(lambda: still.apply(variables, tokens, train=True))


# What is refused


@pytest.mark.parametrize("tokens, error, message", [
    (np.array([[3, 29]]), ValueError, r"token ids must be in 0\.\.28, got 29; encode the text"),
    (np.array([[-1, 3]]), ValueError, r"in 0\.\.28, got -1"),
    (np.array([[2**32]]), ValueError, r"in 0\.\.28, got 4294967296"),
    (np.array([[1.0, 2.0]]), TypeError, "tokens must be integers, got float"),
    (np.array([[True]]), TypeError, "tokens must be integers, got bool"),
    (np.array([1, 2]), ValueError, r"tokens must be \[B, L\], got \(2,\)"),
    (np.ones((1, 2, 3), int), ValueError, r"tokens must be \[B, L\], got \(1, 2, 3\)"),
    (np.ones((2, 0), int), ValueError, r"there must be tokens, got \(2, 0\)"),
])
def test_what_are_no_tokens_of_the_vocabulary_is_refused(tokens, error, message):
    config = small("linear", n_layers=1)
    model, variables = model_of(config), variables_of(config)
    with pytest.raises(error, match=message):
        model.apply(variables, tokens)
    if tokens.ndim == 2 and tokens.size:
        with pytest.raises(error, match=message):
            model.prefill(variables, model.init_cache(1, 9), tokens)


def test_under_jit_a_foreign_id_gives_nan_in_its_sequence_alone():
    config = ATTENTIONS["interleaved"]
    tokens = np.array(tokens_of(config))
    tokens[1, 4], tokens[3, 0] = 29, -1
    logits = np.asarray(reader(config)(variables_of(config), None, tokens, {}, False)[1])
    assert np.isnan(logits[1, 4]).all() and np.isnan(logits[3, 0]).all()
    np.testing.assert_array_equal(logits[[0, 2, 4]], np.asarray(whole(config)[0])[[0, 2, 4]])


@pytest.mark.parametrize("cache_of, batch, message", [
    ("sliding", B, "cache: it must be of this model"),
    ("linear", B, r"cache: leaves must be of this model and batch, float32\(5, 4, 6, 6\), got "
                  r"float32\(5, 2, 6, 6\); start from model.init_cache"),
    ("interleaved", B + 1, r"got float32\(6, "),
])
def test_a_cache_of_another_model_or_batch_is_refused(cache_of, batch, message):
    caches = {"sliding": small("sliding"), "linear": small("linear", n_kv_heads=2),
              "interleaved": small("interleaved")}
    config = small("interleaved" if cache_of == "interleaved" else "linear")
    model, tokens = model_of(config), tokens_of(config)
    cache = model_of(caches[cache_of]).init_cache(batch, L)
    with pytest.raises(ValueError, match=message):
        model.prefill(variables_of(config), cache, tokens)
    with pytest.raises(ValueError, match=message):
        model.decode_step(variables_of(config), cache, tokens[:, 0])


def test_only_softmax_runs_out_of_room_and_then_says_nan():
    config = small("softmax", n_layers=1, spiking=False)
    model, variables = model_of(config), variables_of(config)
    step = jax.jit(model.decode_step)
    cache, tokens = model.init_cache(2, 2), tokens_of(config, (2, 3))
    finite = []
    for t in range(3):
        cache, (logits, _) = step(variables, cache, tokens[:, t])
        finite.append(bool(jnp.isfinite(logits).all()))
    assert finite == [True, True, False] and jnp.isnan(logits).all()

"""Softmax layers turned into linear and sliding ones: what stays, and how the new parts start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_helpers import model_of, named_leaves, tokens_of, variables_of
from pretrained_models import assert_close, written

from fastsnn_jax import SNNConfig
from fastsnn_jax.nn.attention import half_life_bias
from fastsnn_jax.pretrained import hybridize, load_pretrained, save_pretrained

KEY = jax.random.key(5)
BASE = SNNConfig(vocab_size=29, d_model=12, n_heads=4, n_kv_heads=2, head_dim=4, n_layers=3,
                 d_ff=20, attn_kind="softmax", ffn="gated", spiking=False, qkv_bias=True)


def hybrid(config=BASE, **options):
    return hybridize(config, variables_of(config), key=KEY, **options)


def logits_of(config, variables, tokens):
    return jax.jit(model_of(config).apply)(variables, tokens)[0]


@pytest.mark.slow
def test_sliding_layers_with_room_for_the_text_change_nothing():
    tokens = tokens_of(BASE)
    config, variables = hybrid(attn_kind="sliding", window=tokens.shape[1])
    assert config == dataclasses.replace(
        BASE, attn_kind="sliding", window=12, feature_map="relu", gate="decay", normalizer="rms")
    assert named_leaves(variables).keys() == named_leaves(variables_of(BASE)).keys()
    expected = logits_of(BASE, variables_of(BASE), tokens)
    assert_close(logits_of(config, variables, tokens), expected, 1e-5)
    config, variables = hybrid(attn_kind="sliding", window=3)
    actual = logits_of(config, variables, tokens)
    assert_close(actual[:, :3], expected[:, :3], 1e-5)
    assert np.abs(actual[:, 3:] - expected[:, 3:]).max() > 1e-2


def test_every_weight_stays_and_only_the_gate_and_its_norm_are_new():
    old, (_, variables) = named_leaves(variables_of(BASE)), hybrid()
    new = named_leaves(variables)
    for path, leaf in old.items():
        np.testing.assert_array_equal(new[path], leaf)
    linear = [f"params/blocks_{i}/attention" for i in (0, 2)]
    parts = ("gate_down/kernel", "gate_up/kernel", "gate_bias", "head_norm/scale")
    assert new.keys() - old.keys() == {f"{layer}/{part}" for layer in linear for part in parts}
    bounds = [2**-2.5 * (6 / (12 + 16)) ** 0.5, 2**-2.5 * (6 / (16 + 8)) ** 0.5]
    for layer in linear:
        np.testing.assert_array_equal(new[f"{layer}/head_norm/scale"], np.ones(4))
        for name, bound in zip(("gate_down", "gate_up"), bounds, strict=True):
            kernel = np.abs(new[f"{layer}/{name}/kernel"])
            assert 0.9 * bound < kernel.max() <= bound
    assert (new[f"{linear[0]}/gate_up/kernel"] != new[f"{linear[1]}/gate_up/kernel"]).all()


def test_another_key_draws_other_gates_and_the_same_key_the_same():
    def gate(key):
        _, variables = hybridize(BASE, variables_of(BASE), key=key, attn_kind="linear")
        return np.asarray(variables["params"]["blocks_1"]["attention"]["gate_up"]["kernel"])

    assert (gate(KEY) == gate(jax.random.key(5))).all()
    assert (gate(KEY) != gate(jax.random.key(6))).all()


def test_half_lives_are_those_asked_for():
    _, variables = hybrid(half_lives=(16.0, 4096.0))
    bias = np.asarray(variables["params"]["blocks_0"]["attention"]["gate_bias"], np.float64)
    # logit(2^(-16 / h)) of h = 16, 4096: 0 and 5.91; in between sixth roots of 256 apart.
    np.testing.assert_allclose(bias[[0, 3]], [0, np.log(2**(-1 / 256) / (1 - 2**(-1 / 256)))],
                               atol=1e-5)
    decay = (1 / (1 + np.exp(-bias.reshape(2, 4)))) ** (1 / 16)
    half_lives = 16 * 256 ** (np.arange(4) / 3)
    np.testing.assert_allclose(decay**half_lives, 0.5, rtol=1e-4)


def test_a_half_life_of_16_tokens_is_the_published_start():
    np.testing.assert_allclose(half_life_bias(2, 3, (16.0, 16.0)), np.zeros(6), atol=1e-6)
    decay = jax.nn.sigmoid(half_life_bias(1, 1, (16.0, 16.0))) ** (1 / 16)
    np.testing.assert_allclose(decay, 0.9576, atol=5e-5)


def test_norms_of_queries_and_keys_stay_where_positions_are():
    config = dataclasses.replace(BASE, qk_norm=True)
    _, variables = hybrid(config)
    have = {path.split("/")[1] for path in named_leaves(variables) if "query_norm" in path}
    assert have == {"blocks_1"}


@pytest.mark.parametrize("name, layout", [
    pytest.param("qwen2_yarn", "GLAswaForCausalLM", marks=pytest.mark.slow),
    ("qwen3", "FastSNNForCausalLM"),
])
def test_a_published_model_becomes_a_hybrid_that_is_saved_and_loads_back(tmp_path, name, layout):
    first = load_pretrained(written(tmp_path / "published", name), dtype="bfloat16")
    config, variables = hybridize(first.config, first.variables, key=KEY, window=7)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("bfloat16")}
    directory = save_pretrained(tmp_path / "hybrid", config, variables)
    assert layout in (directory / "config.json").read_text()
    second = load_pretrained(directory)
    assert second.config == config
    jax.tree.map(np.testing.assert_array_equal, second.variables, variables)
    wide = dataclasses.replace(config, dtype="float32")  # which every release runs on CPU
    logits = logits_of(wide, second.variables, jnp.array([[1, 2, 3]]))
    assert np.isfinite(logits).all()


BAD = [
    ("config must have attn_kind 'softmax', got 'linear'", {"attn_kind": "linear"}, {}),
    ("config must be without neurons that learn, got blocks_0/attention/gate_coding/log_threshold",
     {"spiking": True, "neuron": "lif_sint"}, {}),
    ("attn_kind must be one of interleaved, linear, sliding, got 'softmax'", {},
     {"attn_kind": "softmax"}),
    ("window must be >= 1, got 0", {}, {"window": 0}),
    ("half_lives must be > 0.1", {}, {"half_lives": (0.0, 16.0)}),
    ("half_lives must be .* <= 1e", {}, {"half_lives": (16.0, float("inf"))}),
]


@pytest.mark.parametrize("message, fields, options", BAD)
def test_what_cannot_be_done_is_refused(message, fields, options):
    config = dataclasses.replace(BASE, **fields)
    with pytest.raises(ValueError, match=f"^hybridize: {message}"):
        hybridize(config, variables_of(config), key=KEY, **options)


def test_variables_of_another_configuration_are_refused():
    with pytest.raises(ValueError, match="^hybridize: variables must be those of config"):
        hybridize(BASE, variables_of(dataclasses.replace(BASE, d_ff=21)), key=KEY)

"""Models of transformers: the same logits and the same text (benchmarks/peers/transformers_golden).

The golden files hold their config.json, logits and greedy tokens; the weights are drawn again.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_models import NAMES, assert_close, models, written

from fastsnn_jax import generate
from fastsnn_jax.pretrained import load_pretrained
from fastsnn_jax.pretrained.hf_config import config_from_published

every_model = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Loads a model once for all tests of the module."""
    folder, models = tmp_path_factory.mktemp("models"), {}

    def load(name):
        if name not in models:
            models[name] = load_pretrained(written(folder / name, name))
        return models[name]

    return load


def test_the_files_are_small_and_hold_every_class():
    assert {record["config"]["model_type"] for record in models().values()} == {
        "llama", "qwen2", "qwen3"}
    assert all(len(set(record["greedy"])) >= 16 for record in models().values())


@every_model
def test_logits_are_those_of_transformers(name, loaded):
    record, (model, variables, *_) = models()[name], loaded(name)
    logits, activity = jax.jit(model.apply)(variables, jnp.asarray(record["tokens"]))
    assert activity == {} and logits.dtype == jnp.float32
    assert_close(logits, record["logits"])


@pytest.mark.slow
@every_model
def test_64_tokens_by_greedy_choice_are_those_of_transformers(name, loaded):
    record, (model, variables, *_) = models()[name], loaded(name)
    prompt = np.array(record["tokens"][:1])[:, :record["prompt"]]
    tokens = generate(model, variables, prompt, 64).tokens
    np.testing.assert_array_equal(tokens[0], record["greedy"])


@pytest.mark.parametrize("name", [
    "llama", pytest.param("qwen2_window", marks=pytest.mark.slow),
])
def test_prefill_and_decoding_give_the_logits_of_the_whole(name, loaded):
    record, (model, variables, *_) = models()[name], loaded(name)
    tokens = jnp.asarray(record["tokens"])
    cache, (first, _) = model.prefill(variables, model.init_cache(2, 11), tokens[:, :7])
    pieces, step = [first], jax.jit(model.decode_step)
    for t in range(7, 11):
        cache, (logits, _) = step(variables, cache, tokens[:, t])
        pieces.append(logits[:, None])
    assert_close(jnp.concatenate(pieces, 1), record["logits"])


def old_spelling(fields):
    """config.json as transformers 4 writes it."""
    fields = dict(fields)
    rope = dict(fields.pop("rope_parameters"))
    theta, kind = rope.pop("rope_theta"), rope["rope_type"]
    fields |= {"rope_theta": theta, "rope_scaling": None if kind == "default" else rope}
    return fields | {"torch_dtype": fields.pop("dtype")}


@every_model
def test_both_spellings_of_transformers_mean_the_same_configuration(name):
    fields = models()[name]["config"]
    assert "rope_parameters" in fields and "dtype" in fields
    old = old_spelling(fields)
    assert config_from_published(old) == config_from_published(fields)
    if old["rope_scaling"]:
        old["rope_scaling"]["type"] = old["rope_scaling"].pop("rope_type")  # older still
        assert config_from_published(old) == config_from_published(fields)


def test_numbers_that_a_configuration_leaves_out_are_those_of_the_class():
    fields = {key: value for key, value in models()["qwen3"]["config"].items() if key not in (
        "head_dim", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "dtype")}
    config = config_from_published(fields)
    assert (config.size_of_head, config.kv_heads) == (128, 4)
    assert (config.norm_eps, config.rope_theta, config.dtype) == (1e-6, 1e4, "float32")


def test_yarn_gains_follow_from_its_factor_where_they_are_not_given():
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
    fields = models()["qwen2"]["config"] | {"rope_parameters": rope}
    scaling = dict(config_from_published(fields).rope_scaling)
    assert scaling.pop("attention_factor") == pytest.approx(1.1386294, rel=1e-7)
    assert scaling == {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                       "original_max_position_embeddings": 128}
    rope |= {"mscale": 0.5, "mscale_all_dim": 2.0}
    scaling = dict(config_from_published(fields).rope_scaling)
    assert scaling["attention_factor"] == pytest.approx(1.0693147 / 1.2772589, rel=1e-7)
    rope["attention_factor"] = 0.75
    assert dict(config_from_published(fields).rope_scaling)["attention_factor"] == 0.75

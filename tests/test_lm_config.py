"""The configuration of a language-model run: what may stand in it, and what the presets fill in."""

import dataclasses
import json

import pytest

from fastsnn_jax import SNNConfig
from fastsnn_jax.config import read_fields
from fastsnn_jax.models import build_model_from_config
from fastsnn_jax.recipes.lm import LMConfig, preset
from fastsnn_jax.recipes.lm.config import PRESETS

CHANGED = {  # every field, at another value than its default's
    "preset": "smoke", "corpus": "stdlib", "tokenizer": "char",
    "model": SNNConfig(d_model=24, n_heads=3, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "vocab_size": 99, "context": 7, "batch_size": 6, "accumulate": 3, "steps": 5,
    "learning_rate": 0.5, "warmup": 0.0, "weight_decay": 0.0,
    "beta2": 0.5, "clip_norm": None, "ema_decay": 0.9, "spike_weight": 0.25,
    "energy_weight": 0.5, "compare_ann": True, "generate": "text", "sample_tokens": 3, "seed": 11,
}


def test_the_test_of_fields_changes_every_one():
    assert list(CHANGED) == [field.name for field in dataclasses.fields(LMConfig)]
    default = LMConfig()
    assert all(getattr(default, name) != value for name, value in CHANGED.items())


def test_a_configuration_survives_json():
    config = LMConfig(**CHANGED)
    text = json.dumps(config.to_json(), allow_nan=False)
    assert LMConfig.from_json(json.loads(text)) == config
    assert preset(**json.loads(text)) == config
    assert hash(LMConfig.from_json(json.loads(text))) == hash(config)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_its_model_can_be_built(name):
    config = preset(name)
    assert config.preset == name
    build_model_from_config(dataclasses.replace(config.model, vocab_size=65))


def test_the_nanogpt_presets_have_the_sizes_and_budgets_of_its_readme():
    """github.com/karpathy/nanoGPT: "i only have a macbook" and "a GPU", on Shakespeare."""
    names = ("n_layers", "n_heads", "d_model", "dropout", "context", "batch_size", "steps")
    for name, sizes in (("nanogpt-cpu", (4, 4, 128, 0.0, 64, 12, 2000)),
                        ("nanogpt-gpu", (6, 6, 384, 0.2, 256, 64, 5000))):
        config = preset(name)
        fields = {**config.model.to_json(), **config.to_json()}
        assert tuple(fields[field] for field in names) == sizes
        assert config.corpus == "tiny_shakespeare"


def test_a_preset_keeps_what_is_not_replaced():
    config = preset("smoke", steps=3, model={"window": 5})
    base = preset("smoke")
    assert config == dataclasses.replace(
        base, steps=3, model=dataclasses.replace(base.model, window=5)
    )


def test_a_whole_model_may_be_given():
    model = SNNConfig(d_model=24, n_heads=3)
    assert preset("smoke", model=model).model == model


@pytest.mark.parametrize(("error", "message", "fields"), [
    (ValueError, "preset: preset must be one of .*, got 'huge'", {"preset": "huge"}),
    (ValueError, "tokenizer must be one of auto, char, byte, got 'bpe'", {"tokenizer": "bpe"}),
    (ValueError, r"LMConfig: fields must be among .*, got 'step'", {"step": 3}),
    (ValueError, r"LMConfig: fields must be among .*, got 'name'", {"name": "mine"}),
    (ValueError, "SNNConfig: fields must be among .*, got 'widow'", {"model": {"widow": 3}}),
    (TypeError, "SNNConfig: window must be an int, got '8'", {"model": {"window": "8"}}),
    (ValueError, "SNNConfig: d_model must be a multiple of n_heads 3", {"model": {"n_heads": 3}}),
    (TypeError, r"preset: model must be a mapping, got \[1\]", {"model": [1]}),
    (TypeError, "preset: model must be a mapping, got None", {"model": None}),
    (ValueError, "steps must be >= 1, got 0", {"steps": 0}),
    (TypeError, "steps must be an int, got '9'", {"steps": "9"}),
    (TypeError, "steps must be an int, got True", {"steps": True}),
    (ValueError, "context must be >= 1, got -2", {"context": -2}),
    (TypeError, "batch_size must be an int, got 2.5", {"batch_size": 2.5}),
    (ValueError, "multiple of accumulate 3, got 4", {"batch_size": 4, "accumulate": 3}),
    (ValueError, "vocab_size must be >= 1, got 0", {"vocab_size": 0}),
    (ValueError, "warmup must be >= 0 and <= 0.99, got 1", {"warmup": 1}),
    (ValueError, "steps above 100 must be a multiple of 10, .* got 101", {"steps": 101}),
    (ValueError, r"steps must be < 2\*\*31, got", {"steps": 10**12}),
    (ValueError, "seed must be >= 0, got -1", {"seed": -1}),
    (ValueError, r"seed must be < 2\*\*31", {"seed": 2**31}),
    (ValueError, "learning_rate must be > 0", {"learning_rate": 0}),
    (ValueError, "learning_rate must be > 0", {"learning_rate": float("nan")}),
    (ValueError, "weight_decay must be >= 0", {"weight_decay": -1.0}),
    (ValueError, "beta2 must be > 0 and <= ", {"beta2": 1.0}),
    (ValueError, "clip_norm must be > 0", {"clip_norm": 0.0}),
    (ValueError, "ema_decay must be > 0 and <= ", {"ema_decay": 1}),
    (ValueError, "spike_weight must be >= 0", {"spike_weight": -1}),
    (ValueError, "energy_weight must be >= 0", {"energy_weight": -1}),
    (TypeError, "corpus must be text, got None", {"corpus": None}),
    (TypeError, "generate must be text, got 3", {"generate": 3}),
    (TypeError, "compare_ann must be true or false, got 'yes'", {"compare_ann": "yes"}),
])
def test_a_field_that_is_not_allowed_is_refused_by_name(error, message, fields):
    with pytest.raises(error, match=message):
        preset(fields.get("preset", "smoke"), **fields)


def test_fields_are_a_mapping_and_the_model_a_configuration():
    with pytest.raises(TypeError, match="LMConfig: fields must be a mapping, got list"):
        LMConfig.from_json([])
    with pytest.raises(TypeError, match="LMConfig: model must be an SNNConfig, got {}"):
        LMConfig(model={})


def test_a_file_whose_fields_are_not_named_in_text_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("3: 4\nsteps: 5\n")
    with pytest.raises(ValueError, match=r"config.yaml must have names, got \[3\]"):
        read_fields("config", path)

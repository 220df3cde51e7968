"""SNNConfig: what is let in, what is refused and how, and that files give it back."""

import dataclasses
import json

import numpy as np
import pytest

from fastsnn_jax.config import SNNConfig

LLAMA = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192}
# Every field away from its default, so that none can be lost on the way.
OTHER = {
    "vocab_size": 65, "d_model": 96, "n_heads": 6, "n_layers": 3, "d_ff": 160,
    "attn_kind": "interleaved", "window": 7, "window_inclusive": True, "dropout": 0.125,
    "tie_lm_head": False, "n_kv_heads": 2, "head_dim": 20, "spiking": False,
    "spiking_lm_head": True, "neuron": "lif_sint", "k": 2.2, "rounding": "down", "ffn": "gated",
    "feature_map": "elu1", "gate": "decay", "normalizer": "rms", "softmax_every": 2,
    "norm": "layer", "norm_eps": 1e-5, "rope_theta": 5e5, "rope_scaling": LLAMA,
    "qkv_bias": True, "output_bias": True, "qk_norm": True, "dtype": "bfloat16",
}


def test_the_defaults_are_those_of_fastsnn_where_it_has_the_field():
    fastsnn = {"vocab_size": 32000, "d_model": 256, "n_heads": 4, "n_layers": 4, "d_ff": 1024,
               "attn_kind": "linear", "window": 128, "dropout": 0.0, "tie_lm_head": True}
    assert fastsnn.items() <= SNNConfig().to_json().items()


def test_sizes_left_open_follow_from_the_others():
    assert (SNNConfig().kv_heads, SNNConfig().size_of_head) == (4, 64)
    given = SNNConfig(d_model=96, n_heads=6, n_kv_heads=3, head_dim=10)
    assert (given.kv_heads, given.size_of_head) == (3, 10)


@pytest.mark.parametrize("fields", [{}, OTHER], ids=["defaults", "others"])
@pytest.mark.parametrize("name", ["cfg.json", "cfg.yaml", "cfg.yml"])
def test_a_file_gives_back_an_equal_configuration_with_an_equal_hash(tmp_path, name, fields):
    cfg = SNNConfig(**fields)
    cfg.save(tmp_path / name)
    loaded = SNNConfig.load(str(tmp_path / name))
    assert loaded == cfg and hash(loaded) == hash(cfg)
    assert all(type(a) is type(b) for a, b in zip(
        dataclasses.astuple(loaded), dataclasses.astuple(cfg), strict=True))


def test_the_test_of_files_changes_every_field():
    defaults = SNNConfig().to_json()
    assert OTHER.keys() == defaults.keys()
    assert not [name for name in OTHER if OTHER[name] == defaults[name]]


def test_json_is_plain_and_holds_the_fields_as_given():
    assert json.loads(json.dumps(SNNConfig(**OTHER).to_json())) == OTHER


def test_numbers_of_numpy_are_written_as_plain_ones(tmp_path):
    cfg = SNNConfig(window=np.int64(7), k=np.float32(2.5))
    for name in ("cfg.json", "cfg.yaml"):
        cfg.save(tmp_path / name)
        assert SNNConfig.load(tmp_path / name) == cfg


def test_rope_scaling_is_the_same_in_any_order_and_survives_replace():
    cfg = SNNConfig(rope_scaling=LLAMA)
    turned = SNNConfig(rope_scaling=dict(reversed(LLAMA.items())))
    assert turned == cfg and hash(turned) == hash(cfg)
    assert dataclasses.replace(cfg, window=3).rope_scaling == cfg.rope_scaling
    assert cfg.rope_scaling[0] == ("factor", 32.0)


def test_kinds_are_names_that_need_not_be_known_yet():
    assert SNNConfig(attn_kind="my_own", neuron="mine", ffn="mine_too").attn_kind == "my_own"


def test_heads_need_not_divide_the_model_when_their_size_is_given():
    assert SNNConfig(d_model=100, n_heads=3, head_dim=32).size_of_head == 32


def test_the_twin_of_a_spiking_configuration_is_one_field_away():
    cfg = SNNConfig(spiking_lm_head=True)
    assert dataclasses.replace(cfg, spiking=False).spiking is False


BAD_VALUES = [
    ({"d_model": 100, "n_heads": 3}, "d_model must be a multiple of n_heads 3, got 100; or give"),
    ({"n_kv_heads": 3}, "n_kv_heads must divide n_heads 4, got 3"),
    ({"n_kv_heads": 8}, "n_kv_heads must divide n_heads 4, got 8"),
    ({"window": 0}, "window must be >= 1, got 0"),
    ({"head_dim": 0}, "head_dim must be >= 1, got 0"),
    ({"n_layers": 0}, "n_layers must be >= 1, got 0"),
    ({"vocab_size": -1}, "vocab_size must be >= 1, got -1"),
    ({"softmax_every": 0}, "softmax_every must be >= 1, got 0"),
    ({"dropout": 1.0}, "dropout must be < 1, got 1.0"),
    ({"dropout": -0.1}, "dropout must be >= 0, got -0.1"),
    ({"dropout": float("nan")}, "dropout must be >= 0, got nan"),
    ({"k": 0}, "k must be > 0"),
    ({"k": float("inf")}, "k must be > 0 and <= 1e"),
    ({"norm_eps": 0.0}, "norm_eps must be > 0"),
    ({"rope_theta": 1.0}, "rope_theta must be > 1"),
    ({"feature_map": "gelu"}, "feature_map must be one of softplus, relu, exp, elu1, got 'gelu'"),
    ({"gate": "key"}, "gate must be one of none, query, decay"),
    ({"normalizer": "layer"}, "normalizer must be one of z, rms"),
    ({"norm": "batch"}, "norm must be one of rms, layer"),
    ({"dtype": "float64"}, "dtype must be one of float32, bfloat16"),
    ({"attn_kind": ""}, "attn_kind must not be empty"),
    ({"neuron": " "}, "neuron must not be empty"),
    ({"rope_scaling": {"factor": float("nan")}}, "rope_scaling factor must be finite, got nan"),
    ({"rope_scaling": {"rope_type": "odd"}},
     "rope_scaling's rope_type must be one of linear, dynamic, llama3, yarn, got 'odd'"),
    ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling .* 'linear' must hold factor, got"),
    ({"rope_scaling": LLAMA | {"factor": -1.0}}, "rope_scaling factor must be > 1e-06 .*, got -1"),
    ({"rope_scaling": LLAMA | {"low_freq_factor": 4.0}},
     "rope_scaling high_freq_factor must be above low_freq_factor = 4.0, got 4.0"),
    ({"d_mdoel": 64}, "fields must be among vocab_size, .*, dtype, got 'd_mdoel'"),
    ({3: 64}, "fields must be among .* got 3"),
]


@pytest.mark.parametrize("fields, message", BAD_VALUES, ids=lambda row: str(row)[:24])
def test_a_value_that_is_not_allowed_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=f"^SNNConfig: {message}"):
        SNNConfig.from_json(fields)


BAD_TYPES = [
    ({"d_model": "256"}, "d_model must be an int, got '256'"),
    ({"d_model": 256.0}, "d_model must be an int, got 256.0"),
    ({"n_heads": True}, "n_heads must be an int, got True"),
    ({"window": None}, "window must be an int, got None"),
    ({"n_kv_heads": "2"}, "n_kv_heads must be an int, got '2'"),
    ({"k": "3"}, "k must be a number, got '3'"),
    ({"spiking": 1}, "spiking must be true or false, got 1"),
    ({"tie_lm_head": "yes"}, "tie_lm_head must be true or false, got 'yes'"),
    ({"ffn": None}, "ffn must be a string, got None"),
    ({"rope_scaling": "linear"}, "rope_scaling must be a mapping or None, got 'linear'"),
    ({"rope_scaling": [["factor", 2.0]]}, "rope_scaling must be a mapping or None"),
    ({"rope_scaling": ("factor", 2.0)}, "rope_scaling must be a mapping or None"),
    ({"rope_scaling": {"long_factor": [1.0]}}, "rope_scaling must map names to numbers or"),
    ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "rope_scaling factor must be a num"),
    ({"rope_scaling": {2: 1.0}}, "rope_scaling must map names to numbers or strings, got 2"),
]


@pytest.mark.parametrize("fields, message", BAD_TYPES, ids=lambda row: str(row)[:24])
def test_an_ill_typed_field_is_refused_by_name(fields, message):
    with pytest.raises(TypeError, match=f"^SNNConfig: {message}"):
        SNNConfig.from_json(fields)


def test_fields_must_come_by_name():
    with pytest.raises(TypeError, match="SNNConfig: fields must be a mapping, got list"):
        SNNConfig.from_json(["d_model"])


DAMAGED = [
    ("cfg.json", b'{"d_model": 64', "must be a readable JSON file"),
    ("cfg.json", b"\xff\xfe\x00", "must be a readable JSON file"),
    ("cfg.json", b"[" * 100_000, "must be a readable JSON file"),
    ("cfg.json", b"[1, 2]", "must hold a mapping of fields, got list"),
    ("cfg.yaml", b"d_model: [64", "must be a readable YAML file"),
    ("cfg.yaml", b"d_model: 64\n\tn_heads: 4", "must be a readable YAML file"),
    ("cfg.yaml", b"!!python/object/apply:os.getcwd []", "must be a readable YAML file"),
    ("cfg.yml", b"", "must hold a mapping of fields, got NoneType"),
]


@pytest.mark.parametrize("name, content, message", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        SNNConfig.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="cfg.json must be a readable JSON file"):
        SNNConfig.load(tmp_path / "cfg.json")


def test_a_file_with_an_unknown_or_ill_typed_field_or_bad_value_is_named(tmp_path):
    path = tmp_path / "cfg.yaml"
    for text, error in (("windows: 3", ValueError), ("window: 0", ValueError),
                        ("window: wide", TypeError)):
        path.write_text(text)
        with pytest.raises(error, match="cfg.yaml: SNNConfig: .*window"):
            SNNConfig.load(path)


def test_the_remedy_for_yaml_comes_with_numbers_only(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text("ffn: 3")
    with pytest.raises(TypeError, match="ffn must be a string, got 3$"):
        SNNConfig.load(path)


def test_a_number_that_yaml_takes_for_text_comes_with_the_remedy(tmp_path):
    path = tmp_path / "cfg.yaml"
    path.write_text("norm_eps: 1e-5")
    with pytest.raises(TypeError, match="norm_eps must be a number, got '1e-5'; YAML .* 1.0e-6"):
        SNNConfig.load(path)
    path.write_text("norm_eps: 1.0e-5")
    assert SNNConfig.load(path).norm_eps == 1e-5


@pytest.mark.parametrize("name", ["cfg", "cfg.toml", "cfg.json.bak"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    for door in (SNNConfig().save, SNNConfig.load):
        with pytest.raises(ValueError, match="must end in .json, .yaml, .yml, got"):
            door(tmp_path / name)
    assert not list(tmp_path.iterdir())

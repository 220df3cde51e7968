"""Checkpoint directories: how they may be kept, and what is refused before a weight is read."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_models import GLA_SWA, arrays_of, models, shapes_of, write, written

from fastsnn_jax import build_model_from_config
from fastsnn_jax.data import ByteTokenizer, CharTokenizer
from fastsnn_jax.pretrained import PretrainedError, load_pretrained
from fastsnn_jax.pretrained.safetensors_file import Stored


def leaves(variables):
    return jax.tree.map(np.asarray, variables)


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, leaves(actual), leaves(expected))
    assert [a.dtype for a in jax.tree.leaves(actual)] == [
        b.dtype for b in jax.tree.leaves(expected)]


# How they may be kept


@pytest.mark.parametrize("name", ["llama", "qwen2", "gla_swa"])
def test_shards_hold_what_one_file_holds(tmp_path, name):
    whole = load_pretrained(written(tmp_path / "whole", name))
    parts = load_pretrained(written(tmp_path / "parts", name, shards=3))
    assert_same(parts.variables, whole.variables)
    assert parts.config == whole.config


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_weights_of_other_precision_load_rounded_as_the_file_rounds_them(tmp_path, dtype):
    fields = models()["qwen3"]["config"]
    arrays = arrays_of(fields)
    loaded = load_pretrained(write(tmp_path, fields, arrays, dtype=dtype))
    kept = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.variables)} == {jnp.dtype(kept)}
    kernel = loaded.variables["params"]["blocks_1"]["ffn"]["down"]["kernel"]
    rounded = arrays["model.layers.1.mlp.down_proj.weight"].astype(jnp.dtype(dtype)).T
    np.testing.assert_array_equal(np.asarray(kernel, np.float32), rounded.astype(np.float32))


def test_a_dtype_asked_for_is_that_of_weights_and_computation(tmp_path):
    directory = written(tmp_path, "qwen2", dtype="bfloat16")
    assert load_pretrained(directory).config.dtype == "float32"
    for dtype in ("float32", "bfloat16"):
        loaded = load_pretrained(directory, dtype=dtype)
        assert loaded.config.dtype == dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(loaded.variables)} == {jnp.dtype(dtype)}
    with pytest.raises(ValueError, match="^load_pretrained: dtype must be one of .* got 'int8'"):
        load_pretrained(directory, dtype="int8")


def test_shards_may_be_links_as_in_a_download_cache(tmp_path):
    directory = written(tmp_path / "model", "qwen2", shards=2)
    for shard in directory.glob("*.safetensors"):
        shard.rename(tmp_path / f"blob-{shard.name}")
        shard.symlink_to(tmp_path / f"blob-{shard.name}")
    load_pretrained(directory)


def test_a_head_stored_although_tied_must_be_the_embedding(tmp_path):
    fields = models()["qwen2"]["config"]
    arrays = arrays_of(fields)
    twice = arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"]}
    assert_same(load_pretrained(write(tmp_path / "twice", fields, twice)).variables,
                load_pretrained(write(tmp_path / "once", fields, arrays)).variables)
    other = arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"] + 1}
    with pytest.raises(PretrainedError, match="too many lm_head.weight"):
        load_pretrained(write(tmp_path / "other", fields, other))


def test_rotation_buffers_of_older_checkpoints_are_passed_over(tmp_path):
    fields = models()["llama"]["config"]
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(3) for i in range(3)}
    load_pretrained(write(tmp_path, fields, arrays_of(fields) | buffers))


def test_what_is_loaded_does_not_change_with_the_file(tmp_path):
    directory = written(tmp_path, "qwen2")
    loaded = load_pretrained(directory)
    before = leaves(jax.tree.map(np.array, loaded.variables))
    weights = directory / "model.safetensors"
    with open(weights, "r+b") as file:
        size = weights.stat().st_size
        file.seek(size // 4)
        file.write(b"\0" * (size // 2))
    assert_same(loaded.variables, before)


def test_the_spiking_network_of_the_same_weights_is_one_field_away(tmp_path):
    _, variables, config, *_ = load_pretrained(written(tmp_path, "llama"))
    spiking = build_model_from_config(dataclasses.replace(config, spiking=True))
    _, activity = jax.jit(spiking.apply)(variables, jnp.array([[3, 1, 4]]))
    assert len(activity) == 3 * 7


@pytest.mark.parametrize("eos, expected", [(None, ()), (7, (7,)), ([7, 0], (7, 0))])
def test_stop_tokens_are_those_of_the_configuration(tmp_path, eos, expected):
    fields = models()["qwen2"]["config"] | {"eos_token_id": eos}
    assert load_pretrained(write(tmp_path, fields, arrays_of(fields))).stop_tokens == expected


# Configurations that are refused


ROPE = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0}
BAD_CONFIGS = {
    "class": ("llama", {"architectures": ["MambaForCausalLM"]}, "architectures must be one of L"),
    "classes": ("llama", {"architectures": ["LlamaForCausalLM", "x"]}, "architectures must be one"),
    "code": ("llama", {"architectures": None, "model_type": "odd", "auto_map": {"x": "y.py"}},
             "model_type must be one of llama"),
    "at_odds": ("llama", {"model_type": "qwen2"}, "model_type of LlamaForCausalLM must be 'llama'"),
    "activation": ("llama", {"hidden_act": "gelu"}, "hidden_act .* must be 'silu' or 'swish'"),
    "mlp_bias": ("llama", {"mlp_bias": True}, "mlp_bias of LlamaForCausalLM must be False"),
    "quantised": ("llama", {"quantization_config": {"bits": 4}}, "quantization_.* must be None"),
    "size_missing": ("llama", {"hidden_size": None}, "hidden_size must be given, got none"),
    "size_text": ("llama", {"num_hidden_layers": "3"}, "num_hidden_layers must be an int, got '3'"),
    "size_huge": ("llama", {"vocab_size": 10**30}, "vocab_size must be < 2"),
    "size_zero": ("llama", {"vocab_size": 0}, "vocab_size must be >= 1, got 0"),
    "layers_many": ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers must be <= 10000"),
    "layers_more": ("llama", {"num_hidden_layers": 9999}, "at most as many layers as arrays, 30"),
    "heads": ("llama", {"num_key_value_heads": 3}, "n_kv_heads must divide n_heads 4, got 3"),
    "dtype": ("llama", {"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16"),
    "dtypes": ("llama", {"torch_dtype": "bfloat16"}, "dtype and torch_dtype must agree"),
    "eps": ("llama", {"rms_norm_eps": "1e-6"}, "norm_eps must be a number"),
    "tied": ("llama", {"tie_word_embeddings": "no"}, "tie_lm_head must be true or false"),
    "rope": ("llama", {"rope_parameters": 3}, "rope parameters must be an object"),
    "rope_kind": ("llama", {"rope_parameters": ROPE | {"rope_type": "longrope"}},
                  "rope_type must be one of linear, dynamic, llama3, yarn, got 'longrope'"),
    "rope_length": ("llama", {"rope_parameters": ROPE, "max_position_embeddings": "x"},
                    "original_max_position_embeddings must be an int, got 'x'"),
    "rope_number": ("llama", {"rope_parameters": ROPE}, "rope_type 'llama3' must hold factor"),
    "rope_theta": ("llama", {"rope_theta": 99.0}, "rope_theta must be one number, got"),
    "rope_part": ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor .* must be 1"),
    "window": ("qwen2_window", {"sliding_window": None}, "sliding_window must be given"),
    "layers": ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]},
               "attention must be of one kind in all 2 layers"),
    "layer_kind": ("qwen3", {"layer_types": ["odd", "odd"]}, "layer_types must be one of full_"),
    "some_windows": ("qwen2", {"layer_types": None, "use_sliding_window": True,
                               "max_window_layers": 1}, "attention must be of one kind"),
    "eos": ("qwen2", {"eos_token_id": 67}, "eos_token_id must be below 67, got 67"),
    "eos_text": ("qwen2", {"eos_token_id": ["a"]}, "eos_token_id must be an int"),
    "gla_layers": ("gla_swa", {"attn_layers": [0, 2]}, r"must be the odd ones, \[1, 3\]"),
    "gla_conv": ("gla_swa", {"use_short_conv": True}, "use_short_conv .* must be False"),
    "gla_gate": ("gla_swa", {"gate_low_rank_dim": 8}, "gate_low_rank_dim .* must be 16"),
    "gla_window": ("gla_swa", {"sliding_window": 0}, "sliding_window must be >= 1"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good checkpoint directory of each name, written once."""
    folder = tmp_path_factory.mktemp("good")

    def directory(name):
        return folder / name if (folder / name).exists() else written(folder / name, name)

    return directory


def copied(good, name, tmp_path):
    return shutil.copytree(good(name), tmp_path / "copy")


@pytest.mark.parametrize("name, change, message", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_configuration_that_ours_cannot_be_is_refused(good, tmp_path, name, change, message):
    directory = copied(good, name, tmp_path)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PretrainedError, match=message) as caught:
        load_pretrained(directory)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000, None])
def test_an_unreadable_configuration_is_named(good, tmp_path, text):
    directory = copied(good, "qwen2", tmp_path)
    path = directory / "config.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(PretrainedError, match="config.json"):
        load_pretrained(directory)


# Arrays that are refused


def renamed(arrays, old, new):
    return {new if name == old else name: array for name, array in arrays.items()}


UP = "model.layers.1.mlp.up_proj.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"
BAD_ARRAYS = {
    "missing": (lambda a: {n: x for n, x in a.items() if n not in (UP, GATE)},
                f"got missing {GATE}, {UP}$"),
    "extra": (lambda a: a | {"lora.a": np.ones(1, np.float32), "lora.b": np.ones(1, np.float32)},
              "too many lora.a, lora.b$"),
    "renamed": (lambda a: renamed(a, UP, "up"), f"missing {UP}; too many up$"),
    "shape": (lambda a: a | {UP: a[UP][:-1], GATE: a[GATE].T.copy()},
              rf"{GATE} is \[20, 36\] and not \[36, 20\]; {UP} is \[35, 20\] and not \[36, 20\]"),
    "axes": (lambda a: a | {"model.norm.weight": a["model.norm.weight"][None]},
             r"model.norm.weight is \[1, 20\] and not \[20\]"),
    "head": (lambda a: a | {"lm_head.weight": a["model.embed_tokens.weight"][:-1]},
             "too many lm_head.weight"),
    "bias": (lambda a: a | {"model.layers.0.self_attn.o_proj.bias": np.ones(20, np.float32)},
             "too many model.layers.0.self_attn.o_proj.bias"),
}


def no_reading(self):
    raise AssertionError(f"read {self.path} although something is wrong with it")


@pytest.mark.parametrize("change, message", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_are_not_those_of_the_configuration_are_named_before_any_is_read(
    tmp_path, monkeypatch, change, message
):
    fields = models()["qwen2"]["config"]
    directory = write(tmp_path, fields, change(arrays_of(fields)))
    monkeypatch.setattr(Stored, "read", no_reading)
    with pytest.raises(PretrainedError, match=message):
        load_pretrained(directory)


def test_integers_are_no_weights(tmp_path):
    fields = models()["qwen2"]["config"]
    directory = write(tmp_path, fields, arrays_of(fields), dtype="int32")
    with pytest.raises(PretrainedError, match="k_proj.bias is I32 and not F64, F32"):
        load_pretrained(directory)


def test_a_configuration_of_another_size_is_seen_in_every_array(tmp_path):
    fields = models()["qwen2"]["config"]
    other = fields | {"hidden_size": 40}
    directory = write(tmp_path, other, arrays_of(fields))
    message = r"input_layernorm.weight is \[20\] and not \[40\]; .*; and 6 more$"
    with pytest.raises(PretrainedError, match=message):
        load_pretrained(directory)


def test_an_untied_head_must_be_there(tmp_path):
    fields = models()["llama"]["config"]
    arrays = arrays_of(fields)
    del arrays["lm_head.weight"]
    with pytest.raises(PretrainedError, match="got missing lm_head.weight$"):
        load_pretrained(write(tmp_path, fields, arrays))


def test_many_missing_arrays_are_counted(tmp_path):
    fields = GLA_SWA
    directory = write(tmp_path, fields, {name: np.ones(1, np.float32) for name in "dcba"})
    number = len(shapes_of(fields)) - 20
    with pytest.raises(PretrainedError, match=f", and {number} more; too many a, b, c, d$"):
        load_pretrained(directory)


# Indices of shards that are refused


def index_of(directory):
    return directory / "model.safetensors.index.json"


def changed_index(directory, change):
    fields = json.loads(index_of(directory).read_text())
    change(fields["weight_map"])
    index_of(directory).write_text(json.dumps(fields))


TRICKS = ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "model.bin",
          "C:\\x.safetensors", "a\x00.safetensors", ".hidden.safetensors", "", 3, None, ["a"]]


@pytest.mark.parametrize("file", TRICKS, ids=repr)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, file):
    directory = written(tmp_path / "model", "qwen2", shards=2)
    shutil.copy(next(directory.glob("*.safetensors")), tmp_path / "outside.safetensors")
    changed_index(directory, lambda places: places.update({"model.norm.weight": file}))
    with pytest.raises(PretrainedError, match="file of model.norm.weight must be the plain name"):
        load_pretrained(directory)


def test_an_index_that_does_not_say_what_the_shards_hold_is_refused(tmp_path):
    directory = written(tmp_path, "qwen2", shards=2)
    kept = index_of(directory).read_text()
    changed_index(directory, lambda places: places.pop(UP))
    with pytest.raises(PretrainedError, match=f"too many {UP}"):
        load_pretrained(directory)
    index_of(directory).write_text(kept)
    changed_index(directory, lambda places: places.update(ghost=places[UP]))
    with pytest.raises(PretrainedError, match="missing ghost"):
        load_pretrained(directory)
    index_of(directory).write_text(kept)
    changed_index(directory, lambda places: places.update(ghost="gone.safetensors"))
    with pytest.raises(PretrainedError, match="gone.safetensors: it must be a file"):
        load_pretrained(directory)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_unreadable_index_is_named(tmp_path, text):
    directory = written(tmp_path, "qwen2", shards=2)
    index_of(directory).write_text(text)
    with pytest.raises(PretrainedError, match="model.safetensors.index.json"):
        load_pretrained(directory)


def test_pickles_are_not_opened(good, tmp_path):
    directory = copied(good, "qwen2", tmp_path)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(PretrainedError, match="got config.json, pytorch_model.bin; .* never read"):
        load_pretrained(directory)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(PretrainedError, match="none: it must be a directory"):
        load_pretrained(tmp_path / "none")


# Tokenizers


def test_the_tokenizer_beside_the_weights_comes_with_them(good, tmp_path):
    directory = copied(good, "qwen2", tmp_path)
    CharTokenizer("abc").save(directory / "tokenizer.json")
    assert load_pretrained(directory).tokenizer == CharTokenizer("abc")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(good, tmp_path):
    directory = copied(good, "qwen2", tmp_path)
    ByteTokenizer().save(directory / "tokenizer.json")
    with pytest.raises(PretrainedError, match="ids must be below 67, .*, got up to 255"):
        load_pretrained(directory)
    (directory / "tokenizer.json").write_text("{")
    with pytest.raises(PretrainedError, match="tokenizer.json: .*expected a saved tokenizer"):
        load_pretrained(directory)



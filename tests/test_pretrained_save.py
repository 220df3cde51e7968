"""Models written in published layouts: whole or not at all, and back bit for bit."""

import dataclasses
import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_helpers import ATTENTIONS, variables_of
from pretrained_models import NAMES, written

from fastsnn_jax import SNNConfig
from fastsnn_jax.data import CharTokenizer
from fastsnn_jax.pretrained import PretrainedError, load_pretrained, save, save_pretrained


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert [a.dtype for a in jax.tree.leaves(actual)] == [
        b.dtype for b in jax.tree.leaves(expected)]


def architecture(directory):
    return json.loads((directory / "config.json").read_text())["architectures"][0]


@pytest.mark.parametrize("name", [*NAMES, "gla_swa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_published_model_is_saved_as_it_was_and_loads_back_bit_for_bit(tmp_path, name, dtype):
    first = load_pretrained(written(tmp_path / "published", name), dtype=dtype)
    directory = save_pretrained(tmp_path / "saved", first.config, first.variables)
    second = load_pretrained(directory)
    assert_same(second.variables, first.variables)
    assert second.config == first.config
    assert architecture(directory) == architecture(tmp_path / "published")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first = load_pretrained(written(tmp_path / "published", "qwen3"))
    files = []
    for name in ("once", "twice"):
        directory = save_pretrained(tmp_path / name, first.config, first.variables)
        files.append([path.read_bytes() for path in sorted(directory.iterdir())])
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_any_model_of_ours_loads_back(tmp_path, name):
    config, variables = ATTENTIONS[name], variables_of(ATTENTIONS[name])
    directory = save_pretrained(tmp_path / "model", config, variables)
    loaded = load_pretrained(directory)
    assert loaded.config == config and architecture(directory) == "FastSNNForCausalLM"
    assert_same(loaded.variables, variables)


PLAIN = SNNConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=2, d_ff=12, attn_kind="softmax",
                  ffn="gated", spiking=False)
QWEN2 = dataclasses.replace(PLAIN, qkv_bias=True)
LAYOUTS = {
    "LlamaForCausalLM": [PLAIN, dataclasses.replace(QWEN2, output_bias=True)],
    "Qwen2ForCausalLM": [QWEN2, dataclasses.replace(QWEN2, attn_kind="sliding", window=3)],
    "Qwen3ForCausalLM": [dataclasses.replace(PLAIN, qk_norm=True, head_dim=6)],
    "GLAswaForCausalLM": [dataclasses.replace(
        QWEN2, attn_kind="interleaved", window=5, window_inclusive=inclusive, feature_map="relu",
        gate="decay", normalizer="rms") for inclusive in (False, True)],
    "FastSNNForCausalLM": [
        dataclasses.replace(PLAIN, output_bias=True), dataclasses.replace(PLAIN, spiking=True),
        dataclasses.replace(PLAIN, dropout=0.5), dataclasses.replace(PLAIN, norm="layer"),
        dataclasses.replace(PLAIN, attn_kind="sliding", window=3, window_inclusive=True),
        dataclasses.replace(QWEN2, attn_kind="interleaved"),
    ],
}


@pytest.mark.parametrize(
    "layout, config", [(layout, config) for layout, row in LAYOUTS.items() for config in row]
)
def test_the_layout_is_the_first_that_says_all(tmp_path, layout, config):
    directory = save_pretrained(tmp_path / "model", config, variables_of(config))
    assert architecture(directory) == layout
    loaded = load_pretrained(directory)
    filled = dataclasses.replace(config, n_kv_heads=config.kv_heads, head_dim=config.size_of_head)
    assert loaded.config in (config, filled)
    assert_same(loaded.variables, variables_of(config))


def test_weights_of_another_dtype_than_the_computation_keep_theirs(tmp_path):
    config = dataclasses.replace(PLAIN, dtype="bfloat16")
    loaded = load_pretrained(save_pretrained(tmp_path / "m", config, variables_of(config)))
    assert loaded.config.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.variables)} == {jnp.dtype("float32")}


def test_tokenizer_and_stop_tokens_come_back(tmp_path):
    directory = save_pretrained(tmp_path / "m", PLAIN, variables_of(PLAIN), stop_tokens=(3, 0),
                                tokenizer=CharTokenizer("no"))
    loaded = load_pretrained(directory)
    assert loaded.tokenizer == CharTokenizer("no") and loaded.stop_tokens == (3, 0)


# Whole or not at all


def test_an_empty_directory_is_filled_and_no_other_is_touched(tmp_path):
    (tmp_path / "empty").mkdir()
    save_pretrained(tmp_path / "empty", PLAIN, variables_of(PLAIN))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("here")
    (tmp_path / "file").write_text("here")
    for name in ("full", "file"):
        with pytest.raises(PretrainedError, match="it must be new or an empty directory"):
            save_pretrained(tmp_path / name, PLAIN, variables_of(PLAIN))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def write_arrays(path, arrays, transposed):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save, "write_arrays", write_arrays)
    with pytest.raises(PretrainedError, match="model: .*No space left on device"):
        save_pretrained(tmp_path / "model", PLAIN, variables_of(PLAIN))
    assert list(tmp_path.iterdir()) == []


def test_variables_of_another_model_are_named_and_nothing_is_written(tmp_path):
    wider = dataclasses.replace(PLAIN, d_ff=13)
    with pytest.raises(PretrainedError, match=r"blocks_0/ffn/down/kernel is float32\[13, 8\] and "
                                              r"not \[12, 8\]"):
        save_pretrained(tmp_path / "model", PLAIN, variables_of(wider))
    with pytest.raises(PretrainedError, match="missing blocks_0/attention/key/bias"):
        save_pretrained(tmp_path / "model", QWEN2, variables_of(PLAIN))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), variables_of(PLAIN))
    with pytest.raises(PretrainedError, match="is float16.* of float32 or bfloat16"):
        save_pretrained(tmp_path / "model", PLAIN, half)
    assert list(tmp_path.iterdir()) == []

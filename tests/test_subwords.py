"""Tokenizers of published models, made here with the library that reads them."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from fastsnn_jax.data import (
    DataError,
    SubwordTokenizer,
    char_tokenizer,
    load_tokenizer,
    tokenizer_from_json,
)

TEXT = "the cat sat on the mat, né ß 猫 \n  twice"


@pytest.fixture(scope="module")
def definition():
    """A byte-level BPE in the manner of Llama 3 and Qwen, which begins texts by a mark."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<begin>", "<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator([TEXT], trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", 0)])
    core.enable_truncation(4)
    core.enable_padding(length=50)
    return core.to_str()


def test_any_text_comes_back_after_its_mark_and_is_never_cut_or_padded(definition):
    tokenizer = SubwordTokenizer(definition)
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32 and ids[0] == 0 and 4 < len(ids) < len(TEXT.encode())
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.to_bytes(ids) == TEXT.encode()
    assert tokenizer.decode([]) == ""


def test_merges_make_one_id_of_what_is_frequent(definition):
    tokenizer = SubwordTokenizer(definition)
    vocabulary = json.loads(definition)["model"]["vocab"]
    assert tokenizer.encode("the").tolist() == [0, vocabulary["the"]]
    assert tokenizer.vocab_size == 1 + max(vocabulary.values())


def test_a_character_cut_in_half_becomes_a_replacement_mark(definition):
    tokenizer = SubwordTokenizer(definition)
    ids = tokenizer.encode("š")
    assert len(ids) == 3 and tokenizer.decode(ids[:2]) == "\ufffd"


def test_ids_out_of_range_are_refused(definition):
    tokenizer = SubwordTokenizer(definition)
    with pytest.raises(ValueError, match=f"ids must be in 0..{tokenizer.vocab_size - 1}, got"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(TypeError, match="SubwordTokenizer.encode: text must be a str, got int"):
        tokenizer.encode(3)


def test_the_file_itself_is_saved_and_read(tmp_path, definition):
    tokenizer = SubwordTokenizer(definition)
    path = tokenizer.save(tmp_path / "tokenizer.json")
    assert tokenizers.Tokenizer.from_file(str(path)).encode("cat", add_special_tokens=False).ids
    assert load_tokenizer(path) == tokenizer and hash(load_tokenizer(path)) == hash(tokenizer)
    assert tokenizer_from_json(tokenizer.to_json()) == tokenizer
    assert tokenizer != char_tokenizer(TEXT) and len(repr(tokenizer)) < 80


def test_sentencepiece_models_decode_their_blanks():
    core = tokenizers.Tokenizer(models.BPE(
        {"<unk>": 0, "▁": 1, "n": 2, "o": 3, "▁n": 4, "▁no": 5}, [("▁", "n"), ("▁n", "o")],
        unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(),
                                      decoders.Strip(content=" ", left=1)])
    tokenizer = SubwordTokenizer(core.to_str())
    assert tokenizer.encode("no no").tolist() == [5, 5]
    assert tokenizer.decode([5, 5]) == "no no"


BAD = ["", "{", "[]", "{}", '{"model": {}}', '{"model": {"type": "Odd"}}', "[" * 100_000]


@pytest.mark.parametrize("text", BAD, ids=[text[:20] or "empty" for text in BAD])
def test_a_bad_definition_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="SubwordTokenizer: definition must be the content of"):
        SubwordTokenizer(text)
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(DataError, match="tokenizer.json: expected a saved tokenizer"):
        load_tokenizer(path)


def test_a_definition_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="text must be a str, got NoneType"):
        SubwordTokenizer(None)

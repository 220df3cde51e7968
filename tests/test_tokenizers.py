"""Laws of the tokenizers: text survives the round trip, and what cannot is named."""

import json

import numpy as np
import pytest

from fastsnn_jax.data import (
    ByteTokenizer,
    CharTokenizer,
    DataError,
    byte_tokenizer,
    char_tokenizer,
    load_tokenizer,
    tokenizer_from_json,
)

# One to four bytes a character, a line end of each kind, a zero and a byte-order mark.
TEXT = "fée \N{SNOWMAN}\r\n\t\0\N{GRINNING FACE}\ufeffé"
TOKENIZERS = {"byte": byte_tokenizer(), "char": char_tokenizer(TEXT)}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


# Both kinds


@every_tokenizer
def test_text_survives_the_round_trip(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32 and ids.ndim == 1
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.to_bytes(ids) == TEXT.encode()


@every_tokenizer
def test_no_text_is_no_ids(tokenizer):
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == "" and tokenizer.to_bytes([]) == b""


@every_tokenizer
def test_every_id_decodes_and_stays_in_range(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert 0 <= ids.min() and ids.max() < tokenizer.vocab_size
    for dtype in (np.uint16, np.int64):
        assert isinstance(tokenizer.decode(np.arange(tokenizer.vocab_size, dtype=dtype)), str)


@every_tokenizer
def test_ids_out_of_range_are_named_with_their_places(tokenizer):
    size = tokenizer.vocab_size
    with pytest.raises(ValueError, match=rf"0\.\.{size - 1}, got {size} at 1, -1 at 3$"):
        tokenizer.decode([0, size, 1, -1])
    with pytest.raises(ValueError, match="at 2 and 2 more"):
        tokenizer.decode([size] * 5)


@every_tokenizer
def test_ids_are_a_row_of_integers(tokenizer):
    with pytest.raises(TypeError, match="float64"):
        tokenizer.decode([1.0])
    with pytest.raises(ValueError, match=r"one-dimensional, got shape \[2, 3\]"):
        tokenizer.decode(np.zeros((2, 3), int))
    with pytest.raises(TypeError, match="str, got bytes"):
        tokenizer.encode(b"text")


@every_tokenizer
def test_json_and_file_give_an_equal_tokenizer(tokenizer, tmp_path):
    assert tokenizer_from_json(tokenizer.to_json()) == tokenizer
    path = tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(path)
    assert loaded == tokenizer and hash(loaded) == hash(tokenizer)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = byte_tokenizer().save(tmp_path / "tokenizer.json")

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        char_tokenizer("ab").save(path)
    assert load_tokenizer(path) == byte_tokenizer()
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


# Bytes


def test_bytes_are_those_of_utf8():
    assert byte_tokenizer().vocab_size == 256
    np.testing.assert_array_equal(byte_tokenizer().encode("aé"), [0x61, 0xC3, 0xA9])


def test_half_a_character_becomes_the_replacement_character():
    assert byte_tokenizer().decode([0x61, 0xC3]) == "a\N{REPLACEMENT CHARACTER}"


def test_a_lone_surrogate_has_no_bytes():
    with pytest.raises(ValueError, match=r"Unicode characters, got '\\udc80' at 2"):
        byte_tokenizer().encode("ab\udc80")


# Characters


def test_characters_are_numbered_in_the_order_of_their_code_points():
    tokenizer = char_tokenizer("hello \N{GRINNING FACE}é")
    assert tokenizer.characters == " ehloé\N{GRINNING FACE}" and tokenizer.vocab_size == 7
    np.testing.assert_array_equal(tokenizer.encode("hé\N{GRINNING FACE} o"), [2, 5, 6, 0, 4])


def test_characters_it_lacks_are_named_with_their_places():
    tokenizer = char_tokenizer("bd")
    for text, got in {
        "ba": "'a' at 1",
        "dcb\N{SNOWMAN}": "'c' at 1, '\N{SNOWMAN}' at 3",  # between, and beyond the last
        "xxxxx": "'x' at 0, 'x' at 1, 'x' at 2 and 2 more",
        "b\udc80": "'\\udc80' at 1",
    }.items():
        with pytest.raises(ValueError) as error:
            tokenizer.encode(text)
        assert f"its 2 characters, got {got};" in str(error.value)


@pytest.mark.parametrize("characters", ["", "ba", "aa", "a\ud800\udc00"])
def test_only_distinct_ascending_characters_make_a_tokenizer(characters):
    with pytest.raises(ValueError, match="CharTokenizer"):
        CharTokenizer(characters)


def test_no_text_makes_no_character_tokenizer():
    with pytest.raises(ValueError, match="at least one"):
        char_tokenizer("")


# Descriptions and files


@pytest.mark.parametrize(
    "mapping, error, message",
    [
        ({"kind": "word"}, ValueError, "byte, char, subword, got 'word'"),
        ({}, ValueError, "byte, char, subword, got None"),
        ({"kind": "char"}, ValueError, r"\['kind', 'characters'\], got \['kind'\]"),
        ({"kind": "byte", "characters": "ab"}, ValueError, "got .*characters"),
        ({"kind": "char", "characters": "ba"}, ValueError, "ascending"),
        ({"kind": "char", "characters": 3}, TypeError, "got int"),
        ([], TypeError, "got list"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, mapping, error, message):
    with pytest.raises(error, match=message):
        tokenizer_from_json(mapping)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(mapping))
    with pytest.raises(DataError, match=f"tokenizer.json.*{message}"):
        load_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b'{"kind": "by', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="tokenizer.json: expected a saved tokenizer") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent.json"):
        load_tokenizer(tmp_path / "absent.json")


def test_the_two_kinds_differ():
    assert ByteTokenizer() != CharTokenizer("".join(map(chr, range(256))))

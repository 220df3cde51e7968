"""Laws of text to train on: what is in the file arrives, split once, in windows inside it."""

import hashlib
import sysconfig

import numpy as np
import pytest

from fastsnn_jax.data import Corpus, DataError, byte_tokenizer, load_corpus, random_crops, windows

# UTF-8 widths 1 to 4, so that nine tenths of the bytes fall into each place of a character.
PHRASES = ("abcdefghij", "éàüßøåçñ", "\N{SNOWMAN}\N{EURO SIGN}a" * 3, "\N{GRINNING FACE}é" * 2)


def write(folder, data, name="text.txt"):
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def failure(*arguments, **options):
    with pytest.raises(DataError) as error:
        load_corpus(*arguments, warn=pytest.fail, **options)
    message = str(error.value)
    assert "\n" not in message and "expected" in message
    return message


def text_of(corpus):
    """The text of both parts, decoded apart: a character cut in two would not survive."""
    return corpus.tokenizer.decode(corpus.train) + corpus.tokenizer.decode(corpus.validation)


# A file of one's own


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("repeat", [1, 7])
def test_a_file_is_split_once_near_nine_tenths_between_characters(
    tmp_path, tokenizer, phrase, repeat
):
    for filler in range(5):
        text = "." * filler + phrase * repeat
        path = write(tmp_path, text, f"{filler}.txt")
        corpus = load_corpus(path, tokenizer=tokenizer)
        assert text_of(corpus) == text
        size = len(text.encode())
        train_bytes = len(corpus.tokenizer.decode(corpus.train).encode())
        assert size * 9 // 10 - 3 <= train_bytes <= size * 9 // 10


def test_a_file_of_ascii_is_split_at_nine_tenths(tmp_path):
    corpus = load_corpus(write(tmp_path, bytes(range(32, 69))))
    np.testing.assert_array_equal(corpus.train, np.arange(32, 65))  # 33 of 37
    np.testing.assert_array_equal(corpus.validation, np.arange(65, 69))
    assert corpus.train.dtype == np.uint8 and corpus.bytes_per_token == 1.0
    assert corpus.tokenizer == byte_tokenizer()


def test_both_tokenizers_split_and_hash_the_same_text(tmp_path):
    text = PHRASES[2] + PHRASES[1] + PHRASES[0]
    path = write(tmp_path, text)
    by_byte, by_char = load_corpus(path), load_corpus(str(path), tokenizer="char")
    assert by_byte.sha256 == by_char.sha256 == hashlib.sha256(text.encode()).hexdigest()
    for part in ("train", "validation"):
        texts = [corpus.tokenizer.decode(getattr(corpus, part)) for corpus in (by_byte, by_char)]
        assert texts[0] == texts[1]


def test_bytes_per_token_weighs_each_character(tmp_path):
    corpus = load_corpus(write(tmp_path, "a" * 81 + "é\N{SNOWMAN}abcd"), tokenizer="char")
    # 90 bytes: 81 to train on; held out are 6 characters of 2 + 3 + 4 * 1 bytes
    assert corpus.tokenizer.decode(corpus.validation) == "é\N{SNOWMAN}abcd"
    assert corpus.bytes_per_token == 1.5


def test_tokens_of_characters_take_the_fewest_bytes(tmp_path):
    for size, dtype in {256: np.uint8, 257: np.uint16}.items():
        text = "".join(map(chr, range(0x100, 0x100 + size)))
        corpus = load_corpus(write(tmp_path, text), tokenizer="char")
        assert corpus.tokenizer.vocab_size == size and corpus.train.dtype == dtype
        assert text_of(corpus) == text


def test_the_description_is_that_of_a_record(tmp_path):
    path = write(tmp_path, "twenty-one characters")
    description = load_corpus(path).describe()
    assert description == {
        "name": "text.txt",
        "source": f"text file {path}",
        "sha256": hashlib.sha256(b"twenty-one characters").hexdigest(),
        "sizes": {"train": 18, "validation": 3},
    }
    assert all(type(size) is int for size in description["sizes"].values())


def test_a_hash_over_many_blocks_is_that_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("fastsnn_jax.data.corpus.BLOCK", 4)
    text = "é\N{SNOWMAN}abcdefghi" * 3
    corpus = load_corpus(write(tmp_path, text), tokenizer="char")
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_file_larger_than_memory_is_opened_and_cropped(tmp_path):
    path, size = tmp_path / "sparse.txt", 2**39  # half a terabyte of holes
    with open(path, "wb") as file:
        file.write(b"head")
        file.seek(size - 4)
        file.write(b"tail")
    corpus = load_corpus(path)
    assert isinstance(corpus.train, np.memmap) and isinstance(corpus.validation, np.memmap)
    assert corpus.train.size + corpus.validation.size == size
    assert bytes(corpus.train[:4]) == b"head" and bytes(corpus.validation[-4:]) == b"tail"
    assert random_crops(corpus.train, context=64, count=12, seed=0, epoch=0).shape == (12, 65)
    rows, mask = windows(corpus.validation[-66:], context=64)
    assert rows.shape == (2, 65) and mask.sum() == 65


@pytest.mark.parametrize("content, complaint", [(b"", "empty"), (b"a", "at least one token")])
def test_a_file_too_short_to_split_is_an_error(tmp_path, content, complaint):
    path = write(tmp_path, content)
    for tokenizer in ("byte", "char"):
        message = failure(path, tokenizer=tokenizer)
        assert complaint in message and str(path) in message


def test_a_file_that_is_not_utf8_is_for_byte_tokens_only(tmp_path):
    data = b"caf\xe9" * 5 + b"\x80" * 20
    path = write(tmp_path, data)
    corpus = load_corpus(path)
    assert bytes(corpus.train) + bytes(corpus.validation) == data
    message = failure(path, tokenizer="char")
    assert "UTF-8" in message and "0xe9 in position 3" in message and str(path) in message


def test_what_is_no_file_is_an_error(tmp_path):
    assert "tiny_shakespeare, stdlib or the path" in failure("tiny_shakespear")
    assert "got a directory" in failure(tmp_path)
    assert "no such file" in failure(tmp_path / "absent.txt")


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "0123456789")
    assert load_corpus("~/text.txt").train.size == 9


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(ValueError, match="tokenizer must be one of char, byte, got 'word'"):
        load_corpus("stdlib", tokenizer="word")


@pytest.mark.parametrize("name", ["stdlib", "text.txt"])
def test_data_dir_is_for_what_is_looked_for_there(tmp_path, name):
    assert "no data_dir" in failure(name, data_dir=tmp_path)


@pytest.mark.parametrize("tokens", [np.zeros(0, np.uint8), np.zeros((2, 3), int), np.zeros(3)])
def test_a_corpus_is_two_rows_of_integers(tokens):
    good = np.arange(3)
    for parts in ((tokens, good), (good, tokens)):
        with pytest.raises(DataError, match="at least one token"):
            Corpus("tiny", "by hand", *parts, byte_tokenizer())


# The standard library


def fake_stdlib(monkeypatch, folder, **sources):
    for name, source in sources.items():
        (folder / f"{name}.py").write_bytes(source)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: {"stdlib": str(folder)}[name])


def test_the_standard_library_is_a_megabyte_of_python():
    corpus = load_corpus("stdlib", warn=pytest.fail)
    text = text_of(corpus)
    assert 500_000 < len(text.encode()) <= 1_000_000 and text.count("\ndef ") > 100
    assert corpus.tokenizer == byte_tokenizer() and "abc to" in corpus.source
    assert corpus.sha256 == load_corpus("stdlib").sha256


def test_whole_public_modules_by_name_fill_the_megabyte(tmp_path, monkeypatch):
    large = b"#" * 600_000
    (tmp_path / "ac" / "test").mkdir(parents=True)
    (tmp_path / "ac" / "test" / "test_ac.py").write_bytes(b"never")
    fake_stdlib(
        monkeypatch, tmp_path, ad=large, ab=b"first\n", _aa=b"one machine's", ae=large, af=b"later"
    )
    corpus = load_corpus("stdlib")
    assert text_of(corpus).encode() == b"first\n" + large
    assert "2 modules from ab to ad" in corpus.source


def test_a_python_without_sources_is_an_error(tmp_path, monkeypatch):
    fake_stdlib(monkeypatch, tmp_path)
    message = failure("stdlib")
    assert str(tmp_path) in message and "text file" in message


# Tiny Shakespeare


def test_tiny_shakespeare_is_the_text_known_by_its_length_and_alphabet(shared_data):
    tfds = shared_data / "tfds"
    corpus = load_corpus("auto", tfds, warn=pytest.fail)
    assert corpus.name == "tiny_shakespeare" and str(tfds) in corpus.source
    # The published file: 1,115,394 characters, 65 different ones, 1,003,854 to train on.
    assert corpus.train.shape == (1_003_854,) and corpus.validation.shape == (111_540,)
    assert corpus.tokenizer.vocab_size == 65 and corpus.bytes_per_token == 1.0
    assert corpus.tokenizer.decode(corpus.train[:14]) == "First Citizen:"
    assert corpus.tokenizer.decode(corpus.validation[-8:]) == "waking.\n"
    assert corpus.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def test_tiny_shakespeare_by_name_and_environment_with_byte_tokens(shared_data, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared_data / "tfds"))
    corpus = load_corpus("tiny_shakespeare", tokenizer="byte", warn=pytest.fail)
    assert corpus.train.size == 1_003_854 and corpus.tokenizer == byte_tokenizer()


def test_auto_falls_back_to_the_standard_library_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    said = []
    assert load_corpus(warn=said.append).name == "stdlib"
    (message,) = said
    assert str(tmp_path) in message and "--data-dir" in message and "\n" not in message


def test_tiny_shakespeare_asked_for_and_absent_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for arguments in [("tiny_shakespeare",), ("auto", tmp_path), ("auto", tmp_path / "none")]:
        message = failure(*arguments)
        assert str(tmp_path) in message and "--data-dir" in message
    assert "empty name" in failure("auto", "")


def test_a_spoiled_prepared_directory_is_an_error_even_for_auto(tmp_path):
    version = tmp_path / "tiny_shakespeare" / "1.0.0"
    version.mkdir(parents=True)
    write(version, "{", "dataset_info.json")
    assert "dataset_info.json" in failure("auto", tmp_path)


# Random crops


def test_crops_lie_inside_and_every_place_is_equally_likely():
    size, context, count = 37, 5, 32_000
    crops = random_crops(np.arange(size, dtype=np.uint8), context, count, seed=3, epoch=2)
    assert crops.shape == (count, context + 1) and crops.dtype == np.int32
    np.testing.assert_array_equal(crops - crops[:, :1], np.tile(np.arange(context + 1), (count, 1)))
    places = np.bincount(crops[:, 0], minlength=size)
    assert places[32:].sum() == 0  # the last window begins at 31
    mean = count / 32
    assert np.abs(places[:32] - mean).max() < 5 * np.sqrt(mean * (1 - 1 / 32))


def test_neighbouring_crops_epochs_and_seeds_are_independent():
    tokens, count = np.arange(20_000), 4_000
    draws = {
        (seed, epoch): random_crops(tokens, 3, count, seed, epoch)[:, 0]
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    }
    series = [*draws.values(), np.roll(draws[0, 0], 1)]
    correlation = np.corrcoef(series) - np.eye(len(series))
    assert np.abs(correlation).max() < 5 / np.sqrt(count)


def test_crops_depend_on_their_arguments_alone():
    tokens = np.arange(100, dtype=np.uint16)
    first = random_crops(tokens, 4, 6, seed=7, epoch=1)
    np.random.seed(0)
    np.testing.assert_array_equal(first, random_crops(tokens, 4, 6, seed=7, epoch=1))
    np.testing.assert_array_equal(first[:3], random_crops(tokens, 4, 3, seed=7, epoch=1))


def test_the_only_crop_of_the_shortest_text_is_all_of_it():
    np.testing.assert_array_equal(
        random_crops(np.array([4, 5, 6]), context=2, count=2, seed=0, epoch=0), [[4, 5, 6]] * 2
    )


# All windows


@pytest.mark.parametrize("size", range(4, 12))
def test_every_token_but_the_first_is_a_target_exactly_once(size):
    context, tokens = 3, np.arange(1, size + 1, dtype=np.uint8)
    rows, mask = windows(tokens, context)
    assert rows.dtype == np.int32 and rows.shape == (len(mask), 4) and mask.shape[1] == 3
    np.testing.assert_array_equal(rows[:, 1:][mask], tokens[1:])
    np.testing.assert_array_equal(rows[:, :-1][mask], tokens[:-1])  # each beside its input
    assert not rows[:, 1:][~mask].any()
    assert mask[:-1].all() and mask[-1].any()  # padding in the last window only, never all of it


@pytest.mark.parametrize("make", [windows, lambda t, c: random_crops(t, c, 1, seed=0, epoch=0)])
def test_windows_that_cannot_be_made_are_refused(make):
    with pytest.raises(ValueError, match=r"context \+ 1 = 8, got 7; take a longer text"):
        make(np.arange(7), 7)
    with pytest.raises(ValueError, match="context must be >= 1, got 0"):
        make(np.arange(7), 0)
    with pytest.raises(ValueError, match=r"one-dimensional, got shape \[4, 5\]"):
        make(np.zeros((4, 5), int), 2)
    with pytest.raises(TypeError, match="float64"):
        make(np.zeros(7), 2)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"epoch": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be >="):
        random_crops(np.arange(9), **{"context": 2, "count": 1, "seed": 0, "epoch": 0, **wrong})

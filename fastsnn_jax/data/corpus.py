"""A text to model, as tokens to train on and tokens held out; and the one door to it, by name."""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax._checks import check_choice
from fastsnn_jax.data.dataset import data_error
from fastsnn_jax.data.directory import data_directory
from fastsnn_jax.data.texts import Text, find_shakespeare, map_file, read_shakespeare, read_stdlib
from fastsnn_jax.data.tokenizers import Tokenizer, byte_tokenizer, char_tokenizer

TOKENIZERS = ("char", "byte")
BLOCK = 2**22  # tokens hashed at a time
REMEDY = (
    "point data_dir (--data-dir) or TFDS_DATA_DIR to a directory with tiny_shakespeare prepared by "
    "tensorflow_datasets, or give the path of a text file"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens ``train [n]`` and ``validation [m]``, integers, in memory or mapped from a file.

    ``validation`` is the end of the text and ``train`` all before it. ``source`` says where it
    comes from, in words. Raises DataError when a part is empty or not a row of integers.

    >>> tokens = char_tokenizer("tobe")
    >>> corpus = Corpus("tiny", "by hand", tokens.encode("to"), tokens.encode("be"), tokens)
    >>> corpus.bytes_per_token, corpus.describe()["sizes"]
    (1.0, {'train': 2, 'validation': 2})
    """

    name: str
    source: str
    train: np.ndarray
    validation: np.ndarray
    tokenizer: Tokenizer

    def __post_init__(self):
        for part, tokens in {"train": self.train, "validation": self.validation}.items():
            if tokens.ndim != 1 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
                raise data_error(
                    f"{self.name} {part} ({self.source})", "at least one token, in a row",
                    f"{tokens.dtype}{list(tokens.shape)}",
                )

    def describe(self) -> dict[str, Any]:
        """What a record says of it; sizes in tokens. Reads all of it once, for the hash."""
        sizes = {"train": self.train.size, "validation": self.validation.size}
        return {"name": self.name, "source": self.source, "sha256": self.sha256, "sizes": sizes}

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the text in UTF-8, as of its file, whatever the tokens are."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            for block in self._bytes(part):
                digest.update(block)
        return digest.hexdigest()

    @cached_property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per validation token: bits per byte = nats per token / this / ln 2."""
        return sum(map(len, self._bytes(self.validation))) / self.validation.size

    def _bytes(self, tokens: np.ndarray) -> Iterator[bytes]:
        for start in range(0, tokens.size, BLOCK):
            yield self.tokenizer.to_bytes(tokens[start:start + BLOCK])


def load_corpus(
    name: str | Path = "auto", data_dir: str | Path | None = None,
    tokenizer: str | Tokenizer | None = None,
    warn: Callable[[str], Any] = warnings.warn,
) -> Corpus:
    """Loads "tiny_shakespeare", "stdlib", a text file by its path, or with "auto" what there is.

    - "tiny_shakespeare": a prepared TFDS directory in ``data_dir``, else ``$TFDS_DATA_DIR``, else
      ``~/tensorflow_datasets``; its validation and test splits are the part held out.
    - "stdlib": 1 MB of the sources of Python's standard library, which are always there.
    - a path: a file in UTF-8. With byte tokens it is mapped, not read, and may exceed memory.

    Of the last two, the last 10 % of the bytes are held out. ``tokenizer`` is "char" (default for
    tiny_shakespeare), made of all characters of the text, "byte" (default otherwise), or one that
    is there already, such as that of a model to train further.

    "auto" falls back to "stdlib" only when nothing was asked for and nothing is there, and tells
    ``warn`` so. Raises ValueError for an unknown tokenizer, DataError for a text that is missing,
    empty, too short to split, or not UTF-8 though other than byte tokens were asked for.

    >>> load_corpus("stdlib").name
    'stdlib'
    """
    if isinstance(tokenizer, str):
        check_choice("load_corpus", "tokenizer", tokenizer, TOKENIZERS)
    text = _find_text(name, data_dir, warn)
    if tokenizer is None:
        tokenizer = "char" if text.name == "tiny_shakespeare" else "byte"
    if tokenizer in ("byte", byte_tokenizer()):
        return _bytes(text)
    return _encoded(text, tokenizer if isinstance(tokenizer, Tokenizer) else None)


def _find_text(
    name: str | Path, data_dir: str | Path | None, warn: Callable[[str], Any]
) -> Text:
    if name not in ("auto", "tiny_shakespeare"):
        if data_dir is not None:
            raise data_error(name, "no data_dir: it is not looked for there", data_dir)
        return read_stdlib() if name == "stdlib" else map_file(Path(name).expanduser())
    directory = data_directory(data_dir, REMEDY)
    prepared = find_shakespeare(directory)
    if prepared is not None:
        return read_shakespeare(prepared)
    if name == "tiny_shakespeare" or data_dir is not None:
        missing = "a directory without it" if directory.is_dir() else "no such directory"
        raise data_error(directory, "tiny_shakespeare", missing, REMEDY)
    text = read_stdlib()
    warn(
        f"no tiny_shakespeare in {directory}: using sources of Python's standard library instead "
        f"({text.data.size:,} bytes, other ones in another Python), whose losses say nothing about "
        f"Shakespeare; for tiny_shakespeare {REMEDY}"
    )
    return text


def _bytes(text: Text) -> Corpus:
    train, validation = text.data[:text.num_train], text.data[text.num_train:]
    return Corpus(text.name, text.source, train, validation, byte_tokenizer())


def _encoded(text: Text, tokenizer: Tokenizer | None) -> Corpus:
    """The text in tokens of any kind; None makes those of its characters."""
    try:
        parts = [part.tobytes().decode("utf-8")
                 for part in (text.data[:text.num_train], text.data[text.num_train:])]
    except UnicodeDecodeError as error:
        raise data_error(text.source, "UTF-8", error, "use byte tokens") from error
    tokenizer = tokenizer or char_tokenizer("".join(parts))
    dtype = _smallest_dtype(tokenizer.vocab_size)
    train, validation = (tokenizer.encode(part).astype(dtype) for part in parts)
    return Corpus(text.name, text.source, train, validation, tokenizer)


def _smallest_dtype(vocab_size: int) -> type[np.integer]:
    return np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.int32

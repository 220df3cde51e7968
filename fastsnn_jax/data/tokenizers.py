"""Text as integers: one token a byte, or one a character; saved beside the model that reads them.

Pieces of words are in ``fastsnn_jax.data.subwords``.
"""

import abc
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax._checks import check, check_choice, fail
from fastsnn_jax._files import write_text
from fastsnn_jax.data.dataset import data_error

SHOWN = 3  # how many bad characters or ids a message names


class Tokenizer(abc.ABC):
    """Text to ids ``int32[n]`` in ``0..vocab_size - 1`` and back; hashable, equal when alike."""

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """How many different ids there are."""

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The ids of ``text``, int32; ValueError naming what it cannot say, and where."""

    @abc.abstractmethod
    def to_bytes(self, ids: Any) -> bytes:
        """The UTF-8 bytes that ``ids [n]`` stand for; ValueError when some are out of range."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, str]:
        """What ``tokenizer_from_json`` makes an equal tokenizer of."""

    def decode(self, ids: Any) -> str:
        """The text of ``ids [n]``; what is not UTF-8, as half a character, becomes U+FFFD."""
        return self.to_bytes(ids).decode("utf-8", errors="replace")

    def save(self, path: str | Path) -> Path:
        """Writes the file ``path``, whole or not at all; OSError when the disk refuses."""
        path = Path(path)
        write_text(path, json.dumps(self.to_json(), indent=2) + "\n")
        return path


@dataclasses.dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte: any text, 256 ids."""

    @property
    def vocab_size(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        check_text("ByteTokenizer.encode", text)
        try:
            return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
        except UnicodeEncodeError as error:
            raise fail(
                "ByteTokenizer.encode", "text must consist of Unicode characters",
                f"{text[error.start]!r} at {error.start}",
            ) from error

    def to_bytes(self, ids: Any) -> bytes:
        return checked_ids(ids, self.vocab_size).astype(np.uint8).tobytes()

    def to_json(self) -> dict[str, str]:
        return {"kind": "byte"}


@dataclasses.dataclass(frozen=True)
class CharTokenizer(Tokenizer):
    """One token per character; id i is ``characters[i]``, and they ascend.

    Raises TypeError unless ``characters`` is a string, ValueError unless they are distinct Unicode
    characters in order, at least one.
    """

    characters: str

    def __post_init__(self):
        check_text("CharTokenizer", self.characters)
        codes = _codes(self.characters)
        check(
            codes.size > 0 and bool(np.all(np.diff(codes.astype(np.int64)) > 0)), "CharTokenizer",
            "characters must be at least one, distinct and ascending", repr(self.characters[:40]),
        )
        surrogates = self.characters[np.searchsorted(codes, 0xD800):np.searchsorted(codes, 0xE000)]
        check(not surrogates, "CharTokenizer", "characters must be Unicode", repr(surrogates[:1]))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        check_text("CharTokenizer.encode", text)
        known, codes = _codes(self.characters), _codes(text)
        ids = np.minimum(np.searchsorted(known, codes), self.vocab_size - 1).astype(np.int32)
        unknown = np.flatnonzero(known[ids] != codes)
        if unknown.size:
            shown = ", ".join(f"{text[at]!r} at {at}" for at in unknown[:SHOWN])
            raise fail(
                "CharTokenizer.encode", f"text must consist of its {self.vocab_size} characters",
                shown + _more(unknown.size), "leave them out, or train with byte tokens",
            )
        return ids

    def to_bytes(self, ids: Any) -> bytes:
        codes = _codes(self.characters)[checked_ids(ids, self.vocab_size)]
        return codes.tobytes().decode("utf-32-le").encode("utf-8")

    def to_json(self) -> dict[str, str]:
        return {"kind": "char", "characters": self.characters}


def byte_tokenizer() -> ByteTokenizer:
    """The tokenizer of UTF-8 bytes.

    >>> byte_tokenizer().encode("né")
    array([110, 195, 169], dtype=int32)
    >>> byte_tokenizer().decode([110, 195, 169])
    'né'
    """
    return ByteTokenizer()


def char_tokenizer(text: str) -> CharTokenizer:
    """The tokenizer of the distinct characters of ``text``, in the order of their code points.

    >>> tokenizer = char_tokenizer("banana")
    >>> tokenizer.vocab_size, tokenizer.encode("nab"), tokenizer.decode([1, 0])
    (3, array([2, 0, 1], dtype=int32), 'ba')
    """
    check_text("char_tokenizer", text)
    return CharTokenizer("".join(sorted(set(text))))


def tokenizer_from_json(mapping: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that ``to_json`` described.

    Raises TypeError for values of a wrong type, ValueError for an unknown kind, for fields missing
    or too many and for characters that are not those of a tokenizer.

    >>> tokenizer_from_json(char_tokenizer("no").to_json())
    CharTokenizer(characters='no')
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"tokenizer: expected an object, got {type(mapping).__name__}")
    from fastsnn_jax.data.subwords import SubwordTokenizer  # itself a Tokenizer

    kinds = {"byte": ByteTokenizer, "char": CharTokenizer, "subword": SubwordTokenizer}
    fields = dict(mapping)
    kind = fields.pop("kind", None)
    check_choice("tokenizer", "kind", kind, tuple(kinds))
    expected = [field.name for field in dataclasses.fields(kinds[kind])]
    check(
        sorted(fields) == expected, "tokenizer",
        f"kind {kind} must have the fields {['kind', *expected]}", sorted(mapping),
    )
    return kinds[kind](**fields)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads what ``save`` wrote, or the ``tokenizer.json`` of a published model.

    Raises DataError naming the file when it is missing or damaged.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        fields = json.loads(text)
        if isinstance(fields, dict) and "kind" not in fields and "model" in fields:
            fields = {"kind": "subword", "definition": text}
        return tokenizer_from_json(fields)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise data_error(path, "a saved tokenizer", error) from error


def check_text(where: str, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{where}: text must be a str, got {type(text).__name__}")


def _codes(text: str) -> np.ndarray:
    """Code points, uint32; a lone surrogate, which no file in UTF-8 holds, is let through."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4")


def checked_ids(ids: Any, vocab_size: int) -> np.ndarray:
    ids = np.asarray(ids)
    if not ids.size:  # [] is floating to NumPy
        return np.zeros(0, np.int32)
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"tokenizer: ids must be integers, got dtype {ids.dtype}")
    check(ids.ndim == 1, "tokenizer", "ids must be one-dimensional", f"shape {list(ids.shape)}")
    if ids.min() < 0 or ids.max() >= vocab_size:
        outside = np.flatnonzero((ids < 0) | (ids >= vocab_size))
        shown = ", ".join(f"{ids[at]} at {at}" for at in outside[:SHOWN])
        raise fail(
            "tokenizer", f"ids must be in 0..{vocab_size - 1}", shown + _more(outside.size)
        )
    return ids


def _more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""

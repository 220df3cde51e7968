"""Text as pieces of words, by the ``tokenizer.json`` of a published model."""

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax._checks import fail
from fastsnn_jax._files import write_text
from fastsnn_jax.data.tokenizers import Tokenizer, check_text, checked_ids


@dataclasses.dataclass(frozen=True)
class SubwordTokenizer(Tokenizer):
    """The tokenizer that a ``tokenizer.json`` defines.

    ``encode`` adds the marks that the model expects around a text, such as one for its beginning;
    texts of ids are without them. A character cut in half becomes U+FFFD.

    Raises TypeError unless ``definition`` is a string, ValueError unless it is the content of a
    ``tokenizer.json``.
    """

    definition: str = dataclasses.field(repr=False)

    def __post_init__(self):
        check_text("SubwordTokenizer", self.definition)
        self._core  # noqa: B018 - a bad definition is to fail here

    @property
    def vocab_size(self) -> int:
        return 1 + max(self._core.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> np.ndarray:
        check_text("SubwordTokenizer.encode", text)
        return np.array(self._core.encode(text).ids, np.int32)

    def to_bytes(self, ids: Any) -> bytes:
        return self._core.decode(checked_ids(ids, self.vocab_size).tolist()).encode("utf-8")

    def to_json(self) -> dict[str, str]:
        return {"kind": "subword", "definition": self.definition}

    def save(self, path: str | Path) -> Path:
        """Writes the ``tokenizer.json`` itself, whole or not at all."""
        path = Path(path)
        write_text(path, self.definition)
        return path

    @cached_property
    def _core(self) -> Any:
        import tokenizers

        where, expected = "SubwordTokenizer", "definition must be the content of a tokenizer.json"
        try:
            json.loads(self.definition)
            core = tokenizers.Tokenizer.from_str(self.definition)
        except Exception as error:
            if type(error) is not Exception and not isinstance(error, (ValueError, RecursionError)):
                raise  # all that tokenizers raises itself is a bare Exception
            raise fail(where, expected, " ".join(str(error).split())) from error
        # Settings for batches of training, which would cut or lengthen texts.
        core.no_truncation()
        core.no_padding()
        return core

"""Published language models, read from their own files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_choice
from fastsnn_jax.config import DTYPES, SNNConfig
from fastsnn_jax.data import DataError, Tokenizer, load_tokenizer
from fastsnn_jax.models import LanguageModel, build_model_from_config
from fastsnn_jax.pretrained.errors import PretrainedError, faults_of, pretrained_error
from fastsnn_jax.pretrained.hf_config import architecture_of, config_from_published, stop_tokens_of
from fastsnn_jax.pretrained.parameters import expected_parameters, nested
from fastsnn_jax.pretrained.safetensors_file import Stored
from fastsnn_jax.pretrained.shards import check_names, find_arrays, read_json, shown
from fastsnn_jax.pretrained.weight_names import IGNORED, Place, place_of

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
HEAD = "lm_head.weight"
# What weights may be kept in, and what they are then in memory.
KEPT_AS = {"F64": "float32", "F32": "float32", "F16": "float32", "BF16": "bfloat16"}


class Pretrained(NamedTuple):
    """A language model with its weights, ready for ``model.apply(variables, tokens)``.

    Attributes:
      model: built from ``config``.
      variables: ``{"params": ...}``.
      config: without spikes; ``dataclasses.replace(config, spiking=True)`` describes the spiking
        network of the same weights.
      tokenizer: None where there is no tokenizer.json.
      stop_tokens: ids that end a text, for ``generate``.
    """

    model: LanguageModel
    variables: dict[str, Any]
    config: SNNConfig
    tokenizer: Tokenizer | None
    stop_tokens: tuple[int, ...]


def load_pretrained(
    directory: str | Path, *, dtype: str | None = None, window_inclusive: bool | None = None
) -> Pretrained:
    """Reads a model of Llama, Qwen2, Qwen2.5, Qwen3 or SpikingBrain-7B, or one of our own.

    The directory holds ``config.json``, ``model.safetensors`` or its shards and their index, and
    perhaps ``tokenizer.json``. All is checked before the first weight is read; nothing in it is
    executed, and pickles are not opened.

    Args:
      directory: as downloaded, or written by ``save_pretrained``.
      dtype: "float32" or "bfloat16", of weights and computation; None keeps the weights as they
        are (float16 becomes float32) and computes as config.json says.
      window_inclusive: whether sliding windows see W + 1 keys; None for what config.json says,
        or the model was trained with.
    Raises:
      PretrainedError: for files that are missing or damaged, a model that ours cannot be exactly,
        arrays that are missing, too many, or of another shape or dtype than config.json asks for,
        and a tokenizer with ids that the model has not.
      ValueError: for an unknown ``dtype``.

    >>> import tempfile
    >>> config = SNNConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=1, d_ff=12)
    >>> model, tokens = build_model_from_config(config), jnp.array([[1, 2, 3]])
    >>> from fastsnn_jax.pretrained import save_pretrained
    >>> directory = Path(tempfile.mkdtemp()) / "tiny"
    >>> directory = save_pretrained(directory, config, model.init(jax.random.key(0), tokens))
    >>> loaded = load_pretrained(directory)
    >>> logits, activity = loaded.model.apply(loaded.variables, tokens)
    >>> logits.shape, loaded.config == config
    ((1, 3, 11), True)
    """
    if dtype is not None:
        check_choice("load_pretrained", "dtype", dtype, DTYPES)
    directory = Path(directory).expanduser()
    if not directory.is_dir():
        raise pretrained_error(directory, "it must be a directory", "none")
    fields = read_json(directory / CONFIG_FILE)
    with faults_of(directory / CONFIG_FILE):
        config = config_from_published(fields, window_inclusive)
        if dtype is not None:
            config = dataclasses.replace(config, dtype=dtype)
        stop_tokens = stop_tokens_of(fields, config.vocab_size)
        arrays = find_arrays(directory)
        # Before as many blocks are built.
        check(config.n_layers <= len(arrays), CONFIG_FILE,
              f"there must be at most as many layers as arrays, {len(arrays)}", config.n_layers)
        model = build_model_from_config(config)
        expected = expected_parameters(config)
    places = {path: place_of(architecture_of(fields), path) for path in expected}
    _check_arrays(directory, expected, places, arrays)
    tokenizer = _tokenizer(directory / TOKENIZER_FILE, config.vocab_size)
    variables = nested({
        path: _read(arrays[place.name], place, dtype) for path, place in places.items()
    })
    return Pretrained(model, variables, config, tokenizer, stop_tokens)


def _check_arrays(
    directory: Path, expected: Mapping[str, tuple[int, ...]], places: Mapping[str, Place],
    arrays: Mapping[str, Stored],
) -> None:
    """Raises PretrainedError unless the files hold what the model needs and no more."""
    found = {name for name in arrays if not IGNORED.fullmatch(name)}
    needed = {place.name for place in places.values()}
    if HEAD in found - needed and _is_tied(arrays, places):
        found.discard(HEAD)
    check_names(f"{directory} against {CONFIG_FILE}", needed, found)
    faults = []
    for path, place in places.items():
        array = arrays[place.name]
        shape = expected[path][::-1] if place.transposed else expected[path]
        if array.shape != shape:
            faults.append(f"{place.name} is {list(array.shape)} and not {list(shape)}")
        elif array.dtype not in KEPT_AS:
            faults.append(f"{place.name} is {array.dtype} and not {', '.join(KEPT_AS)}")
    if faults:
        raise pretrained_error(directory, f"arrays must be those of {CONFIG_FILE}",
                               shown(faults, "; "))


def _is_tied(arrays: Mapping[str, Stored], places: Mapping[str, Place]) -> bool:
    """Whether the head, which config.json ties to the embedding, is stored again and the same."""
    embedding, head = arrays.get(places["embed/embedding"].name), arrays[HEAD]
    return embedding is not None and embedding[2:] == head[2:] and (
        embedding.read().tobytes() == head.read().tobytes()
    )


def _read(stored: Stored, place: Place, dtype: str | None) -> jax.Array:
    array = stored.read()
    kept = jnp.dtype(KEPT_AS[stored.dtype] if dtype is None else dtype)
    return jnp.asarray((array.T if place.transposed else array).astype(kept, order="C"))


def _tokenizer(path: Path, vocab_size: int) -> Tokenizer | None:
    if not path.exists():
        return None
    try:
        tokenizer = load_tokenizer(path)
    except DataError as error:
        raise PretrainedError(str(error)) from error
    if tokenizer.vocab_size > vocab_size:
        raise pretrained_error(path, f"its ids must be below {vocab_size}, the model's vocabulary",
                               f"up to {tokenizer.vocab_size - 1}")
    return tokenizer

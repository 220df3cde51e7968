"""Traces of a run: what a few neurons did at every step, small enough to lie beside the record.

A trace is a plain dict; every entry may be left out:

    raster        {layer: uint8 [T, N]}   spikes of N neurons (a count above 1 where a step may
                                          send several); the steps of a language model are tokens
    membrane      {layer: float [T, N]}
    threshold     {layer: float}          of that membrane
    rates         {layer: float [N]}      spikes per neuron and step of *all* neurons of the layer
    tokens        [text]                  the L tokens that were read
    token_spikes  {layer: number [L]}     spikes that arrive at a layer, in the report's coding
    drift         {name: float [E]}       a threshold or decay after every epoch or logged step
"""

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..._checks import check, check_number, fail
from ..._files import written_whole

Traces: TypeAlias = dict[str, Any]

FILE_NAME = "traces.npz"
MAX_LAYERS = 64
MAX_STEPS = 512  # steps of a raster, a membrane; tokens of a text
MAX_NEURONS = 64
MAX_RATES = 65_536
MAX_LETTERS = 64
MAX_FILE_BYTES = 32 << 20  # unpacked; all of the above at once would be less
INDEX = "index"


def save_traces(path: str | os.PathLike[str], traces: Mapping[str, Any]) -> Path:
    """Writes traces to the file ``path``, or to ``traces.npz`` in the directory ``path``.

    The same traces give the same bytes. Returns the path written.

    Raises ValueError, before touching the disk, for what ``check_traces`` refuses; OSError when
    the disk does.
    """
    clean = check_traces("save_traces", traces)
    index: dict[str, Any] = {"tokens": clean.pop("tokens", None)}
    arrays: dict[str, np.ndarray] = {}
    for kind, layers in clean.items():
        index[kind] = list(layers)
        arrays |= {f"{kind}_{i}": np.asarray(layers[name]) for i, name in enumerate(layers)}
    text = json.dumps(index).encode()
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **{INDEX: np.frombuffer(text, np.uint8)},
                        **arrays)
    path = _file(path)
    with written_whole(path) as scratch:
        scratch.write_bytes(packed.getvalue())
    return path


def load_traces(path: str | os.PathLike[str]) -> Traces:
    """Reads back what ``save_traces`` wrote, from a file or the directory of a run.

    Raises ValueError, naming the file, when it is missing, damaged, too large or not of traces.
    """
    path = _file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        check(size <= MAX_FILE_BYTES, str(path), f"traces must unpack to {MAX_FILE_BYTES} bytes",
              size)
        with np.load(path, allow_pickle=False) as members:
            index = json.loads(members[INDEX].tobytes())
            check(isinstance(index, dict), "index", "an object", type(index).__name__)
            kinds = [kind for kind in index if kind != "tokens"]
            traces: Traces = {
                kind: {name: members[f"{kind}_{i}"] for i, name in enumerate(index[kind])}
                for kind in kinds
            }
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError,
            zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: expected readable traces of a run, got {reason}") from error
    if index["tokens"] is not None:
        traces["tokens"] = index["tokens"]
    return check_traces(str(path), traces)


def check_traces(where: str, traces: Any) -> Traces:
    """The traces on the host, each entry in the one dtype it has in the file.

    Raises ValueError, naming the entry, for an unknown or empty entry, values that are no finite
    numbers, or sizes above the limits of this file.
    """
    check(isinstance(traces, Mapping), where, "traces must be a dict", type(traces).__name__)
    unknown = [name for name in traces if name not in _ENTRIES and name != "tokens"]
    check(not unknown, where, f"traces must be of {', '.join(_ENTRIES)} and tokens", unknown)
    clean: Traces = {}
    for kind, clean_one in _ENTRIES.items():
        if kind not in traces:
            continue
        layers = traces[kind]
        fits = isinstance(layers, Mapping) and 1 <= len(layers) <= MAX_LAYERS
        check(fits, where, f"{kind} must be a dict of 1 to {MAX_LAYERS} layers", _size(layers))
        check(all(isinstance(name, str) for name in layers), where,
              f"{kind} must have text as keys", list(layers))
        clean[kind] = {name: clean_one(where, f"{kind} of {name}", layers[name])
                       for name in layers}
    if "tokens" in traces:
        clean["tokens"] = _tokens(where, traces["tokens"])
    _check_lengths(where, clean)
    return clean


def _spikes(where: str, name: str, values: Any) -> np.ndarray:
    array = _numbers(where, name, values, (MAX_STEPS, MAX_NEURONS), np.float64)
    whole = bool(((array >= 0) & (array <= 255) & (array == np.floor(array))).all())
    check(whole, where, f"{name} must be whole numbers in 0..255", f"{array.min()}..{array.max()}")
    return array.astype(np.uint8)


def _membrane(where: str, name: str, values: Any) -> np.ndarray:
    return _numbers(where, name, values, (MAX_STEPS, MAX_NEURONS), np.float32)


def _rates(where: str, name: str, values: Any) -> np.ndarray:
    return _not_negative(where, name, _numbers(where, name, values, (MAX_RATES,), np.float32))


def _token_spikes(where: str, name: str, values: Any) -> np.ndarray:
    return _not_negative(where, name, _numbers(where, name, values, (MAX_STEPS,), np.float64))


def _drift(where: str, name: str, values: Any) -> np.ndarray:
    return _numbers(where, name, values, (MAX_RATES,), np.float64)


def _threshold(where: str, name: str, value: Any) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    check_number(where, name, value, above=-np.inf, at_most=float(np.finfo(np.float64).max))
    return float(value)


_ENTRIES: dict[str, Callable[[str, str, Any], Any]] = {
    "raster": _spikes, "membrane": _membrane, "threshold": _threshold, "rates": _rates,
    "token_spikes": _token_spikes, "drift": _drift,
}


def _numbers(where: str, name: str, values: Any, limit: tuple[int, ...], dtype: Any) -> np.ndarray:
    array = np.asarray(values)
    fits = array.ndim == len(limit) and all(
        1 <= size <= most for size, most in zip(array.shape, limit, strict=False)
    )
    shape = " x ".join(map(str, limit))
    check(fits, where, f"{name} must have {len(limit)} axes, at most {shape} and none empty",
          f"shape {array.shape}", "keep a few of the neurons and of the steps")
    check(array.dtype.kind in "biuf", where, f"{name} must be numbers", f"dtype {array.dtype}")
    with np.errstate(over="ignore"):  # what does not fit becomes an infinity, refused below
        array = array.astype(dtype)
    check(bool(np.isfinite(array).all()), where, f"{name} must be finite", "NaN or infinity")
    return array


def _not_negative(where: str, name: str, array: np.ndarray) -> np.ndarray:
    check(bool((array >= 0).all()), where, f"{name} must be >= 0", array.min())
    return array


def _tokens(where: str, tokens: Any) -> list[str]:
    fits = isinstance(tokens, list) and 1 <= len(tokens) <= MAX_STEPS
    check(fits, where, f"tokens must be a list of 1 to {MAX_STEPS} texts", _size(tokens))
    for token in tokens:
        short = isinstance(token, str) and len(token) <= MAX_LETTERS
        check(short, where, f"a token must be a text of at most {MAX_LETTERS} letters", repr(token))
    return list(tokens)


def _check_lengths(where: str, traces: Traces) -> None:
    """One length over all layers of what shares an axis."""
    for kind in ("raster", "membrane", "token_spikes"):
        lengths = {name: len(array) for name, array in traces.get(kind, {}).items()}
        check(len(set(lengths.values())) <= 1, where, f"{kind} must have one length", lengths)
    if "token_spikes" in traces:
        if "tokens" not in traces:
            raise fail(where, "token_spikes need the tokens they belong to", "none")
        length = len(next(iter(traces["token_spikes"].values())))
        expected = f"token_spikes must have {len(traces['tokens'])} entries, one per token"
        check(length == len(traces["tokens"]), where, expected, length)
    for name in traces.get("threshold", {}):
        check(name in traces.get("membrane", {}), where,
              "a threshold must be of a layer with a membrane", name)


def _size(value: Any) -> str:
    return str(len(value)) if isinstance(value, (Mapping, list)) else type(value).__name__


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path

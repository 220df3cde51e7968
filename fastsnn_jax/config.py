"""SNNConfig: everything that decides the shape and the dynamics of a language model."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax._checks import check, check_choice, check_count, check_number, fail
from fastsnn_jax._files import write_text
from fastsnn_jax._rope_scaling import check_rope_scaling

FEATURE_MAPS = ("softplus", "relu", "exp", "elu1")
GATES = ("none", "query", "decay")
NORMALIZERS = ("z", "rms")
NORMS = ("rms", "layer")
ROUNDINGS = ("nearest", "down")
DTYPES = ("float32", "bfloat16")
SUFFIXES = (".json", ".yaml", ".yml")

_KINDS = ("attn_kind", "neuron", "ffn")
_COUNTS = ("vocab_size", "d_model", "n_heads", "n_layers", "d_ff", "window", "softmax_every")
_SWITCHES = (
    "tie_lm_head", "spiking", "spiking_lm_head", "window_inclusive", "qkv_bias", "output_bias",
    "qk_norm",
)


@dataclasses.dataclass(frozen=True)
class SNNConfig:
    """Configuration of a spiking language model; values are validated on creation.

    The names of kinds (``attn_kind``, ``neuron``, ``ffn``) are looked up when a model is built,
    so that a configuration may name what is registered later.

    Attributes:
      vocab_size, d_model, n_heads, n_layers, d_ff: sizes V, D, H, number of blocks, FFN width.
      attn_kind: "linear", "sliding", "softmax", "hybrid_alt", "interleaved", "parallel_sum", or a
        registered name.
      window: W, keys that each position of a sliding-window attention sees, itself included.
      window_inclusive: it also sees the key W positions back, W + 1 keys, as SpikingBrain-7B does.
      dropout: share of activations dropped while training, in [0, 1).
      tie_lm_head: the output projection is the transposed embedding.
      n_kv_heads: G, key and value heads, a divisor of ``n_heads``; None for ``n_heads``.
      head_dim: size of a head; None for ``d_model // n_heads``, which must then divide.
      spiking: projections read spikes; False gives the twin that reads activations.
      spiking_lm_head: the output projection reads spikes too.
      neuron: what turns activations into counts.
      k: mean count of the adaptive threshold, ``V = mean|x| / k``.
      rounding: of counts: "nearest" or "down" (towards 0), which fires less.
      ffn: "pulse" or a registered name.
      feature_map: of linear attention: "softplus", "relu", "exp" or "elu1".
      gate: of linear attention: "none", "query" (sigmoid gate on the query features, FastSNN) or
        "decay" (low-rank forgetting gate per channel, GLA).
      normalizer: of linear attention: "z" (running sum of keys) or "rms" (RMSNorm per head).
      softmax_every: hybrids add softmax in layers whose number is a multiple of it.
      norm, norm_eps: normalisation before attention and FFN, "rms" or "layer".
      rope_theta, rope_scaling: rotary positions; scaling is None or a mapping such as
        ``{"rope_type": "linear", "factor": 2.0}``, see ``attention.rope``; kept as sorted pairs
        so that the configuration is hashable.
      qkv_bias, output_bias: the query, key and value projections, or the attention's output
        projection, have a bias.
      qk_norm: RMSNorm on each head of queries and keys.
      dtype: of the computation, "float32" or "bfloat16"; parameters and states of linear
        attention are float32, key and value caches of this dtype.

    Raises ValueError for a value that is not allowed, TypeError for one of another type.

    >>> cfg = SNNConfig(d_model=128, n_heads=8, n_kv_heads=2)
    >>> cfg.size_of_head, cfg.kv_heads
    (16, 2)
    >>> SNNConfig.from_json(cfg.to_json()) == cfg
    True
    """

    vocab_size: int = 32000
    d_model: int = 256
    n_heads: int = 4
    n_layers: int = 4
    d_ff: int = 1024
    attn_kind: str = "linear"
    window: int = 128
    window_inclusive: bool = False
    dropout: float = 0.0
    tie_lm_head: bool = True
    n_kv_heads: int | None = None
    head_dim: int | None = None
    spiking: bool = True
    spiking_lm_head: bool = False
    neuron: str = "adaptive_threshold"
    k: float = 3.0
    rounding: str = "nearest"
    ffn: str = "pulse"
    feature_map: str = "softplus"
    gate: str = "query"
    normalizer: str = "z"
    softmax_every: int = 6
    norm: str = "rms"
    norm_eps: float = 1e-6
    rope_theta: float = 1e4
    rope_scaling: Mapping[str, Any] | tuple[tuple[str, Any], ...] | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        where = "SNNConfig"
        for name in _KINDS:
            _check_name(where, name, getattr(self, name))
        for name in _COUNTS:
            check_count(where, name, getattr(self, name))
            check(getattr(self, name) < 2**31, where, f"{name} must be < 2**31",
                  getattr(self, name))
        for name in ("n_kv_heads", "head_dim"):
            if getattr(self, name) is not None:
                check_count(where, name, getattr(self, name))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"{where}: {name} must be true or false, got {getattr(self, name)!r}"
                )
        check_number(where, "dropout", self.dropout, at_least=0)
        check(self.dropout < 1, where, "dropout must be < 1", self.dropout)
        check_number(where, "k", self.k, above=0, at_most=1e6)
        check_number(where, "norm_eps", self.norm_eps, above=0, at_most=1)
        check_number(where, "rope_theta", self.rope_theta, above=1, at_most=1e30)
        check_choice(where, "feature_map", self.feature_map, FEATURE_MAPS)
        check_choice(where, "gate", self.gate, GATES)
        check_choice(where, "normalizer", self.normalizer, NORMALIZERS)
        check_choice(where, "norm", self.norm, NORMS)
        check_choice(where, "rounding", self.rounding, ROUNDINGS)
        check_choice(where, "dtype", self.dtype, DTYPES)
        check(self.head_dim is not None or self.d_model % self.n_heads == 0, where,
              f"d_model must be a multiple of n_heads {self.n_heads}", self.d_model,
              "or give head_dim")
        check(self.n_heads % self.kv_heads == 0, where,
              f"n_kv_heads must divide n_heads {self.n_heads}", self.n_kv_heads)
        scaling = _sorted_pairs(where, self.rope_scaling)
        check_rope_scaling(where, "rope_scaling", scaling)
        object.__setattr__(self, "rope_scaling", scaling)

    @property
    def kv_heads(self) -> int:
        """G, the number of key and value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def size_of_head(self) -> int:
        """Features of one head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    def to_json(self) -> dict[str, Any]:
        """Plain dict of every field; ``from_json`` gives the configuration back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in fields.items():
            if isinstance(value, np.generic):
                fields[name] = value.item()
        if self.rope_scaling is not None:
            fields["rope_scaling"] = dict(self.rope_scaling)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "SNNConfig":
        """Configuration of the given fields, the others at their defaults.

        Raises ValueError for an unknown field or a bad value, TypeError for an ill-typed one.
        """
        check_fields(cls, fields)
        return cls(**fields)

    def save(self, path: str | Path) -> None:
        """Writes a .json, .yaml or .yml file, all of it or nothing."""
        path = Path(path)
        check(path.suffix in SUFFIXES, "SNNConfig", f"file must end in {', '.join(SUFFIXES)}",
              repr(str(path)))
        if path.suffix == ".json":
            text = json.dumps(self.to_json(), indent=2) + "\n"
        else:
            import yaml

            text = yaml.safe_dump(self.to_json(), sort_keys=False)
        write_text(path, text)

    @classmethod
    def load(cls, path: str | Path) -> "SNNConfig":
        """Reads a .json, .yaml or .yml file.

        Raises ValueError, naming the file, when it is missing or damaged or holds an unknown field
        or a bad value, TypeError when it holds an ill-typed one.
        """
        path = Path(path)
        check(path.suffix in SUFFIXES, "SNNConfig", f"file must end in {', '.join(SUFFIXES)}",
              repr(str(path)))
        fields = read_fields("SNNConfig", path)
        try:
            return cls.from_json(fields)
        except (ValueError, TypeError) as error:
            trap = path.suffix != ".json" and "must be a number" in str(error)
            hint = "; YAML takes 1e-6 for text, write 1.0e-6" if trap else ""
            raise type(error)(f"{path}: {error}{hint}") from error


def check_fields(kind: type, fields: Any) -> None:
    """Raises TypeError unless ``fields`` is a mapping, ValueError where ``kind``, a dataclass, has
    none of that name."""
    if not isinstance(fields, Mapping):
        raise TypeError(f"{kind.__name__}: fields must be a mapping, got {type(fields).__name__}")
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = ", ".join(repr(name) for name in fields if name not in known)
    check(not unknown, kind.__name__, f"fields must be among {', '.join(known)}", unknown)


def read_fields(where: str, path: str | Path) -> dict[str, Any]:
    """Fields of a configuration from a YAML (.yaml, .yml) or else JSON file.

    Raises ValueError, naming the file, when it is missing or damaged or holds no mapping.
    """
    path = Path(path)
    is_yaml = path.suffix in SUFFIXES[1:]
    try:
        text = path.read_text(encoding="utf-8")
        fields = _parse_yaml(text) if is_yaml else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        language = "YAML" if is_yaml else "JSON"
        reason = " ".join(str(error).split())
        raise fail(where, f"{path} must be a readable {language} file", reason) from error
    check(isinstance(fields, dict), where, f"{path} must hold a mapping of fields",
          type(fields).__name__)
    strange = [name for name in fields if not isinstance(name, str)]
    check(not strange, where, f"fields of {path} must have names", strange)
    return fields


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _check_name(where: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{where}: {name} must be a string, got {value!r}")
    check(value.strip() != "", where, f"{name} must not be empty", repr(value))


def _sorted_pairs(where: str, scaling: Any) -> tuple[tuple[str, Any], ...] | None:
    """``rope_scaling`` in its hashable form."""
    if scaling is None:
        return None
    # Pairs are what `dataclasses.replace` hands on.
    pairs = scaling.items() if isinstance(scaling, Mapping) else scaling
    if not isinstance(scaling, (Mapping, tuple)) or any(not _is_pair(pair) for pair in pairs):
        raise TypeError(f"{where}: rope_scaling must be a mapping or None, got {scaling!r}")
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, (str, int, float)):
            raise TypeError(f"{where}: rope_scaling must map names to numbers or strings, "
                            f"got {name!r}: {value!r}")
        if isinstance(value, float):
            check(math.isfinite(value), where, f"rope_scaling {name} must be finite", value)
    return tuple(sorted(pairs))


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2

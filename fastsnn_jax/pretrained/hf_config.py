"""``config.json`` of published models: the configuration it describes.

Read in the spelling of transformers 4 (``rope_theta``, ``rope_scaling``, ``torch_dtype``) and 5
(``rope_parameters``, ``dtype``) alike. What the language model cannot hold exactly is refused.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax._rope_scaling import NUMBERS
from fastsnn_jax.config import SNNConfig

OWN = "FastSNNForCausalLM"  # what no published layout says in full
OWN_CONFIG = "snn_config"
MAX_LAYERS = 10_000  # lists as long are made of it
COMPUTED_IN = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float32"}
_SIZES = {
    "vocab_size": "vocab_size", "d_model": "hidden_size", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads", "d_ff": "intermediate_size",
}
_LENGTH = "original_max_position_embeddings"
_YARN_BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}  # Peng et al. 2023, as Qwen2.5 leaves out

Fields = Mapping[str, Any]


class Architecture(NamedTuple):
    """A published model class.

    Attributes:
      model_type: the other name by which config.json knows it.
      details: what the class fixes and config.json does not say or says in its own words.
      fixed: values that config.json must have where it has the key.
      head_dim: size of a head where config.json has none; None for ``hidden_size / heads``.
      eps: key of the norms' epsilon.
    """

    model_type: str
    details: Callable[[Fields], dict[str, Any]]
    fixed: dict[str, Any]
    head_dim: int | None = None
    eps: str = "rms_norm_eps"


def architecture_of(fields: Fields) -> str:
    """Name of the class that ``config.json`` is of; ValueError where it is none of ours."""
    by_type = {own.model_type: name for name, own in ARCHITECTURES.items()}
    named = fields.get("architectures")
    if named is None:
        check_choice("config.json", "model_type", fields.get("model_type"), tuple(by_type))
        return by_type[fields["model_type"]]
    one = isinstance(named, list) and len(named) == 1 and named[0] in ARCHITECTURES
    check(one, "config.json", f"architectures must be one of {', '.join(ARCHITECTURES)}", named)
    expected = ARCHITECTURES[named[0]].model_type
    check(fields.get("model_type", expected) == expected, "config.json",
          f"model_type of {named[0]} must be {expected!r}", repr(fields.get("model_type")))
    return named[0]


def config_from_published(fields: Fields, window_inclusive: bool | None = None) -> SNNConfig:
    """The configuration, without spikes, of the model that ``config.json`` describes.

    Args:
      fields: of config.json.
      window_inclusive: see `SNNConfig`; None for what the model was trained with.
    Raises:
      ValueError: for a class, an option or a number that the language model cannot hold, and for
        a size that is missing.
      TypeError: for a value of another type.
    """
    name = architecture_of(fields)
    if name == OWN:
        return SNNConfig.from_json(fields.get(OWN_CONFIG, {}))
    architecture = ARCHITECTURES[name]
    fields = {key: value for key, value in fields.items() if value is not None}  # as if absent
    fixed = _FIXED | architecture.fixed
    for key in fixed.keys() & fields.keys():
        given, value = fields[key], fixed[key]
        choices = value if isinstance(value, tuple) else (value,)
        check(given in choices, "config.json",
              f"{key} of {name} must be {' or '.join(map(repr, choices))}", repr(given))
    values: dict[str, Any] = {ours: _size(fields, theirs) for ours, theirs in _SIZES.items()}
    check(values["n_layers"] <= MAX_LAYERS, "config.json",
          f"num_hidden_layers must be <= {MAX_LAYERS}", values["n_layers"])
    theta, scaling = _rope(fields)
    details = architecture.details(fields)
    if window_inclusive is not None:
        details["window_inclusive"] = window_inclusive
    return filled(SNNConfig(
        **values, n_kv_heads=_optional(fields, "num_key_value_heads"),
        head_dim=_optional(fields, "head_dim", architecture.head_dim),
        norm_eps=fields.get(architecture.eps, 1e-6), rope_theta=theta, rope_scaling=scaling,
        tie_lm_head=fields.get("tie_word_embeddings", False), dtype=_dtype(fields), spiking=False,
        ffn="gated", norm="rms", **details,
    ))


def filled(config: SNNConfig) -> SNNConfig:
    """The configuration with the sizes that it left open."""
    return dataclasses.replace(
        config, n_kv_heads=config.kv_heads, head_dim=config.size_of_head
    )


def stop_tokens_of(fields: Fields, vocab_size: int) -> tuple[int, ...]:
    """Ids in ``eos_token_id``: a number, several, or none."""
    given = fields.get("eos_token_id")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    for token in ids:
        check_count("config.json", "eos_token_id", token, at_least=0)
        check(token < vocab_size, "config.json", f"eos_token_id must be below {vocab_size}", token)
    return tuple(ids)


def _size(fields: Fields, key: str) -> int:
    check(key in fields, "config.json", f"{key} must be given", "none")
    check_count("config.json", key, fields[key])
    return fields[key]


def _optional(fields: Fields, key: str, default: int | None = None) -> int | None:
    return _size(fields, key) if key in fields else default


def _dtype(fields: Fields) -> str:
    name = _agreed(fields, "dtype", "torch_dtype")
    if name is None:
        return "float32"
    check_choice("config.json", "dtype", name, tuple(COMPUTED_IN))
    return COMPUTED_IN[name]


def _agreed(fields: Fields, new: str, old: str) -> Any:
    """The value of a key that transformers 5 renamed."""
    given = [fields[key] for key in (new, old) if key in fields]
    check(len(given) < 2 or given[0] == given[1], "config.json",
          f"{new} and {old} must agree", given)
    return given[0] if given else None


# Rotary positions


def _rope(fields: Fields) -> tuple[float, dict[str, Any] | None]:
    """Base of the wavelengths, and the scaling in the form of `SNNConfig`."""
    given = _agreed(fields, "rope_parameters", "rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise TypeError(f"config.json: rope parameters must be an object or null, got {given!r}")
    given = {key: value for key, value in given.items() if value is not None}
    thetas = [holder["rope_theta"] for holder in (given, fields) if "rope_theta" in holder]
    check(len(set(thetas)) < 2, "config.json", "rope_theta must be one number", thetas)
    given.pop("rope_theta", None)
    kinds = {str(given.pop(key)) for key in ("rope_type", "type") if key in given}
    check(len(kinds) < 2, "config.json", "rope_type and type must agree", sorted(kinds))
    kind = kinds.pop() if kinds else "default"
    part = given.pop("partial_rotary_factor", 1.0)
    check(part == 1, "config.json", "partial_rotary_factor must be 1", part)
    theta = thetas[0] if thetas else 1e4
    if kind == "default":
        check(not given, "config.json", "rope parameters must name their rope_type", sorted(given))
        return theta, None
    scaling = {"rope_type": kind} | given
    if _LENGTH in NUMBERS.get(kind, ()):
        now = fields.get("max_position_embeddings")
        scaling[_LENGTH] = now if kind == "dynamic" else fields.get(
            _LENGTH, scaling.get(_LENGTH, now))
        check_count("config.json", _LENGTH, scaling[_LENGTH])
    else:
        scaling.pop(_LENGTH, None)
    return theta, _yarn(scaling) if kind == "yarn" else scaling


def _yarn(given: dict[str, Any]) -> dict[str, Any]:
    """The numbers of ``yarn`` with those that config.json may leave out."""
    scaling = _YARN_BETAS | given
    check(scaling.pop("truncate", True) is True, "config.json", "truncate of yarn must be true",
          "false")
    check_number("config.json", "factor of yarn", scaling.get("factor"), at_least=1)
    over, under = scaling.pop("mscale", None), scaling.pop("mscale_all_dim", None)

    def gain(weight: float) -> float:
        return 1 + 0.1 * weight * math.log(scaling["factor"])

    scaling.setdefault("attention_factor", gain(over) / gain(under) if over and under else gain(1))
    return scaling


# What each class says in its own words


def _llama(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", False)
    return {"attn_kind": "softmax", "qkv_bias": bias, "output_bias": bias}


def _qwen2(fields: Fields) -> dict[str, Any]:
    return {"qkv_bias": True} | _qwen_window(fields)


def _qwen3(fields: Fields) -> dict[str, Any]:
    return _llama(fields) | {"qk_norm": True} | _qwen_window(fields)


def _qwen_window(fields: Fields) -> dict[str, Any]:
    """Softmax over all keys, or over the last ``sliding_window`` in every layer."""
    layers = _size(fields, "num_hidden_layers")
    first = fields.get("max_window_layers", 28) if fields.get("use_sliding_window", False) else None
    kinds = fields.get("layer_types") or [
        "full_attention" if first is None or layer < first else "sliding_attention"
        for layer in range(layers)
    ]
    known = isinstance(kinds, list) and len(kinds) == layers and kinds == kinds[:1] * layers
    check(known, "config.json", f"attention must be of one kind in all {layers} layers", kinds)
    check_choice("config.json", "layer_types", kinds[0], ("full_attention", "sliding_attention"))
    if kinds[0] == "full_attention":
        return {"attn_kind": "softmax"}
    return {"attn_kind": "sliding", "window": _size(fields, "sliding_window")}


def _gla_swa(fields: Fields) -> dict[str, Any]:
    """SpikingBrain-7B: GLA in even layers; in odd ones a window that includes its far end."""
    layers = _size(fields, "num_hidden_layers")
    odd = list(range(1, layers, 2))
    check(fields.get("attn_layers", odd) == odd, "config.json",
          f"attn_layers must be the odd ones, {odd}", fields.get("attn_layers"))
    return {
        "attn_kind": "interleaved", "feature_map": "relu", "gate": "decay", "normalizer": "rms",
        "qkv_bias": True, "window": _size(fields, "sliding_window"),
        "window_inclusive": fields.get("window_inclusive", True),
    }


_FIXED = {
    "hidden_act": ("silu", "swish"), "mlp_bias": False, "quantization_config": None,
    "partial_rotary_factor": 1,
}
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", _llama, {}),
    "Qwen2ForCausalLM": Architecture("qwen2", _qwen2, {}),
    "Qwen3ForCausalLM": Architecture("qwen3", _qwen3, {}, head_dim=128),
    "GLAswaForCausalLM": Architecture("gla_swa", _gla_swa, {
        "use_short_conv": False, "elementwise_affine": True, "gate_logit_normalizer": 16,
        "gate_low_rank_dim": 16,
    }, eps="norm_eps"),
    OWN: Architecture("fastsnn_jax", lambda fields: {}, {}),
}

"""The ``config.json`` that a configuration is published as."""

from typing import Any

from fastsnn_jax.config import SNNConfig
from fastsnn_jax.pretrained.hf_config import (
    ARCHITECTURES,
    OWN,
    OWN_CONFIG,
    config_from_published,
    filled,
)


def published_fields(config: SNNConfig) -> dict[str, Any]:
    """Fields of ``config.json``, from which ``config_from_published`` makes ``config`` again.

    In the layout of the first published class that can say all of it, its sizes filled in where
    they were left open, spelled so that transformers 4 and 5 read it; else in a layout of our own.
    """
    expected = filled(config)
    for name in ARCHITECTURES:
        fields = _fields(name, expected)
        try:
            if config_from_published(fields) == expected:
                return fields
        except ValueError:  # the class has no such layers
            continue
    return _head(OWN) | {OWN_CONFIG: config.to_json()}


def _head(name: str) -> dict[str, Any]:
    return {"architectures": [name], "model_type": ARCHITECTURES[name].model_type}


def _fields(name: str, config: SNNConfig) -> dict[str, Any]:
    """What the configuration is called in the layout of a class; more than the class reads."""
    scaling = None if config.rope_scaling is None else dict(config.rope_scaling)
    sliding = config.attn_kind == "sliding"
    fields = {
        "vocab_size": config.vocab_size, "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "head_dim": config.head_dim,
        "intermediate_size": config.d_ff, "hidden_act": "silu",
        ARCHITECTURES[name].eps: config.norm_eps, "rope_theta": config.rope_theta,
        "rope_scaling": scaling, "tie_word_embeddings": config.tie_lm_head,
        "torch_dtype": config.dtype, "attention_bias": config.output_bias,
        "attention_dropout": 0.0,
    }
    if scaling and "original_max_position_embeddings" in scaling:
        now = scaling["original_max_position_embeddings"]
        if scaling["rope_type"] != "dynamic":
            now = round(now * scaling["factor"])
        fields["max_position_embeddings"] = now
    if name == "GLAswaForCausalLM":
        fields |= {
            "sliding_window": config.window, "window_inclusive": config.window_inclusive,
            "attn_layers": list(range(1, config.n_layers, 2)), "attn_mode": "chunk",
            "use_short_conv": False, "elementwise_affine": True,
        }
    elif sliding:
        fields |= {"use_sliding_window": True, "sliding_window": config.window,
                   "max_window_layers": 0}
    return _head(name) | fields

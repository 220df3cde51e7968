"""What published checkpoints call our parameters, and which way round they keep them."""

import re
from typing import NamedTuple

from fastsnn_jax.pretrained.hf_config import OWN

NAMES = {
    "embed/embedding": "model.embed_tokens.weight",
    "norm/scale": "model.norm.weight",
    "lm_head/kernel": "lm_head.weight",
    "attention_norm/scale": "input_layernorm.weight",
    "attention/query/kernel": "self_attn.q_proj.weight",
    "attention/query/bias": "self_attn.q_proj.bias",
    "attention/query_norm/scale": "self_attn.q_norm.weight",
    "attention/key/kernel": "self_attn.k_proj.weight",
    "attention/key/bias": "self_attn.k_proj.bias",
    "attention/key_norm/scale": "self_attn.k_norm.weight",
    "attention/value/kernel": "self_attn.v_proj.weight",
    "attention/value/bias": "self_attn.v_proj.bias",
    "attention/output/kernel": "self_attn.o_proj.weight",
    "attention/output/bias": "self_attn.o_proj.bias",
    "ffn_norm/scale": "post_attention_layernorm.weight",
    "ffn/gate/kernel": "mlp.gate_proj.weight",
    "ffn/up/kernel": "mlp.up_proj.weight",
    "ffn/down/kernel": "mlp.down_proj.weight",
}
# SpikingBrain-7B, hf_7B_model/modeling_gla_swa.py
GLA_SWA_NAMES = {
    name: theirs.replace("embed_tokens", "embeddings").replace("self_attn", "attn")
    .replace("input_layernorm", "attn_norm").replace("post_attention_layernorm", "mlp_norm")
    for name, theirs in NAMES.items()
} | {
    "attention/gate_down/kernel": "attn.gk_proj.0.weight",
    "attention/gate_up/kernel": "attn.gk_proj.1.weight",
    "attention/gate_bias": "attn.gk_proj.1.bias",
    "attention/head_norm/scale": "attn.g_norm.weight",
}
# Buffers that older checkpoints hold and no model reads: they follow from config.json.
IGNORED = re.compile(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_IN_BLOCK = re.compile(r"blocks_(\d+)/(.+)")


class Place(NamedTuple):
    """Name of an array in a checkpoint, and whether it lies there as ``[out, in]``."""

    name: str
    transposed: bool


def place_of(architecture: str, path: str) -> Place:
    """Where a checkpoint of that class keeps our parameter ``path``, such as "embed/embedding"."""
    if architecture == OWN:
        return Place(path.replace("/", "."), False)
    names = GLA_SWA_NAMES if architecture == "GLAswaForCausalLM" else NAMES
    transposed = path.endswith("/kernel")
    if block := _IN_BLOCK.fullmatch(path):
        return Place(f"model.layers.{block[1]}.{names[block[2]]}", transposed)
    return Place(names[path], transposed)

"""Checkpoints in published layouts, written by hand for the tests of ``fastsnn_jax.pretrained``."""

import json
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from drawn_weights import draw

GOLDEN = Path(__file__).with_name("golden")
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64", "int32": "I32"}


@cache
def models():
    """What transformers did with each model of the golden files, by name."""
    return {name: json.loads((GOLDEN / f"transformers_{name}.json").read_text()) for name in NAMES}


NAMES = (
    "llama", "llama_biases", "llama_dynamic", "qwen2", "qwen2_yarn", "qwen2_window", "qwen3",
)
GLA_SWA = {  # the published keys, tiny
    "architectures": ["GLAswaForCausalLM"], "model_type": "gla_swa", "vocab_size": 53,
    "hidden_size": 24, "num_hidden_layers": 4, "attn_mode": "chunk", "num_attention_heads": 4,
    "num_key_value_heads": 2, "use_short_conv": False, "conv_size": 4, "intermediate_size": 40,
    "hidden_act": "swish", "max_position_embeddings": 64, "sliding_window": 3,
    "elementwise_affine": True, "norm_eps": 1e-6, "rope_theta": 1000.0, "attention_dropout": 0,
    "use_cache": True, "pad_token_id": None, "bos_token_id": 5, "eos_token_id": 5,
    "tie_word_embeddings": False, "initializer_range": 0.02, "attn_layers": [1, 3],
    "torch_dtype": "bfloat16",
}


def shapes_of(fields):
    """Names and shapes of the arrays that a checkpoint with this config.json holds."""
    kind, size, hidden = fields["model_type"], fields["hidden_size"], fields["intermediate_size"]
    heads, groups = fields["num_attention_heads"], fields["num_key_value_heads"]
    head = fields.get("head_dim") or size // heads
    spiking_brain = kind == "gla_swa"
    embedding, attention, before, between = (
        ("embeddings", "attn", "attn_norm", "mlp_norm") if spiking_brain else
        ("embed_tokens", "self_attn", "input_layernorm", "post_attention_layernorm")
    )
    shapes = {f"model.{embedding}.weight": (fields["vocab_size"], size),
              "model.norm.weight": (size,)}
    if not fields["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (fields["vocab_size"], size)
    bias = fields.get("attention_bias", False)
    for i in range(fields["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{before}.weight": (size,), f"{layer}.{between}.weight": (size,)}
        for name, number in (("q", heads), ("k", groups), ("v", groups)):
            shapes[f"{layer}.{attention}.{name}_proj.weight"] = (number * head, size)
            if bias or kind in ("qwen2", "gla_swa"):
                shapes[f"{layer}.{attention}.{name}_proj.bias"] = (number * head,)
        shapes[f"{layer}.{attention}.o_proj.weight"] = (size, heads * head)
        if bias:
            shapes[f"{layer}.{attention}.o_proj.bias"] = (size,)
        if kind == "qwen3":
            shapes |= {f"{layer}.{attention}.{name}_norm.weight": (head,) for name in "qk"}
        if spiking_brain and i % 2 == 0:
            shapes |= {
                f"{layer}.attn.gk_proj.0.weight": (16, size),
                f"{layer}.attn.gk_proj.1.weight": (groups * head, 16),
                f"{layer}.attn.gk_proj.1.bias": (groups * head,),
                f"{layer}.attn.g_norm.weight": (head,),
            }
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (hidden, size) for name in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (size, hidden)
    return shapes


def arrays_of(fields, seed=0):
    """The drawn arrays of a checkpoint, by name."""
    return {name: draw(seed, name, shape) for name, shape in shapes_of(fields).items()}


def content(arrays, change=lambda header: None):
    """Bytes of a safetensors file; ``change`` is done to its header before it is written."""
    ends = [0, *accumulate(array.nbytes for array in arrays.values())]
    header = {
        name: {"dtype": DTYPES[str(array.dtype)], "shape": list(array.shape),
               "data_offsets": list(offsets)}
        for (name, array), offsets in zip(arrays.items(), pairwise(ends), strict=True)
    }
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)  # jax shares memory that is aligned, where it may
    return len(text).to_bytes(8, "little") + text + b"".join(
        array.tobytes() for array in arrays.values()
    )


def write(folder, fields, arrays, dtype="float32", shards=1):
    """A checkpoint directory: config.json and one file, or several and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    arrays = {name: array.astype(jnp.dtype(dtype)) for name, array in arrays.items()}
    if shards == 1:
        (folder / "model.safetensors").write_bytes(content(arrays))
        return folder
    names, places = list(arrays), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i::shards]
        places |= dict.fromkeys(part, file)
        (folder / file).write_bytes(content({name: arrays[name] for name in part}))
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def written(folder, name, **options):
    """A model of the golden files, or "gla_swa", as a checkpoint directory."""
    if name == "gla_swa":
        return write(folder, GLA_SWA, arrays_of(GLA_SWA), **options)
    record = models()[name]
    return write(folder, record["config"], arrays_of(record["config"], record["seed"]), **options)


def assert_close(actual, expected, tolerance=1e-4):
    """Asserts values within ``tolerance`` of the largest."""
    expected = np.asarray(expected, np.float64)
    difference = np.abs(np.asarray(actual, np.float64) - expected).max()
    assert difference <= tolerance * np.abs(expected).max()

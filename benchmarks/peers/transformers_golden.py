"""Records what transformers computes: ``tests/golden/transformers_<model>.json``, tiny models.

Run from the repository's root with a Python that has torch and transformers
(``benchmarks/requirements-peers.txt``):

    peers/bin/python -m benchmarks.peers.transformers_golden

A model is its config.json, as transformers writes it, and a seed for ``tests/drawn_weights.py``.
A file also holds the logits of two texts and 64 tokens by greedy choice. Seeds are the first whose
choices vary and are clear: no two logits at the top closer than ``MARGIN``.
"""

import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.drawn_weights import draw

LENGTH, PROMPT, GREEDY = 11, 5, 64
MARGIN, DISTINCT = 5e-3, 16
GOLDEN = Path(__file__).parents[2] / "tests" / "golden"

LLAMA = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
    "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
}
QWEN2 = {
    "vocab_size": 67, "hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2,
    "num_attention_heads": 5, "num_key_value_heads": 1, "tie_word_embeddings": True,
    "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
}
QWEN3 = {
    "vocab_size": 59, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True,
    "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0,
    "original_max_position_embeddings": 32,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}  # from token 16 on
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA | {"rope_parameters": LLAMA3}),
    "llama_biases": (
        LlamaForCausalLM, LlamaConfig,
        LLAMA | {"rope_parameters": PLAIN, "attention_bias": True, "rms_norm_eps": 0.1},
    ),
    "llama_dynamic": (
        LlamaForCausalLM, LlamaConfig,
        LLAMA | {"rope_parameters": DYNAMIC, "max_position_embeddings": 16},
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, QWEN2 | {"rope_parameters": PLAIN}),
    "qwen2_yarn": (
        Qwen2ForCausalLM, Qwen2Config,
        QWEN2 | {"rope_parameters": YARN, "tie_word_embeddings": False},
    ),
    "qwen2_window": (
        Qwen2ForCausalLM, Qwen2Config,
        QWEN2 | {"rope_parameters": LINEAR, "use_sliding_window": True, "sliding_window": 5,
                 "max_window_layers": 0},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, QWEN3 | {"rope_parameters": PLAIN}),
}


def main() -> None:
    """Writes a file per model."""
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "torch")}
    for name, (model_class, config_class, fields) in MODELS.items():
        record = {"name": name, "versions": versions} | recorded(
            model_class, config_class(**fields)
        )
        path = GOLDEN / f"transformers_{name}.json"
        path.write_text(json.dumps(record) + "\n")
        print(path.name, "seed", record["seed"], "distinct", len(set(record["greedy"])))


@torch.no_grad()
def recorded(model_class: Any, config: Any) -> dict[str, Any]:
    """What a file holds of a model."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, config.vocab_size, (2, LENGTH))
    for seed in range(1000):
        model = model_class._from_config(config, attn_implementation="eager").eval()
        fill(model, seed)
        greedy, margin = continued(model, tokens[0, :PROMPT].tolist())
        if margin > MARGIN and len(set(greedy)) >= DISTINCT:
            break
    else:
        raise SystemExit("no seed gives choices that vary and are clear")
    logits = model(torch.from_numpy(tokens), use_cache=False).logits.numpy()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config_json = json.loads((Path(folder) / "config.json").read_text())
    return {
        "seed": seed, "config": config_json, "tokens": tokens.tolist(),
        "logits": [[[float(f"{x:.7g}") for x in row] for row in text] for text in logits],
        "prompt": PROMPT, "greedy": greedy,
    }


def fill(model: Any, seed: int) -> None:
    """Gives the model its drawn weights; a tied head has none of its own."""
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(draw(seed, name, tuple(parameter.shape))))


def continued(model: Any, prompt: list[int]) -> tuple[list[int], float]:
    """Greedy tokens after the prompt, and the least gap between the best two logits."""
    out = model.generate(
        torch.tensor([prompt]), max_new_tokens=GREEDY, do_sample=False, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )
    gaps = [float(step[0].topk(2).values.diff().abs()) for step in out.logits]
    return out.sequences[0, len(prompt):].tolist(), min(gaps)


if __name__ == "__main__":
    main()

"""SpikingBrain-7B's layout by its published names, against its equations in NumPy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_models import GLA_SWA, arrays_of, assert_close, written

from fastsnn_jax.pretrained import load_pretrained

LENGTH = 9
TOKENS = np.random.default_rng(3).integers(0, GLA_SWA["vocab_size"], (2, LENGTH))


def rms(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + GLA_SWA["norm_eps"]) * scale


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def turned(x):
    """Rotary positions on [T, heads, d], halves as complex numbers."""
    half = x.shape[-1] // 2
    frequencies = GLA_SWA["rope_theta"] ** (-np.arange(half) / half)
    angle = np.exp(1j * np.arange(len(x))[:, None] * frequencies)[:, None]
    z = (x[..., :half] + 1j * x[..., half:]) * angle
    return np.concatenate([z.real, z.imag], -1)


def gated_linear_attention(x, w):
    """S[t] = diag(a[t]) S[t-1] + k[t]^T v[t];  o[t] = q[t] / sqrt(d) S[t], per query head."""
    q, k, v = (linear(x, w, name).reshape(LENGTH, -1, 6) for name in ("q_proj", "k_proj", "v_proj"))
    gate = (x @ w["gk_proj.0.weight"].T) @ w["gk_proj.1.weight"].T + w["gk_proj.1.bias"]
    decay = sigmoid(gate).reshape(LENGTH, -1, 6) ** (1 / 16)
    k, v, decay = (np.repeat(array, 2, axis=1) for array in (np.maximum(k, 0), v, decay))
    state, out = np.zeros((4, 6, 6)), []
    for t in range(LENGTH):
        state = decay[t][:, :, None] * state + k[t][:, :, None] * v[t][:, None, :]
        out.append(np.einsum("hd,hde->he", np.maximum(q[t], 0) / 6**0.5, state))
    return rms(np.array(out), w["g_norm.weight"]).reshape(LENGTH, -1) @ w["o_proj.weight"].T


def window_attention(x, w, keys):
    q, k, v = (linear(x, w, name).reshape(LENGTH, -1, 6) for name in ("q_proj", "k_proj", "v_proj"))
    q, k, v = turned(q), np.repeat(turned(k), 2, axis=1), np.repeat(v, 2, axis=1)
    logits = np.einsum("ihd,jhd->hij", q, k) / 6**0.5
    back = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    logits[:, (back < 0) | (back >= keys)] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(LENGTH, -1) @ w["o_proj.weight"].T


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def below(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items()
            if name.startswith(prefix)}


@cache
def expected_logits(keys):
    """The model in float64, of the weights rounded to bfloat16 as the file holds them."""
    arrays = {name: array.astype(jnp.bfloat16).astype(np.float64)
              for name, array in arrays_of(GLA_SWA).items()}
    logits = []
    for tokens in TOKENS:
        x = arrays["model.embeddings.weight"][tokens]
        for i in range(GLA_SWA["num_hidden_layers"]):
            w = below(arrays, f"model.layers.{i}.")
            h, attention = rms(x, w["attn_norm.weight"]), below(w, "attn.")
            x = x + (window_attention(h, attention, keys) if i % 2 else
                     gated_linear_attention(h, attention))
            h = rms(x, w["mlp_norm.weight"])
            gate, up = (h @ w[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
            x = x + (gate * sigmoid(gate) * up) @ w["mlp.down_proj.weight"].T
        logits.append(rms(x, arrays["model.norm.weight"]) @ arrays["lm_head.weight"].T)
    return np.array(logits)


@pytest.mark.parametrize("inclusive, keys", [(None, 4), (True, 4), (False, 3)])
def test_logits_are_those_of_the_equations(tmp_path, inclusive, keys):
    directory = written(tmp_path, "gla_swa", dtype="bfloat16")
    model, variables, config, *_ = load_pretrained(
        directory, dtype="float32", window_inclusive=inclusive
    )
    assert config.window == 3
    logits, _ = jax.jit(model.apply)(variables, jnp.asarray(TOKENS))
    assert_close(logits, expected_logits(keys))
    assert np.abs(np.asarray(logits) - expected_logits(7 - keys)).max() > 1e-2


def test_decoding_token_by_token_gives_the_logits_of_the_equations(tmp_path):
    model, variables, *_ = load_pretrained(written(tmp_path, "gla_swa", dtype="bfloat16"),
                                           dtype="float32")
    step, state = jax.jit(model.decode_step), model.init_cache(2, LENGTH)
    for t in range(LENGTH):
        state, (logits, _) = step(variables, state, jnp.asarray(TOKENS[:, t]))
        assert_close(logits, expected_logits(4)[:, t])


def test_without_a_dtype_it_computes_as_the_file_says(tmp_path):
    model, variables, config, tokenizer, stop_tokens = load_pretrained(
        written(tmp_path, "gla_swa", dtype="bfloat16")
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("bfloat16")}
    assert config.dtype == "bfloat16" and tokenizer is None and stop_tokens == (5,)
    logits, _ = jax.jit(model.apply)(variables, jnp.asarray(TOKENS))
    assert logits.dtype == jnp.float32
    assert_close(logits, expected_logits(4), tolerance=0.1)

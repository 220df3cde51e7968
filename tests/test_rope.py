"""Rotary position embedding against complex numbers in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.attention.rope import rope

B, L, H, D = 2, 5, 3, 8
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def pairs(scaling):
    return tuple(sorted(scaling.items()))


def features(shape=(B, L, H, D)):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def oracle(x, positions, frequencies):
    """Halves as real and imaginary part, turned by exp(i * angle), float64."""
    x = np.asarray(x, np.float64)
    half = x.shape[-1] // 2
    angle = np.asarray(positions, np.float64)[..., None] * frequencies
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)[..., None, :]
    return np.concatenate([turned.real, turned.imag], -1)


def frequencies(theta, size=D):
    return np.array([theta ** (-2 * i / size) for i in range(size // 2)])


@pytest.mark.parametrize("positions", [np.arange(7, 12), np.array([range(5), [9, 8, 0, 2, 5]])])
def test_halves_turn_like_complex_numbers(positions):
    x = features()
    out = rope(x, jnp.asarray(positions), theta=100.0)
    np.testing.assert_allclose(out, oracle(x, positions, frequencies(100.0)), rtol=1e-5, atol=1e-5)


def test_position_zero_changes_no_bit():
    x = features()
    np.testing.assert_array_equal(rope(x, jnp.zeros(L, int), theta=1e4), x)


def test_products_depend_on_the_distance_alone():
    q, k = features((1, 1, 1, D)), 2 + features((1, 1, 1, D))

    def product(i, j):
        turned = [rope(x, jnp.array([p]), theta=1e4) for x, p in ((q, i), (k, j))]
        return float(jnp.vdot(*turned))

    np.testing.assert_allclose(product(9, 4), product(105, 100), rtol=1e-6)
    far = 2**24 + 4_000_001
    np.testing.assert_allclose(product(9, 4), product(far + 9, far + 4), rtol=1e-6)
    assert abs(product(9, 4) - product(9, 5)) > 1e-3


def test_linear_scaling_is_a_slower_position():
    x, slow = features(), pairs({"rope_type": "linear", "factor": 4.0})
    np.testing.assert_allclose(  # an angle is right to 2^-33 of a turn per token
        rope(x, 4 * jnp.arange(L), theta=1e4, scaling=slow), rope(x, jnp.arange(L), theta=1e4),
        atol=1e-6,
    )


def test_llama3_scaling_keeps_fast_turns_slows_slow_ones_and_mixes_between():
    # Turns within 8192 tokens, theta 5e5, D 128: above 4 keep, below 1 are divided by 8.
    size, theta = 128, 5e5
    plain = frequencies(theta, size)
    turns = 8192 * plain / (2 * np.pi)
    share = (turns - 1) / 3
    mixed = share * plain + (1 - share) * plain / 8
    expected = np.where(turns > 4, plain, np.where(turns < 1, plain / 8, mixed))
    assert all(part.any() for part in (turns > 4, turns < 1, (turns > 1) & (turns < 4)))
    # At position 1 the features (1, 0) become (cos, sin) of the frequency.
    x = jnp.concatenate([jnp.ones(size // 2), jnp.zeros(size // 2)]).reshape(1, 1, 1, size)
    out = np.asarray(rope(x, jnp.array([1]), theta=theta, scaling=pairs(LLAMA3))).ravel()
    angle = np.arctan2(out[size // 2 :], out[: size // 2])
    np.testing.assert_allclose(angle, expected, rtol=1e-5, atol=1e-9)


def test_yarn_keeps_fast_features_slows_slow_ones_and_mixes_feature_by_feature():
    # Qwen2.5's numbers: D 128, theta 1e6, 32768 tokens, factor 4.
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
            "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.5}
    plain = frequencies(1e6, 128)
    turns = 32768 * plain / (2 * np.pi)
    first, last = (turns > 32).sum() - 1, (turns > 1).sum()  # whole features outside the mix
    assert 0 < first < last < 64
    kept = np.clip((last - np.arange(64)) / (last - first), 0, 1)
    expected = plain * (kept + (1 - kept) / 4)
    x = jnp.concatenate([jnp.ones(64), jnp.zeros(64)]).reshape(1, 1, 1, 128)
    out = np.asarray(rope(x, jnp.array([1]), theta=1e6, scaling=pairs(yarn))).ravel()
    np.testing.assert_allclose(np.arctan2(out[64:], out[:64]), expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.hypot(out[64:], out[:64]), 1.5, rtol=1e-6)


def test_dynamic_scaling_turns_each_token_as_the_last_of_its_text():
    x, theta, factor, length = features(), 100.0, 4.0, 10
    scaling = pairs({"rope_type": "dynamic", "factor": factor,
                     "original_max_position_embeddings": length})
    positions = np.array([3, 9, 10, 17, 60])
    out = rope(x, jnp.asarray(positions), theta=theta, scaling=scaling)
    for i, position in enumerate(positions):
        grown = max(factor * (position + 1) / length - (factor - 1), 1)
        slow = frequencies(theta * grown ** (D / (D - 2)))
        expected = oracle(x[:, i : i + 1], positions[i : i + 1], slow)
        np.testing.assert_allclose(out[:, i : i + 1], expected, rtol=1e-5, atol=2e-5)
    plain = rope(x, jnp.asarray(positions), theta=theta)
    np.testing.assert_array_equal(out[:, :2], plain[:, :2])
    assert np.abs(out[:, 2:] - plain[:, 2:]).max(axis=(0, 2, 3)).min() > 1e-2


def test_half_precision_features_are_turned_in_float32():
    x = features().astype(jnp.bfloat16)
    out = rope(x, 300 + jnp.arange(L), theta=1e4)
    exact = rope(x.astype(jnp.float32), 300 + jnp.arange(L), theta=1e4)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


BAD = [
    ("D must be even", {"x": features((B, L, H, 7))}),
    (r"x must have shape \[B, L, H, D\]", {"x": features((L, H, D))}),
    ("positions must have shape", {"positions": jnp.arange(L + 1)}),
    ("theta must be > 0", {"theta": 0.0}),
    ("rope_type must be one of linear, dynamic, llama3, yarn",
     {"scaling": pairs({"rope_type": "ntk"})}),
    ("rope_type must be one of", {"scaling": pairs({"factor": 2.0})}),
    ("the head size D must be above 2 for dynamic", {"x": features((B, L, H, 2)), "scaling": pairs(
        {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4})}),
    ("of rope_type 'linear' must hold factor, got", {"scaling": pairs({"rope_type": "linear"})}),
    ("of rope_type 'linear' must hold", {"scaling": pairs(LLAMA3 | {"rope_type": "linear"})}),
    ("factor must be > 1e-06 and <= 1e", {"scaling": pairs({"rope_type": "linear", "factor": 0})}),
    ("high_freq_factor must be above", {"scaling": pairs(LLAMA3 | {"high_freq_factor": 1.0})}),
]


@pytest.mark.parametrize("message, change", BAD)
def test_bad_arguments_are_refused(message, change):
    arguments = {"x": features(), "positions": jnp.arange(L), "theta": 1e4} | change
    with pytest.raises(ValueError, match=message):
        rope(arguments.pop("x"), arguments.pop("positions"), **arguments)


def test_integers_and_text_are_refused():
    with pytest.raises(TypeError, match="x must be floating"):
        rope(jnp.zeros((B, L, H, D), int), jnp.arange(L), theta=1e4)
    with pytest.raises(TypeError, match="factor must be a number"):
        scaling = pairs({"rope_type": "linear", "factor": "2"})
        rope(features(), jnp.arange(L), theta=1e4, scaling=scaling)

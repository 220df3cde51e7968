"""The chunkwise recurrence: long sequences, what its gradient keeps, and its total decay."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.attention import chunkwise, feature_map
from fastsnn_jax.attention.plain import recurrent

jitted = jax.jit(chunkwise)


def arguments(length, heads=2, key_dim=4, value_dim=3):
    """q, k, v, log_decay with strong and weak decays, and an incoming state."""
    rng = np.random.default_rng(0)
    q, k, weak, strong = rng.uniform(size=(4, 1, length, heads, key_dim)).astype(np.float32)
    v = rng.normal(size=(1, length, heads, value_dim)).astype(np.float32)
    kv = rng.normal(size=(1, heads, key_dim, value_dim)).astype(np.float32)
    log_decay = np.where(strong < 0.02, np.float32(-20), -weak / 128)
    return q, k, v, log_decay, kv


@pytest.mark.parametrize("decay", ["mixed", "strong", "infinite"])
def test_8192_tokens_stay_within_1e_5_of_float64(decay):
    q, k, v, log_decay, kv = arguments(8192)
    if decay != "mixed":
        log_decay = np.full_like(log_decay, -20 if decay == "strong" else -np.inf)
    out, kv_out, _ = jitted(q, k, v, log_decay, kv)
    state, expected = np.asarray(kv[0], np.float64), []
    wide = (np.asarray(x[0], np.float64) for x in (q, k, v, log_decay))
    for q_t, k_t, v_t, decay_t in zip(*wide, strict=True):
        state = np.exp(decay_t)[..., None] * state + k_t[..., None] * v_t[:, None]
        expected.append(np.einsum("hd,hde->he", q_t, state))
    expected = np.stack(expected)
    assert np.abs(out[0] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(kv_out[0] - state).max() <= 1e-5 * np.abs(state).max()


def test_dyadic_values_are_exact():
    ones = jnp.ones((1, 5, 1, 1))
    values = jnp.arange(1.0, 6).reshape(1, 5, 1, 1)
    out, kv, total = chunkwise(2 * ones, ones, values, None, jnp.full((1, 1, 1, 1), 0.5), chunk=2)
    assert out.ravel().tolist() == [3.0, 7.0, 13.0, 21.0, 31.0]
    assert (kv.item(), total.item()) == (15.5, 0.0)


@pytest.mark.parametrize("decay", [False, True])
def test_the_gradient_keeps_no_state_per_token(decay):
    length, size = 96, 8
    q, k, v, log_decay, kv = arguments(length, key_dim=size, value_dim=size)
    log_decay = log_decay if decay else None

    def kept(form):
        def pull(*arguments):
            return jax.vjp(lambda *rest: form(*rest)[:2], *arguments)[1]

        return [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(pull, q, k, v, log_decay, kv))]

    per_token = length * 2 * size * size
    assert max(kept(recurrent)) >= per_token  # so that the bound below can fail
    assert sum(kept(partial(chunkwise, chunk=4))) < per_token


def test_parts_from_nothing_join_through_their_total_decay():
    q, k, v, log_decay, kv = arguments(12)
    log_decay /= 16
    run = jax.jit(partial(chunkwise, chunk=4))
    whole = run(q, k, v, log_decay, kv)
    total = np.zeros(kv.shape[:-1])
    for part in (slice(0, 6), slice(6, 12)):
        _, kv_out, decay = run(*(x[:, part] for x in (q, k, v, log_decay)), np.zeros_like(kv))
        kv = np.exp(decay)[..., None] * kv + kv_out
        total += decay
    np.testing.assert_allclose(kv, whole[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(total, whole[2], rtol=1e-6)


def test_feature_maps_are_their_formulas():
    x = np.array([-2.0, 0.0, 3.0])
    expected = {
        "softplus": np.log1p(np.exp(x)), "relu": [0, 0, 3], "elu1": [np.exp(-2.0), 1, 4],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(feature_map(name)(jnp.asarray(x)), values, rtol=1e-6)
    with pytest.raises(ValueError, match="softplus, relu, elu1"):
        feature_map("exp")


def test_a_state_of_another_shape_is_refused():
    q, k, v, log_decay, kv = arguments(2)
    with pytest.raises(ValueError, match="kv must have shape"):
        chunkwise(q, k, v, log_decay, kv[:, :1])

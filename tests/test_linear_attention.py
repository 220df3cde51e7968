"""Linear attention: its three forms against each other and against a float64 loop in NumPy."""

import itertools
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close

from fastsnn_jax.attention.linear import (
    LinearState,
    init_linear_state,
    linear_attention,
    linear_attention_quadratic,
    linear_attention_recurrent,
    linear_attention_step,
)

B, L, H, D, E = 2, 21, 4, 3, 5
EPS = 1e-6


class Row(NamedTuple):
    """One way to call linear attention."""

    feature_map: str
    kv_heads: int
    gate: bool = False
    decay: str = "none"  # "feature", "head"
    normalizer: str = "z"
    chunk: int = 8


ROWS = {
    "softplus_in_many_runs": Row("softplus", 2, gate=True, chunk=1),
    "elu1_decay": Row("elu1", 4, decay="feature", normalizer="none", chunk=16),
    "exp": Row("exp", 1, gate=True),
    "softplus": Row("softplus", 4),
    "relu_head_decay": Row("relu", 2, decay="head", chunk=32),
    "exp_decay": Row("exp", 2, gate=True, decay="feature"),
}
FAST = list(ROWS)[:3]
every_row = pytest.mark.parametrize(
    "row", [pytest.param(row, id=name, marks=() if name in FAST else pytest.mark.slow)
            for name, row in ROWS.items()]
)


def inputs(row, length=L, batch=B, dtype=jnp.float32):
    """q, k, v, state, query_gate, log_decay; decays of -20 stand beside weak ones."""
    rng = np.random.default_rng(3)
    groups = (batch, length, row.kv_heads)
    q, k, v = (
        jnp.asarray(rng.normal(size=shape), dtype)
        for shape in ((batch, length, H, D), (*groups, D), (*groups, E))
    )
    gate = jnp.asarray(rng.uniform(size=q.shape), jnp.float32) if row.gate else None
    weak, strong = rng.uniform(size=(2, *groups, 1 if row.decay == "head" else D))
    decay = jnp.asarray(np.where(strong < 0.3, -20.0, -weak / 8), jnp.float32)
    state = LinearState(
        jnp.asarray(rng.normal(size=(batch, row.kv_heads, D, E)), jnp.float32),
        jnp.asarray(rng.uniform(size=(batch, row.kv_heads, D)), jnp.float32),
        jnp.full((batch, row.kv_heads), 0.5 if row.feature_map == "exp" else -jnp.inf),
    )
    return q, k, v, state, gate, None if row.decay == "none" else decay


def call(form, row, q, k, v, state, gate, decay):
    """Runs one form on what ``inputs`` gives."""
    return form(
        q, k, v, state, feature_map=row.feature_map, query_gate=gate, log_decay=decay,
        normalizer=row.normalizer, eps=EPS,
    )


@cache
def pulled(form, row):
    """The jitted values and gradients of one form."""

    @jax.jit
    def run(arguments, cotangents):
        values, pull = jax.vjp(lambda *arguments: call(form, row, *arguments), *arguments)
        return values, pull(cotangents)

    return run


def chunked(row):
    return _with_chunk(row.chunk)


@cache
def _with_chunk(chunk):
    return partial(linear_attention, chunk=chunk)


def cotangents(row, arguments):
    """Random weights of everything that comes out; the peak, a constant to gradients, has none."""
    rng = np.random.default_rng(5)
    state = arguments[3]
    kv, z, out = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in (state.kv.shape, state.z.shape, (B, L, H, E))
    )
    return LinearState(kv, z, jnp.zeros_like(state.peak)), out


def oracle(row, q, k, v, state, gate, decay):
    """The equations in float64, a loop over tokens; "exp" without any running maximum."""
    q, k, v, kv, z, peak = (np.asarray(x, np.float64) for x in (q, k, v, *state))
    phi = {
        "softplus": lambda x: np.log1p(np.exp(x)), "relu": lambda x: np.maximum(x, 0),
        "elu1": lambda x: np.where(x > 0, x + 1, np.exp(x)), "exp": np.exp,
    }[row.feature_map]
    exponential = row.feature_map == "exp"
    scale = np.exp(peak) if exponential else np.ones_like(peak)
    kv, z, out = kv * scale[..., None, None], z * scale[..., None], []
    normalised = row.normalizer == "z"  # whatever its scale: only "none" shows that of "exp"
    queries = phi(q - q.max(-1, keepdims=True) if exponential and not normalised else q)
    queries = queries if gate is None else queries * (np.asarray(gate, np.float64) + 1e-6)
    for t in range(q.shape[1]):
        kept = 1.0 if decay is None else np.exp(np.asarray(decay, np.float64)[:, t])
        kv = kv * (kept if decay is None else kept[..., None])
        kv = kv + phi(k[:, t])[..., :, None] * v[:, t, :, None, :]
        z = z * kept + phi(k[:, t])
        if exponential:
            peak = np.maximum(peak, k[:, t].max(-1))
            scale = np.exp(peak)
        heads = np.arange(H) // (H // k.shape[2])
        shown = np.ones_like(scale) if normalised else scale
        read = np.einsum("bhd,bhde->bhe", queries[:, t], (kv / shown[..., None, None])[:, heads])
        total = np.einsum("bhd,bhd->bh", queries[:, t], z[:, heads])
        out.append(read / (total[..., None] + EPS) if normalised else read)
    z = z / scale[..., None] if normalised else np.asarray(state.z)
    return LinearState(kv / scale[..., None, None], z, peak), np.stack(out, 1)


def assert_near(actual, expected, tolerance=1e-5):
    """Asserts values within ``tolerance`` of the largest of each leaf."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite])
        if finite.any():
            assert np.abs(a - b)[finite].max() <= tolerance * np.abs(b[finite]).max()


@every_row
def test_three_forms_agree_with_the_float64_loop_and_in_their_gradients(row):
    arguments = inputs(row)
    weights = cotangents(row, arguments)
    forms = (chunked(row), linear_attention_recurrent, linear_attention_quadratic)
    results = [pulled(form, row)(arguments, weights) for form in forms]
    for values, _ in results:
        assert_near(values, oracle(row, *arguments))
    gradients = results[2][1]
    assert_near(results[0][1], gradients)
    assert_near(results[1][1], gradients)
    used = [gradients[:3], gradients[3].kv, gradients[4:]]
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(used))


@pytest.mark.parametrize("form", [
    pytest.param(linear_attention, marks=pytest.mark.slow), linear_attention_recurrent,
    pytest.param(linear_attention_quadratic, marks=pytest.mark.slow),
])
def test_the_mean_over_equal_values_is_that_value_however_far_keys_are_from_queries(form):
    # f . z is 2 a token, far above eps; divided by the largest query and key it is 2 exp(-2 far).
    far = jnp.array([1.0, 8.0, 15.0, 25.0])
    q = jnp.stack([far, -far], -1)[:, None, None].repeat(3, 1)
    values = jnp.full((4, 3, 1, 1), 3.0)

    def total(q):
        _, out = form(q, -q, values, feature_map="exp")
        return out.sum(), out

    (_, out), gradient = jax.value_and_grad(total, has_aux=True)(q)
    np.testing.assert_allclose(out, values, rtol=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-4)


@every_row
def test_no_output_depends_on_later_tokens(row):
    t = 9
    arguments = inputs(row)
    state, out = jax.tree.map(jnp.zeros_like, cotangents(row, arguments))
    run = pulled(chunked(row), row)
    values, gradients = run(arguments, (state, out.at[:, t].set(1.0)))
    for leaf in jax.tree.leaves((*gradients[:3], *gradients[4:])):
        assert (leaf[:, t + 1 :] == 0).all()
        assert (leaf[:, : t + 1] != 0).any()
    q, k, v, *rest = (x if x is None or isinstance(x, LinearState) else x.at[:, t + 1 :].multiply(2)
                      for x in arguments)
    changed, _ = run((q, k, v, *rest), (state, out))
    np.testing.assert_array_equal(changed[1][:, : t + 1], values[1][:, : t + 1])


def test_exp_is_finite_for_keys_and_queries_of_a_thousand():
    row = ROWS["exp"]
    q, k, v, _, gate, _ = inputs(row)
    arguments = (1000 * jnp.sign(q), 1000 * jnp.sign(k), v, init_linear_state(B, 1, D, E), gate,
                 None)
    (state, out), gradients = pulled(chunked(row), row)(arguments, cotangents(row, arguments))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((state, out, gradients)))
    assert (state.peak == 1000).all()
    assert (jnp.abs(out) <= jnp.abs(v).max()).all()  # a weighted mean of values
    assert (jnp.abs(out) > 0.1).any()


def test_a_sequence_cut_anywhere_equals_the_whole():
    row = ROWS["exp_decay"]
    arguments = inputs(row)
    cuts = (0, 1, 10, L)

    @jax.jit
    def in_pieces(q, k, v, state, gate, decay):
        pieces = []
        for start, stop in itertools.pairwise(cuts):
            form = linear_attention_step if stop == start + 1 else chunked(row)
            part = (x[:, start:stop] for x in (q, k, v, gate, decay))
            q_part, k_part, v_part, *options = part
            state, out = call(form, row, q_part, k_part, v_part, state, *options)
            pieces.append(out)
        return state, jnp.concatenate(pieces, 1)

    assert_near(in_pieces(*arguments), oracle(row, *arguments))


def test_one_token_through_linear_attention_is_the_step():
    q, k, v, state, _, _ = inputs(ROWS["softplus"], length=1)
    assert_trees_close(linear_attention(q, k, v, state), linear_attention_step(q, k, v, state))


def test_half_precision_inputs_keep_a_float32_state():
    row = ROWS["exp_decay"]
    arguments = inputs(row, dtype=jnp.bfloat16)
    state, out = jax.jit(partial(call, chunked(row), row))(*arguments)
    assert {leaf.dtype for leaf in state} == {jnp.dtype(jnp.float32)}
    assert out.dtype == jnp.bfloat16
    assert_near((state, out), oracle(row, *arguments), 2e-2)


def test_normalizer_none_leaves_z_alone():
    q, k, v, state, _, _ = inputs(ROWS["softplus"], length=1)
    after, _ = linear_attention_step(q, k, v, state, normalizer="none")
    np.testing.assert_array_equal(after.z, state.z)


GOOD = inputs(ROWS["relu_head_decay"], length=2)[:3]
BAD = {
    "unknown_feature_map": ({"feature_map": "cosine"}, ValueError, "softplus, relu, elu1, exp"),
    "unknown_normalizer": ({"normalizer": "rms"}, ValueError, "z, none"),
    "zero_eps": ({"eps": 0.0}, ValueError, "eps must be > 0"),
    "growth": ({"log_decay": jnp.full((B, 2, 2, D), 0.5)}, ValueError, "<= 0, got up to 0.5"),
    "decay_shape": ({"log_decay": jnp.zeros((B, 2, 2, 2))}, ValueError, "log_decay must have"),
    "gate_shape": ({"query_gate": jnp.zeros((B, 2, 2, D))}, ValueError, "query_gate must have"),
    "chunk_of_three": ({"chunk": 3}, ValueError, "power of two, got 3"),
    "key_length": ({"k": GOOD[1][:, :1]}, ValueError, "k must have shape"),
    "value_heads": ({"v": GOOD[2][:, :, :1]}, ValueError, "v must have shape"),
    "kv_heads": ({"q": GOOD[0][:, :, :3]}, ValueError, "must divide the 3 query heads"),
    "rank": ({"q": GOOD[0][0]}, ValueError, "q must have shape"),
    "state_shape": ({"state": init_linear_state(1, 2, D, E)}, ValueError, "state must have"),
    "integers": ({"q": jnp.ones((B, 2, H, D), jnp.int32)}, TypeError, "must be floating"),
}


@pytest.mark.parametrize("change, error, message", BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(change, error, message):
    arguments = dict(zip("qkv", GOOD, strict=True))
    with pytest.raises(error, match=message):
        linear_attention(**(arguments | change))


def test_a_step_takes_one_token():
    with pytest.raises(ValueError, match="one token"):
        linear_attention_step(*GOOD)

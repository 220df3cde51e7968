"""Laws of decoding: what is written is what the whole model would say next, drawn as asked for."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close

from fastsnn_jax import Sampling, SNNConfig, build_model_from_config, generate, stream_prefill
from fastsnn_jax.generation import sample

B, L, N, V = 2, 5, 7, 13


@functools.cache
def built(kind):
    """(model, variables): two layers without spikes, whose answers do not hang on roundings."""
    model = build_model_from_config(SNNConfig(
        vocab_size=V, d_model=8, n_heads=2, n_layers=2, d_ff=12, window=3, attn_kind=kind,
        spiking=False, tie_lm_head=False,
    ))
    variables = jax.jit(model.init)(jax.random.key(2), np.zeros((1, 1), np.int32))
    # What a token says is to outweigh what attention adds, or soon all text is alike.
    embedding = variables["params"]["embed"]
    embedding["embedding"] = 20.0 * embedding["embedding"]
    return model, variables


def prompt(length=L, seed=0):
    return np.random.default_rng(seed).integers(0, V, (B, length)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def forward(model, variables, tokens):
    return model.apply(variables, tokens)[0]


def greedy_by_hand(kind, tokens):
    """Appends N times the likeliest token of a forward pass over the text so far.

    The text is padded to one length: no position sees a later one.
    """
    model, variables = built(kind)
    length = tokens.shape[1]
    text = np.zeros((B, L + N), np.int32)
    text[:, :length] = tokens
    for at in range(length, length + N):
        text[:, at] = np.asarray(forward(model, variables, text))[:, at - 1].argmax(-1)
    return text[:, length:length + N]


@pytest.mark.parametrize(("kind", "length"), [
    ("interleaved", L), ("interleaved", 1),
    *(pytest.param(kind, L, marks=pytest.mark.slow) for kind in ("linear", "sliding", "softmax")),
])
def test_greedy_text_is_the_argmax_of_repeated_forward_passes(kind, length):
    expected = greedy_by_hand(kind, prompt(length))
    assert all(len(set(row)) > 1 for row in expected)
    drawn = generate(*built(kind), prompt(length), N)
    np.testing.assert_array_equal(drawn.tokens, expected)
    np.testing.assert_array_equal(drawn.lengths, [N, N])


@pytest.mark.parametrize("kind", [
    pytest.param("softmax", marks=pytest.mark.slow), "interleaved",
])
def test_going_on_from_the_returned_cache_with_the_last_token_is_generating_at_once(kind):
    model, variables = built(kind)
    whole = generate(model, variables, prompt(), N)
    first = generate(model, variables, prompt(), 3, cache=model.init_cache(B, L + N))
    rest = generate(model, variables, first.tokens[:, -1:], N - 3, cache=first.cache)
    np.testing.assert_array_equal(np.hstack([first.tokens, rest.tokens]), whole.tokens)


def test_a_cache_that_is_given_is_not_consumed():
    model, variables = built("softmax")
    cache, _ = stream_prefill(model, variables, model.init_cache(B, L + N), prompt()[:, :-1])
    before = jax.tree.map(np.array, cache)
    first, second = (
        generate(model, variables, prompt()[:, -1:], N, cache=cache).tokens for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, generate(model, variables, prompt(), N).tokens)
    jax.tree.map(np.testing.assert_array_equal, cache, before)


def test_a_row_is_written_as_if_it_were_alone():
    model, variables = built("interleaved")
    both = generate(model, variables, prompt(), N).tokens
    for row in range(B):
        alone = generate(model, variables, prompt()[row:row + 1], N).tokens
        np.testing.assert_array_equal(alone[0], both[row])


def test_a_softmax_cache_needs_room_for_all_that_is_read():
    model, variables = built("softmax")
    read = L + N - 1  # the last new token is written, not read
    tokens = generate(model, variables, prompt(), N, cache=model.init_cache(B, read)).tokens
    np.testing.assert_array_equal(tokens, generate(model, variables, prompt(), N).tokens)
    with pytest.raises(ValueError, match=rf"room for {read} tokens, got {read - 1}; give init"):
        generate(model, variables, prompt(), N, cache=model.init_cache(B, read - 1))
    with pytest.raises(ValueError, match=rf"stream_prefill: .* room for {L} tokens, got {L - 1}"):
        stream_prefill(model, variables, model.init_cache(B, L - 1), prompt())


@pytest.mark.parametrize("read", [
    lambda model, variables, cache: generate(model, variables, prompt(), N, cache=cache),
    lambda model, variables, cache: stream_prefill(model, variables, cache, prompt()),
], ids=["generate", "stream_prefill"])
def test_a_cache_of_another_model_or_batch_is_refused_by_name(read):
    model, variables = built("interleaved")
    for cache in (built("softmax")[0].init_cache(B, L + N), model.init_cache(B + 1, L + N), ()):
        with pytest.raises(ValueError, match=r"^cache: .* of this model.*init_cache"):
            read(model, variables, cache)


# Streams


@pytest.mark.parametrize(("kind", "chunk", "told"), [
    ("softmax", 4, [4, 8]), ("interleaved", 3, [3, 6, 8]),
])
def test_a_stream_read_in_pieces_is_one_prefill(kind, chunk, told, tmp_path):
    model, variables = built(kind)
    tokens = prompt(8)
    expected = jax.jit(model.prefill)(variables, model.init_cache(B, 8), tokens)
    path = tmp_path / "tokens.u8"
    tokens.astype(np.uint8).tofile(path)
    mapped = np.memmap(path, np.uint8, mode="r", shape=(B, 8))
    heard = []
    cache, logits = stream_prefill(
        model, variables, model.init_cache(B, 8), mapped, chunk=chunk, report=heard.append
    )
    assert heard == told
    assert_trees_close((cache, logits), (expected[0], expected[1][0][:, -1]))


def test_no_more_than_a_chunk_of_a_stream_is_in_memory():
    class Stream:
        """Tokens that exist only where they are asked for."""

        ndim, shape, size = 2, (1, 10_000), 10_000
        longest = 0

        def __getitem__(self, index):
            rows, columns = index
            start, stop, _ = columns.indices(self.shape[1])
            self.longest = max(self.longest, stop - start)
            return (np.arange(start, stop) % V)[None][rows]

    stream = Stream()
    read, logits = stream_prefill(CHAIN, TABLE, CHAIN.init_cache(1, 1), stream, chunk=4096)
    assert stream.longest == 4096 and read.tolist() == [10_000]
    np.testing.assert_array_equal(logits[0], TABLE[9999 % V])


def test_a_chunk_may_be_longer_than_the_stream():
    read, logits = stream_prefill(
        CHAIN, TABLE, CHAIN.init_cache(2, 1), np.array([[3, 1], [0, 2]]), chunk=100
    )
    assert read.tolist() == [2, 2]
    np.testing.assert_array_equal(logits, TABLE[[1, 2]])


# A model that is a table


@dataclasses.dataclass(frozen=True)
class Chain:
    """Logits are the row of a table at the last token; the cache counts the tokens read."""

    config = SimpleNamespace(vocab_size=V)

    def init_cache(self, batch, max_len):
        return jnp.zeros(batch, jnp.int32)

    def apply(self, table, *inputs, method):
        if method == "head":
            return inputs[0], {}
        cache, tokens = inputs
        return cache + tokens.shape[1], (table[tokens], {})

    def decode_step(self, table, cache, tokens):
        return cache + 1, (table[tokens], {})


CHAIN = Chain()
# After t comes most likely 3 t + 1: from 0 on 0 1 4 0 1 4, from 2 on 2 7 9 2, 6 stays 6.
TABLE = 0.25 * np.random.default_rng(1).normal(size=(V, V)).astype(np.float32)
TABLE[np.arange(V), (3 * np.arange(V) + 1) % V] += 2.0
WARM = Sampling(temperature=1.0)


def test_a_row_ends_with_its_stop_token_and_repeats_it():
    drawn = generate(CHAIN, TABLE, [[0], [2], [5]], 6, stop_tokens=[4, 9])
    # 5 -> 3 -> 10 -> 5: this row never stops.
    assert drawn.tokens.tolist() == [[1, 4, 4, 4, 4, 4], [7, 9, 9, 9, 9, 9], [3, 10, 5, 3, 10, 5]]
    assert drawn.lengths.tolist() == [2, 2, 6]
    assert drawn.cache.tolist() == [6, 6, 6]  # the prompt and all but the last


def test_decoding_ends_when_every_row_has_stopped():
    drawn = generate(CHAIN, TABLE, [[0], [5]], 6, stop_tokens=(4, 10, 5))
    assert drawn.tokens.tolist() == [[1, 4, 4, 4, 4, 4], [3, 10, 10, 10, 10, 10]]
    assert drawn.lengths.tolist() == [2, 2]
    assert drawn.cache.tolist() == [2, 2]
    at_once = generate(CHAIN, TABLE, [[1], [3]], 6, stop_tokens=(4, 10))
    assert at_once.lengths.tolist() == [1, 1] and at_once.cache.tolist() == [1, 1]
    assert at_once.tokens.tolist() == [[4] * 6, [10] * 6]


def test_a_stop_token_in_the_prompt_ends_nothing():
    assert generate(CHAIN, TABLE, [[4, 0]], 3, stop_tokens=[0]).tokens.tolist() == [[1, 4, 0]]
    assert generate(CHAIN, TABLE, [[0]], 1, stop_tokens=[0]).tokens.tolist() == [[1]]


def test_the_same_key_writes_the_same_and_another_key_something_else():
    first, again, other = (
        generate(CHAIN, TABLE, [[0], [2]], 20, key=jax.random.key(seed), sampling=WARM).tokens
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_what_another_row_says_does_not_change_what_is_drawn():
    first, other = (
        generate(CHAIN, TABLE, [[0], [token]], 20, key=jax.random.key(4), sampling=WARM).tokens
        for token in (2, 5)
    )
    np.testing.assert_array_equal(first[0], other[0])
    assert (first[1] != other[1]).any()


def test_rows_of_one_prompt_are_drawn_apart():
    tokens = generate(CHAIN, TABLE, [[0], [0]], 20, key=jax.random.key(3), sampling=WARM).tokens
    assert (tokens[0] != tokens[1]).any()


def test_transitions_of_a_generated_text_follow_the_table():
    rows, steps = 64, 100
    tokens = np.asarray(generate(
        CHAIN, TABLE, np.zeros((rows, 1), np.int32), steps, key=jax.random.key(5), sampling=WARM
    ).tokens)
    before = np.hstack([np.zeros((rows, 1), int), tokens[:, :-1]])
    for token in (0, 1, 4):
        follows = tokens[before == token]
        assert_frequencies(follows, probabilities(TABLE[token]))


# Drawing


def probabilities(logits, temperature=1.0, top_k=None, top_p=1.0):
    """What `sample` draws from, in float64: k likeliest, of these the fewest that hold top_p."""
    scaled = np.asarray(logits, np.float64) / temperature
    share = np.exp(scaled - scaled.max())
    order = np.argsort(-share, kind="stable")
    share[order[top_k or len(order):]] = 0.0
    share /= share.sum()
    needed = 1 + int(np.searchsorted(np.cumsum(share[order]), top_p - 1e-12))
    share[order[needed:]] = 0.0
    return share / share.sum()


def assert_frequencies(drawn, expected):
    """Each token as often as expected, within five sigma; what is excluded never."""
    counts = np.bincount(np.asarray(drawn), minlength=len(expected))
    sigma = np.sqrt(len(drawn) * expected * (1 - expected))
    assert (np.abs(counts - len(drawn) * expected) <= 5 * sigma + 1e-9).all(), counts


LOGITS = np.log([0.15, 0.4, 0.05, 0.3, 0.1]).astype(np.float32)


@pytest.mark.parametrize("settings", [
    {}, {"temperature": 0.5}, {"temperature": 3.0}, {"top_k": 3}, {"top_k": 99},
    {"top_p": 0.35}, {"top_p": 0.5}, {"top_p": 0.8}, {"top_k": 2, "top_p": 0.6},
    {"top_k": 3, "top_p": 0.8}, {"temperature": 0.5, "top_p": 0.6},
], ids=str)
def test_tokens_are_drawn_with_the_shares_that_are_left(settings):
    settings = {"temperature": 1.0, **settings}
    drawn = sample(jax.random.key(7), jnp.tile(LOGITS, (20_000, 1)), Sampling(**settings))
    assert drawn.dtype == jnp.int32
    assert_frequencies(drawn, probabilities(LOGITS, **settings))


def test_top_p_keeps_the_fewest_tokens_that_hold_it():
    kept = {top_p: np.flatnonzero(probabilities(LOGITS, top_p=top_p)).tolist()
            for top_p in (0.35, 0.5, 0.8, 0.9, 1.0)}
    assert kept == {0.35: [1], 0.5: [1, 3], 0.8: [0, 1, 3], 0.9: [0, 1, 3, 4], 1.0: [*range(5)]}


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}],
                         ids=str)
def test_the_likeliest_token_and_of_equal_ones_the_first_is_greedy(settings):
    logits = jnp.array([[0.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, -jnp.inf], [-5.0, -4.0, -5.0, -6.0]])
    for seed in range(10):
        settings = {"temperature": 1.0, **settings}
        drawn = sample(jax.random.key(seed), logits, Sampling(**settings))
        assert drawn.tolist() == [1, 0, 1]


def test_of_equal_tokens_no_more_than_k_are_kept():
    logits = jnp.tile(jnp.array([0.0, 1.0, 1.0, 1.0]), (2000, 1))
    drawn = sample(jax.random.key(0), logits, Sampling(temperature=1.0, top_k=2))
    assert_frequencies(drawn, np.array([0.0, 0.5, 0.5, 0.0]))


def test_large_logits_and_a_low_temperature_stay_finite():
    logits = jnp.array([[3e4, 2.9e4, -3e38]])
    for seed in range(5):
        assert sample(jax.random.key(seed), logits, Sampling(temperature=1e-6)).tolist() == [0]


# Refusals


@pytest.mark.parametrize(("error", "message", "change"), [
    (ValueError, r"prompt must be token ids \[B, L\] with L >= 1, got \(1, 0\)",
     {"prompt": np.zeros((1, 0), int)}),
    (ValueError, r"prompt must be .* with L >= 1, got \(3,\)", {"prompt": [0, 1, 2]}),
    (ValueError, "prompt must be in 0..12, got .*13", {"prompt": [[0, 13]]}),
    (ValueError, "prompt must be in 0..12, got .*-1", {"prompt": [[-1, 3]]}),
    (TypeError, "prompt must be integers, got dtype float", {"prompt": [[0.0]]}),
    (TypeError, "prompt must be integers, got dtype bool", {"prompt": [[True]]}),
    (ValueError, "num_tokens must be >= 1, got 0", {"num_tokens": 0}),
    (TypeError, "num_tokens must be an int, got 2.0", {"num_tokens": 2.0}),
    (ValueError, "a key is needed to draw at temperature > 0", {"sampling": WARM}),
    (ValueError, "stop_tokens must be in 0..12, got .*13", {"stop_tokens": [3, 13]}),
    (TypeError, "stop_tokens must be integers, got", {"stop_tokens": "\n"}),
    (TypeError, "stop_tokens must be integers, got", {"stop_tokens": [0.5]}),
])
def test_what_cannot_be_generated_is_refused(error, message, change):
    arguments = {"prompt": [[0]], "num_tokens": 2, **change}
    with pytest.raises(error, match=f"^generate: {message}"):
        generate(CHAIN, TABLE, **arguments)


@pytest.mark.parametrize(("error", "message", "settings"), [
    (ValueError, "temperature must be >= 0", {"temperature": -0.1}),
    (ValueError, "temperature must be >= 0", {"temperature": float("nan")}),
    (ValueError, "temperature must be 0 or >= 1e-06", {"temperature": 1e-40}),
    (ValueError, "top_k must be >= 1, got 0", {"top_k": 0}),
    (TypeError, "top_k must be an int, got 2.5", {"top_k": 2.5}),
    (ValueError, "top_p must be > 0", {"top_p": 0.0}),
    (ValueError, "top_p must be > 0 and <= 1", {"top_p": 1.5}),
    (TypeError, "top_p must be a number, got None", {"top_p": None}),
])
def test_a_sampling_out_of_range_is_refused(error, message, settings):
    with pytest.raises(error, match=f"^Sampling: {message}"):
        Sampling(**settings)


@pytest.mark.parametrize(("error", "message", "tokens", "options"), [
    (ValueError, r"tokens must be \[B, L\] with L >= 1, got \(1, 0\)", np.zeros((1, 0), int), {}),
    (ValueError, r"tokens must be .* with L >= 1, got \(3,\)", np.arange(3), {}),
    (ValueError, "tokens must be in 0..12, got .*13", np.array([[0, 13]]), {}),
    (TypeError, "tokens must be integers, got dtype float", np.zeros((1, 3)), {}),
    (ValueError, "chunk must be >= 1, got 0", np.zeros((1, 3), int), {"chunk": 0}),
])
def test_a_stream_that_cannot_be_read_is_refused(error, message, tokens, options):
    with pytest.raises(error, match=f"^stream_prefill: {message}"):
        stream_prefill(CHAIN, TABLE, CHAIN.init_cache(1, 1), tokens, **options)

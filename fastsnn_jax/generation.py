"""Text out of a language model: sampling, the decoding loop, and prefill of any length.

``model`` is anything with ``init_cache(batch, max_len)``, ``prefill`` and ``decode_step`` as of
``fastsnn_jax.models.LanguageModel``, hashable.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fastsnn_jax._checks import check, check_count, check_number
from fastsnn_jax._typing import Array, Float, Int, Key
from fastsnn_jax.attention import KVCache


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: only the k likeliest tokens may be drawn; None all.
      top_p: only the likeliest tokens that together hold this share of the probability; 1 all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_number("Sampling", "temperature", self.temperature, at_least=0.0, at_most=1e6)
        if self.top_k is not None:
            check_count("Sampling", "top_k", self.top_k)
        check_number("Sampling", "top_p", self.top_p, above=0.0, at_most=1.0)


class Generated(NamedTuple):
    """What ``generate`` returns.

    Attributes:
      tokens: int32 ``[B, N]``, the new tokens; after a stop token the row repeats it.
      lengths: int32 ``[B]``, new tokens of each row, its stop token included.
      cache: has read all but the last new token of each row; to go on, pass it with that token.
    """

    tokens: Int[Array, "B N"]
    lengths: Int[Array, " B"]
    cache: Any


def generate(
    model: Any, variables: Any, prompt: ArrayLike, num_tokens: int, *, key: Key | None = None,
    sampling: Sampling = Sampling(), stop_tokens: Sequence[int] = (), cache: Any = None,
) -> Generated:
    """Continues each row of ``prompt`` by up to ``num_tokens`` tokens.

    The whole loop is one compiled program per prompt length, ``num_tokens`` and settings; it ends
    early when every row has produced a stop token.

    Args:
      prompt: token ids ``[B, L]``, L >= 1.
      key: needed when ``sampling.temperature`` is above 0.
      stop_tokens: ids that end a row.
      cache: of the tokens before ``prompt``; default none. It is not consumed.
    Raises:
      ValueError: for an empty prompt, ids outside the vocabulary, a cache of another model or one
        without room for all tokens, or sampling without a key.
    """
    check_count("generate", "num_tokens", num_tokens)
    prompt = _checked_prompt(model, prompt)
    stops = tuple(int(token) for token in stop_tokens)
    check(sampling.temperature == 0 or key is not None, "generate",
          "a key is needed to draw at temperature > 0", "no key")
    key = jax.random.key(0) if key is None else key
    batch, length = prompt.shape
    if cache is None:
        cache = model.init_cache(batch, length + num_tokens)
    _check_room(cache, length + num_tokens)
    return Generated(*_generate(model, num_tokens, sampling, stops, variables, cache, prompt, key))


def sample(
    key: Key, logits: Float[Array, "B V"], sampling: Sampling
) -> Int[Array, " B"]:
    """Next token of each row, int32.

    >>> sample(jax.random.key(0), jnp.array([[0.0, 2.0, 1.0]]), Sampling())
    Array([1], dtype=int32)
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits.astype(jnp.float32) / sampling.temperature
    descending = jnp.sort(logits, axis=-1)[:, ::-1]
    kept = jnp.ones(logits.shape[-1:], bool)
    if sampling.top_k is not None:
        kept = jnp.arange(logits.shape[-1]) < sampling.top_k
    share = jax.nn.softmax(jnp.where(kept, descending, -jnp.inf), axis=-1)
    # What the likelier ones hold together: the first is always kept.
    kept = kept & (jnp.cumsum(share, axis=-1) - share < sampling.top_p)
    least = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
    logits = jnp.where(logits >= least, logits, -jnp.inf)
    return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)


def stream_prefill(
    model: Any, variables: Any, cache: Any, tokens: Any, *, chunk: int = 1024,
    report: Callable[[int], Any] | None = None,
) -> tuple[Any, Float[Array, "B V"]]:
    """Reads a text of any length in pieces; memory depends on ``chunk`` alone.

    Args:
      cache: from ``model.init_cache`` or an earlier call; it is consumed.
      tokens: ``[B, L]`` of integers, for example a memory-mapped file; read piece by piece.
      chunk: tokens per dispatch.
      report: told the number of tokens read after each piece.
    Returns:
      The cache after the last token, and the logits that follow it.
    Raises:
      ValueError: as ``generate``.
    """
    check_count("stream_prefill", "chunk", chunk)
    check(np.ndim(tokens) == 2 and np.size(tokens) > 0, "stream_prefill",
          "tokens must be [B, L] with L >= 1", np.shape(tokens))
    length = np.shape(tokens)[1]
    _check_room(cache, length)
    logits = None
    for start in range(0, length, chunk):
        piece = _checked_prompt(model, np.asarray(tokens[:, start : start + chunk]))
        cache, logits = _read(model, variables, cache, piece)
        if report is not None:
            jax.block_until_ready(logits)
            report(min(start + chunk, length))
    assert logits is not None  # there is at least one piece
    return cache, logits


def _last_logits(model: Any, variables: Any, cache: Any, tokens: Int[Array, "B L"]):
    """Cache after ``tokens`` and the logits that follow; the head reads one position only."""
    cache, (hidden, _) = model.apply(variables, cache, tokens, method="trunk")
    logits, _ = model.apply(variables, hidden[:, -1:], method="head")
    return cache, logits[:, 0]


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _read(model, variables, cache, tokens):
    return _last_logits(model, variables, cache, tokens)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(model, num_tokens, sampling, stops, variables, cache, prompt, key):
    def stopped(token):
        return jnp.isin(token, jnp.array(stops, jnp.int32)) if stops else jnp.zeros_like(
            token, bool
        )

    def going(carry):
        i, done = carry[0], carry[-1]
        return (i < num_tokens) & ~jnp.all(done)

    def body(carry):
        i, cache, last, tokens, lengths, done = carry
        cache, (logits, _) = model.decode_step(variables, cache, last)
        token = sample(jax.random.fold_in(key, i), logits, sampling)
        token = jnp.where(done, last, token)
        tokens = tokens.at[:, i].set(token)
        return i + 1, cache, token, tokens, lengths + ~done, done | stopped(token)

    cache, logits = _last_logits(model, variables, cache, prompt)
    first = sample(jax.random.fold_in(key, 0), logits, sampling)
    # A loop that ends early leaves the repeated stop token in what it did not reach.
    tokens = jnp.broadcast_to(first[:, None], (len(first), num_tokens))
    carry = jnp.int32(1), cache, first, tokens, jnp.ones_like(first), stopped(first)
    _, cache, last, tokens, lengths, _ = lax.while_loop(going, body, carry)
    reached = jnp.arange(num_tokens) < jnp.max(lengths)
    return jnp.where(reached, tokens, last[:, None]), lengths, cache


def _checked_prompt(model: Any, prompt: ArrayLike) -> Int[np.ndarray, "B L"]:
    prompt = np.asarray(prompt)
    check(prompt.ndim == 2 and prompt.size > 0, "generate",
          "prompt must be token ids [B, L] with L >= 1", prompt.shape)
    if not np.issubdtype(prompt.dtype, np.integer):
        raise TypeError(f"generate: prompt must be integers, got dtype {prompt.dtype}")
    size = model.config.vocab_size
    bad = prompt[(prompt < 0) | (prompt >= size)]
    check(not len(bad), "generate", f"token ids must be in 0..{size - 1}", bad[:3])
    return prompt.astype(np.int32)


def _check_room(cache: Any, count: int) -> None:
    for part in jax.tree.leaves(cache, is_leaf=lambda node: isinstance(node, KVCache)):
        if isinstance(part, KVCache):
            room = part.k.shape[1] - int(part.position)
            check(count <= room, "generate", f"the cache must have room for {count} tokens", room,
                  "give init_cache a larger max_len")

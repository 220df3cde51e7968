"""Text out of a language model: sampling, the decoding loop, and prefill of any length.

``model`` is a ``fastsnn_jax.models.LanguageModel``, or anything hashable that has its ``config``,
``init_cache``, ``decode_step`` and, by ``apply``, its methods ``trunk`` and ``head``.
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

COLDEST = 1e-6  # below, logits divided by the temperature could leave float32


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: only the k likeliest tokens may be drawn; None all.
      top_p: of those, only the fewest that together hold this share of the probability; 1 all.

    Of equally likely tokens the first counts as the likelier.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_number("Sampling", "temperature", self.temperature, at_least=0.0, at_most=1e6)
        check(self.temperature == 0 or self.temperature >= COLDEST, "Sampling",
              f"temperature must be 0 or >= {COLDEST}", self.temperature)
        if self.top_k is not None:
            check_count("Sampling", "top_k", self.top_k)
        check_number("Sampling", "top_p", self.top_p, above=0.0, at_most=1.0)


class Generated(NamedTuple):
    """What ``generate`` returns.

    Attributes:
      tokens: int32 ``[B, N]``, the new tokens; after a stop token the row repeats it.
      lengths: int32 ``[B]``, new tokens of each row, its stop token included.
      cache: has read all but the last of these tokens, up to where the longest row ends; to go on,
        pass it with that token.
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
        without room for all that is read, or sampling without a key.
      TypeError: for tokens that are not integers.
    """
    where = "generate"
    check_count(where, "num_tokens", num_tokens)
    prompt = np.asarray(prompt)
    check(prompt.ndim == 2 and prompt.size > 0, where,
          "prompt must be token ids [B, L] with L >= 1", prompt.shape)
    prompt = _checked(where, "prompt", prompt, model)
    stops = tuple(map(int, _checked(where, "stop_tokens", np.array([*stop_tokens]), model)))
    check(sampling.temperature == 0 or key is not None, where,
          "a key is needed to draw at temperature > 0", "no key")
    key = jax.random.key(0) if key is None else key
    batch, length = prompt.shape
    if cache is None:
        cache = model.init_cache(batch, length + num_tokens)
    _check_room(where, cache, length + num_tokens - 1)
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
    if sampling.top_k is None and sampling.top_p == 1:
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)
    order = jnp.argsort(logits, axis=-1, descending=True)  # stable
    logits = jnp.take_along_axis(logits, order, axis=-1)
    if sampling.top_k is not None:
        logits = jnp.where(jnp.arange(logits.shape[-1]) < sampling.top_k, logits, -jnp.inf)
    share = jax.nn.softmax(logits, axis=-1)
    # What the likelier ones hold together: the first is always kept.
    kept = jnp.cumsum(share, axis=-1) - share < sampling.top_p
    place = jax.random.categorical(key, jnp.where(kept, logits, -jnp.inf), axis=-1)
    return jnp.take_along_axis(order, place[:, None], axis=-1)[:, 0].astype(jnp.int32)


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
      ValueError, TypeError: as ``generate``; a bad token when its piece is reached.
    """
    where = "stream_prefill"
    check_count(where, "chunk", chunk)
    check(np.ndim(tokens) == 2 and np.size(tokens) > 0, where,
          "tokens must be [B, L] with L >= 1", np.shape(tokens))
    length = np.shape(tokens)[1]
    _check_room(where, cache, length)
    logits = None
    for start in range(0, length, chunk):
        piece = _checked(where, "tokens", np.asarray(tokens[:, start : start + chunk]), model)
        cache, logits = _read(model, variables, cache, piece)
        if report is not None:
            jax.block_until_ready(logits)
            report(min(start + chunk, length))
    assert logits is not None  # there is at least one piece
    return cache, logits


def _last_logits(model: Any, variables: Any, cache: Any, tokens: Int[Array, "B L"]):
    """Cache after ``tokens`` and the logits that follow; the head reads one position only."""
    jax.eval_shape(model.decode_step, variables, cache, tokens[:, 0])  # refuses a foreign cache
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


def _checked(where: str, name: str, tokens: np.ndarray, model: Any) -> Int[np.ndarray, "*N"]:
    """The token ids, int32."""
    if not np.issubdtype(tokens.dtype, np.integer) and tokens.size:  # [] is floating to NumPy
        raise TypeError(f"{where}: {name} must be integers, got dtype {tokens.dtype}")
    size = model.config.vocab_size
    bad = tokens[(tokens < 0) | (tokens >= size)]
    check(not len(bad), where, f"{name} must be in 0..{size - 1}", bad[:3])
    return tokens.astype(np.int32)


def _check_room(where: str, cache: Any, count: int) -> None:
    for part in jax.tree.leaves(cache, is_leaf=lambda node: isinstance(node, KVCache)):
        if isinstance(part, KVCache):
            room = part.k.shape[1] - int(part.position)
            check(count <= room, where, f"the cache must have room for {count} tokens", room,
                  "give init_cache a larger max_len")

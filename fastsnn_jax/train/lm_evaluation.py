"""How well a language model foretells text that it is not trained on."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastsnn_jax._typing import Array, Bool, Int, Params
from fastsnn_jax.activity import total_tokens
from fastsnn_jax.losses import cross_entropy

_LARGEST = math.log(sys.float_info.max)


class Evaluation(NamedTuple):
    """What `Trainer.evaluate` found, over all tokens foretold.

    Attributes:
      loss: mean cross-entropy, in nats per token.
      accuracy: percent of the tokens whose logit was the highest.
      samples: tokens foretold.
      spikes: by key of the activity, a dict of the totals of `TokenSpikes`; exact integers.
    """

    loss: float
    accuracy: float
    samples: int
    spikes: dict[str, dict[str, int]]

    @property
    def perplexity(self) -> float:
        """``exp(loss)``, infinite where no double holds it.

        >>> round(Evaluation(math.log(65.0), 0.0, 10, {}).perplexity, 6)
        65.0
        """
        return math.exp(self.loss) if self.loss < _LARGEST else math.inf


def next_token_sums(
    model: Any,
) -> Callable[[Params, Int[Array, "B L+1"], Bool[Array, "B L"]], dict[str, Any]]:
    """Returns ``(params, tokens, known) -> sums`` of loss, hits and spikes, nothing dropped out.

    The sums are over the targets ``tokens[:, 1:]`` that are ``known``: ``loss`` float32,
    ``correct`` and ``samples`` int32, and ``spikes`` as of ``next_token_loss``.

    >>> class Uniform:
    ...     def apply(self, params, tokens):
    ...         return jnp.zeros((*tokens.shape, 4)), {}
    >>> sums = next_token_sums(Uniform())({}, jnp.zeros((2, 6), jnp.int32), jnp.ones((2, 5), bool))
    >>> float(sums["loss"]), int(sums["correct"]), int(sums["samples"])
    (13.862943649291992, 10, 10)
    """

    def sums(params: Params, tokens: Array, known: Array) -> dict[str, Any]:
        logits, activity = model.apply(params, tokens[:, :-1])
        return foretold_sums(logits, activity, tokens[:, 1:], known)

    return sums


def foretold_sums(
    logits: Array, activity: Mapping[str, Any], targets: Int[Array, "B L"],
    known: Bool[Array, "B L"],
) -> dict[str, Any]:
    """The sums of `next_token_sums`, of what a model returned."""
    hits = (logits.argmax(-1) == targets) & known
    return {
        "loss": jnp.where(known, cross_entropy(logits, targets), 0.0).sum(),
        "correct": hits.sum(dtype=jnp.int32),
        "samples": known.sum(dtype=jnp.int32),
        "spikes": total_tokens(activity, known),
    }

"""The loss of a language model: how well it foretells each next token."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, Int, Key, Params
from fastsnn_jax.activity import total_tokens
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.train.step import Metrics


def next_token_loss(
    model: Any, *, penalty: Callable[[Mapping[str, Any]], Array] | None = None,
) -> Callable[[Params, Int[Array, "B L+1"], Key], tuple[Array, Metrics]]:
    """Returns ``loss_fn(params, tokens, key) -> (loss, metrics)`` for ``make_train_step``.

        loss = mean over b, t of cross_entropy(logits[b, t], tokens[b, t + 1])

    The metrics are sums over the batch: ``samples`` (predicted tokens, B L), ``correct``, and
    ``spikes``, for each key of the activity that counts spikes a dict of the `TokenSpikes` fields.
    They are int32: a layer's ``unary`` stays below 2^31 if B * L * channels * 127 does, 127 being
    the largest count, and in practice far beyond, the mean count being the neuron's k.

    Args:
      model: ``apply(params, tokens [B, L], train=True, rngs={"dropout": key}) -> (logits
        [B, L, V], activity)``; ``params`` is all that ``model.init`` returned.
      penalty: ``activity -> scalar``, added to the loss; for instance a price on spikes.
    Raises:
      ValueError: at trace time, if the model's outputs are not as above.

    >>> class Uniform:
    ...     def apply(self, params, tokens, train, rngs):
    ...         return jnp.zeros((*tokens.shape, 4)), {}
    >>> loss, metrics = next_token_loss(Uniform())({}, jnp.zeros((2, 6), jnp.int32), None)
    >>> float(loss), int(metrics["samples"])
    (1.3862943649291992, 10)
    """

    def loss_fn(params, tokens, key):
        targets = tokens[:, 1:]
        logits, activity = foretell(model, params, tokens, key)
        loss = cross_entropy(logits, targets).mean()
        if penalty is not None:
            loss = loss + penalty(activity)
        return loss, token_metrics(logits, targets, activity)

    return loss_fn


def token_metrics(
    logits: Array, targets: Int[Array, "B L"], activity: Mapping[str, Any]
) -> Metrics:
    """Predicted tokens, hits and spikes of a batch, as the metrics of a loss."""
    return {
        "samples": jnp.int32(targets.size),
        "correct": (logits.argmax(-1) == targets).sum(dtype=jnp.int32),
        "spikes": total_tokens(activity),
    }


def foretell(
    model: Any, params: Params, tokens: Int[Array, "B L+1"], key: Key
) -> tuple[Array, Mapping[str, Any]]:
    """Logits ``[B, L, V]`` of all tokens but the first, in training, and the activity."""
    inputs = tokens[:, :-1]
    logits, activity = model.apply(params, inputs, train=True, rngs={"dropout": key})
    check(jnp.ndim(logits) == 3 and logits.shape[:2] == inputs.shape
          and isinstance(activity, Mapping), "language model loss",
          f"model.apply must return (logits [{inputs.shape[0]}, {inputs.shape[1]}, V], activity "
          "dict)", f"logits {jnp.shape(logits)} and {type(activity).__name__}")
    return logits, activity

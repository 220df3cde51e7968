"""Learning from a teacher: how far a student's choice of the next token is from its teacher's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_number
from fastsnn_jax._typing import Array, Bool, Float, Int, Key, Params
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.train.lm_evaluation import foretold_sums
from fastsnn_jax.train.lm_loss import foretell, token_metrics
from fastsnn_jax.train.step import Metrics


def divergence(
    logits: Float[Array, "*B V"], reference: Float[Array, "*B V"], temperature: float = 1.0
) -> Float[Array, "*B"]:
    """Kullback-Leibler divergence of softened choices from those of a reference, in nats.

        sum_v p[v] (log p[v] - log q[v]),  p = softmax(reference / T),  q = softmax(logits / T)

    Computed in float32. No gradient flows into the reference.

    Args:
      temperature: T; above 1 it brings out what the reference thinks of unlikely tokens.
    Raises:
      ValueError, TypeError: for other shapes, or a temperature that is not positive.

    >>> divergence(jnp.zeros((1, 4)), jnp.log(jnp.array([[0.5, 0.5, 1e-9, 1e-9]])))
    Array([0.6931472], dtype=float32)
    """
    check_number("divergence", "temperature", temperature, above=0.0)
    check(jnp.shape(logits) == jnp.shape(reference) and jnp.ndim(logits) > 0, "divergence",
          "logits must have the shape of the reference", f"{jnp.shape(logits)} and "
          f"{jnp.shape(reference)}", "both models need one vocabulary")
    log_q = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    reference = jax.lax.stop_gradient(reference).astype(jnp.float32)
    log_p = jax.nn.log_softmax(reference / temperature)
    chance = jnp.exp(log_p)  # of a token that the reference rules out 0, and 0 log 0 = 0
    return jnp.where(chance > 0, chance * (log_p - log_q), 0.0).sum(-1)


def distillation_loss(
    student: Any, teacher: Any, *, temperature: float, mix: float
) -> Callable[[Params, tuple[Params, Int[Array, "B L+1"]], Key], tuple[Array, Metrics]]:
    """Returns ``loss_fn(params, (teacher's params, tokens), key) -> (loss, metrics)``.

        loss = mix * T^2 * mean divergence(student, teacher, T)
             + (1 - mix) * mean cross_entropy(student, next token)

    ``T^2`` keeps the gradient of the first part of one size for every temperature. The teacher runs
    on the same tokens, without dropout, and learns nothing; its parameters come with the batch, so
    that a compiled step takes them as arguments. Metrics are those of ``next_token_loss``.

    Args:
      student, teacher: language models of one vocabulary, as in ``next_token_loss``.
      temperature: T > 0.
      mix: share of the teacher in the loss, in [0, 1].
    Raises:
      ValueError, TypeError: a number out of range; at trace time, models that do not fit.

    Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2.

    >>> class Bigram:
    ...     def apply(self, params, tokens, train=False, rngs=None):
    ...         return params[tokens], {}
    >>> loss_fn = distillation_loss(Bigram(), Bigram(), temperature=2.0, mix=1.0)
    >>> tokens = jnp.array([[0, 1, 2]])
    >>> loss, metrics = loss_fn(jnp.zeros((3, 3)), (jnp.ones((3, 3)), tokens), None)
    >>> float(loss), int(metrics["samples"])
    (0.0, 2)
    """
    where = "distillation_loss"
    check_number(where, "temperature", temperature, above=0.0)
    check_number(where, "mix", mix, at_least=0.0, at_most=1.0)

    def loss_fn(params, batch, key):
        taught, tokens = batch
        targets = tokens[:, 1:]
        logits, activity = foretell(student, params, tokens, key)
        reference, _ = teacher.apply(taught, tokens[:, :-1])
        softened = divergence(logits, reference, temperature).mean()
        loss = mix * temperature**2 * softened + (1 - mix) * cross_entropy(logits, targets).mean()
        return loss, token_metrics(logits, targets, activity)

    return loss_fn


def distillation_sums(
    student: Any, teacher: Any
) -> Callable[[tuple[Params, Params], Int[Array, "B L+1"], Bool[Array, "B L"]], dict[str, Any]]:
    """Returns ``((params, teacher's params), tokens, known) -> sums`` of how alike the two are.

    Beside the sums of ``next_token_sums`` for the student: ``teacher_loss`` and ``divergence`` at
    temperature 1, float32, and ``agree``, int32, the targets for which both choose the same token.
    """

    def sums(params: tuple[Params, Params], tokens: Array, known: Array) -> dict[str, Any]:
        logits, activity = student.apply(params[0], tokens[:, :-1])
        reference, _ = teacher.apply(params[1], tokens[:, :-1])
        targets = tokens[:, 1:]

        def total(values: Array) -> Array:
            return jnp.where(known, values, 0).sum()

        alike = (logits.argmax(-1) == reference.argmax(-1)) & known
        return foretold_sums(logits, activity, targets, known) | {
            "teacher_loss": total(cross_entropy(reference, targets)),
            "divergence": total(divergence(logits, reference)),
            "agree": alike.sum(dtype=jnp.int32),
        }

    return sums

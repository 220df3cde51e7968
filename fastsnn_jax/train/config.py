"""How a `Trainer` trains: lengths, learning rate, optimiser."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax._typing import Array, Float

LAST_RATE = 0.1  # of the peak, at the end of the cosine


@dataclass(frozen=True)
class TrainConfig:
    """How a `Trainer` trains.

    Attributes:
      max_steps: updates, at most.
      log_every: steps between progress events; the losses are fetched that often.
      eval_every: steps between evaluations on the validation batches; there is one at the end too.
      lr: peak learning rate.
      weight_decay: of AdamW, on leaves with two axes or more: kernels, not biases and norms.
      beta2: decay of AdamW's mean square; smaller follows the small batches of short runs.
      warmup_steps: over so many steps the rate rises linearly to its peak.
      schedule: "constant", or "cosine": it falls to a tenth at the last step.
      clip_norm: largest norm of the gradient; None does not clip.
      accumulate: parts of a batch that are worked off one after the other.
      seed: of the initial parameters and dropout.
    """

    max_steps: int = 200
    log_every: int = 50
    eval_every: int = 200
    lr: float = 3e-4
    weight_decay: float = 0.0
    beta2: float = 0.999
    warmup_steps: int = 0
    schedule: str = "constant"
    clip_norm: float | None = 1.0
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self):
        where = "TrainConfig"
        for name in ("max_steps", "log_every", "eval_every", "accumulate"):
            check_count(where, name, getattr(self, name))
        check_count(where, "seed", self.seed, at_least=0)
        check_count(where, "warmup_steps", self.warmup_steps, at_least=0)
        check(self.warmup_steps < self.max_steps, where,
              f"warmup_steps must be < {self.max_steps}, the max_steps", self.warmup_steps)
        check_number(where, "lr", self.lr, above=0.0)
        check_number(where, "weight_decay", self.weight_decay, at_least=0.0)
        check_number(where, "beta2", self.beta2, above=0.0, at_most=1 - 1e-6)
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            check(math.isfinite(value), where, f"{name} must be finite", value)
        check_choice(where, "schedule", self.schedule, ("constant", "cosine"))
        if self.clip_norm is not None:
            check_number(where, "clip_norm", self.clip_norm, above=0.0)

    def learning_rate(self, step: ArrayLike) -> Float[Array, ""]:
        """Rate of update ``step``, from 0.

            lr * min(1, (step + 1) / (warmup_steps + 1)) * fall
            fall = 1, or for "cosine": 0.1 + 0.9 * (1 + cos(pi * p)) / 2, where p goes from 0 to 1
            between the end of the warm-up and the last step

        >>> config = TrainConfig(max_steps=11, lr=1.0, warmup_steps=4, schedule="cosine")
        >>> [round(float(config.learning_rate(step)), 3) for step in (0, 3, 4, 7, 10)]
        [0.2, 0.8, 1.0, 0.55, 0.1]
        """
        rise = jnp.minimum(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.schedule == "constant":
            return self.lr * rise
        falling_steps = max(1, self.max_steps - 1 - self.warmup_steps)
        share = jnp.clip((step - self.warmup_steps) / falling_steps, 0.0, 1.0)
        return self.lr * rise * optax.cosine_decay_schedule(1.0, 1, alpha=LAST_RATE)(share)

    def optimizer(self) -> optax.GradientTransformation:
        """Clipping, then AdamW at `learning_rate`."""
        adamw = optax.adamw(
            self.learning_rate, b2=self.beta2, weight_decay=self.weight_decay,
            mask=lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params),
        )
        if self.clip_norm is None:
            return adamw
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)

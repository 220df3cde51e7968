"""Encoding, training step and counting, shared by the peers written in JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .common import LEARNING_RATE, MAX_NORM, SPIKE_PROBABILITY, WEIGHT_DECAY, Result

Forward = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
Encode = Callable[[jax.Array, jax.Array], jax.Array]


class JaxPeer:
    """Runs ``forward(params, spikes[T, B, 784]) -> (logits [B, 10], hidden total, output total)``.

    Each of the four calls is one jitted program, encoding included; ``encode(key, images)`` returns
    spikes [T, B, 784]. Float32 totals are exact: those of a batch stay below 2^24.
    """

    def __init__(self, forward: Forward, params: Any, encode: Encode, seed: int) -> None:
        optimizer = optax.chain(
            optax.clip_by_global_norm(MAX_NORM),
            optax.add_decayed_weights(WEIGHT_DECAY),
            optax.adam(LEARNING_RATE),
        )

        def train(params, optimizer_state, spikes, labels):
            def loss_fn(params):
                logits, *totals = forward(params, spikes)
                loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
                return loss, totals

            (loss, totals), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            params = optax.apply_updates(params, updates)
            return params, optimizer_state, (loss, spikes.sum(), *totals)

        def train_images(params, optimizer_state, key, images, labels):
            return train(params, optimizer_state, encode(key, images), labels)

        def run(params, spikes):
            logits, *totals = forward(params, spikes)
            return logits, spikes.sum(), *totals

        def run_images(params, key, images):
            return run(params, encode(key, images))

        self.key = jax.random.key(seed)
        self.step = 0
        self.params = params
        self.optimizer_state = optimizer.init(params)
        self._train = jax.jit(train, donate_argnums=(0, 1))
        self._train_images = jax.jit(train_images, donate_argnums=(0, 1))
        self._run = jax.jit(run)
        self._run_images = jax.jit(run_images)

    def spikes(self, array: np.ndarray) -> jax.Array:
        return jax.block_until_ready(jnp.asarray(array))

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> Result:
        return self._updated(self._train_images, self._next_key(), images, labels)

    def train_step_given(self, spikes: jax.Array, labels: np.ndarray) -> Result:
        return self._updated(self._train, spikes, labels)

    def infer(self, images: np.ndarray) -> Result:
        _, *totals = jax.device_get(self._run_images(self.params, self._next_key(), images))
        return Result(None, *map(int, totals))

    def infer_given(self, spikes: jax.Array) -> Result:
        _, *totals = jax.device_get(self._run(self.params, spikes))
        return Result(None, *map(int, totals))

    def _updated(self, program: Callable, *inputs: Any) -> Result:
        updated = program(self.params, self.optimizer_state, *inputs)
        self.params, self.optimizer_state, (loss, *totals) = jax.block_until_ready(updated)
        return Result(float(loss), *map(int, totals))

    def _next_key(self) -> jax.Array:
        self.step += 1
        return jax.random.fold_in(self.key, self.step)


def poisson_encoder(num_steps: int) -> Encode:
    """One Bernoulli draw per pixel and step."""

    def encode(key: jax.Array, images: jax.Array) -> jax.Array:
        shape = (num_steps, *images.shape)
        return jax.random.bernoulli(key, images * SPIKE_PROBABILITY, shape).astype(jnp.float32)

    return encode

"""What counting costs: the spikes of `activity`, and the accountant's run of a whole program.

    python -m benchmarks.accountant
    python -m benchmarks.accountant --quick        few rounds, nothing saved

A train step of the MNIST network (784-400-10, T=50, B=64), forward pass and train step of a
language model, each as it is ("plain", its spikes counted), with the counts dropped ("uncounted")
and under ``energy.count`` ("accounted"). All are compiled and warm; the accountant's time includes
fetching what it measured and adding it up. They take turns, round by round, and the ratios are of
each round.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import _timing
from fastsnn_jax.energy.accountant import count
from fastsnn_jax.recipes.lm import network as lm_network
from fastsnn_jax.recipes.lm import preset as lm_preset
from fastsnn_jax.recipes.lm.training import EVAL_TOKENS
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan
from fastsnn_jax.train import init_state, make_train_step, next_token_sums

VOCABULARY = 65  # characters of tiny Shakespeare
STEPS, BATCH = 50, 64
ROUNDS, ROUNDS_QUICK = 21, 3


class Case(NamedTuple):
    """A function with its counts returned, the same without them, and arguments."""

    plain: Callable
    uncounted: Callable
    args: tuple


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short and unsaved")
    options = parser.parse_args()
    cases = mnist() | language_model()
    programs: dict[Any, Callable[[], float]] = {}
    for name, case in cases.items():
        programs[name, "uncounted"] = _seconds(jax.jit(case.uncounted), case.args)
        programs[name, "plain"] = _seconds(jax.jit(case.plain), case.args)
        programs[name, "accounted"] = _seconds(count(case.plain), case.args)
    seconds = _timing.take_turns(programs, ROUNDS_QUICK if options.quick else ROUNDS)
    table = {}
    for name in cases:
        uncounted, plain, accounted = (
            seconds[name, variant] for variant in ("uncounted", "plain", "accounted")
        )
        table[name] = {
            "plain_ms": _timing.summary(1e3 * plain),
            "plain_over_uncounted": _timing.summary(plain / uncounted),
            "accounted_over_plain": _timing.summary(accounted / plain),
        }
        print(f"{name:24} {1e3 * np.median(plain):8.2f} ms   "
              f"spikes counted / not {np.median(plain / uncounted):.3f}   "
              f"accounted / plain {np.median(accounted / plain):.2f}")
    if not options.quick:
        print(_timing.save("accountant", {"programs": table}))


def mnist() -> dict[str, Case]:
    """Train step of the default network, by input synapse."""
    config = preset(num_steps=STEPS, batch_size=BATCH)
    model = network.build_model(config)
    tx = network.build_optimiser(config, 100).tx
    params = network.init_params(config, model, (28, 28, 1), jax.random.key(0))
    random = np.random.default_rng(0)
    images = (255 * random.random((BATCH, 28, 28, 1)) ** 6).astype(np.uint8)
    batch = (images, random.integers(0, 10, BATCH).astype(np.int32))
    args = init_state(params, tx, jax.random.key(1)), batch
    cases = {}
    for synapse in ("dense", "event"):
        loss_fn = network.make_loss(model, config, InputPlan(synapse, 64, 0.03))
        cases[f"mnist step, {synapse}"] = _step(loss_fn, tx, args)
    return cases


def language_model() -> dict[str, Case]:
    """Evaluation and train step of the recipe's smaller model, in the recipe's batches."""
    config = lm_preset("nanogpt-cpu", vocab_size=VOCABULARY)
    model, tx = lm_network.build_model(config), lm_network.build_optimiser(config)
    random = np.random.default_rng(0)
    tokens, held_out = (
        random.integers(0, VOCABULARY, (size, config.context + 1)).astype(np.int32)
        for size in (config.batch_size, EVAL_TOKENS // config.context)
    )
    variables = model.init(jax.random.key(0), tokens[:1, :2])
    state = init_state(variables, tx, jax.random.key(1))
    sums, known = next_token_sums(model), np.ones((len(held_out), config.context), bool)

    def uncounted(variables, tokens, known):
        figures = sums(variables, tokens, known)
        del figures["spikes"]
        return figures

    return {
        "language model, forward": Case(sums, uncounted, (variables, held_out, known)),
        "language model, step": _step(lm_network.make_loss(model, config), tx, (state, tokens)),
    }


def _step(loss_fn: Callable, tx: Any, args: tuple) -> Case:
    def uncounted(params, batch, key):
        loss, metrics = loss_fn(params, batch, key)
        del metrics["spikes"]
        return loss, metrics

    return Case(make_train_step(loss_fn, tx), make_train_step(uncounted, tx), args)


def _seconds(run: Callable, args: Any) -> Callable[[], float]:
    def program() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        return time.perf_counter() - start

    return program


if __name__ == "__main__":
    main()

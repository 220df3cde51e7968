"""What the accountant's run of a program costs beside a plain run of it.

    python -m benchmarks.accountant
    python -m benchmarks.accountant --quick        few rounds, nothing saved

A train step of the MNIST network (784-400-10, T=50, B=64), forward pass and train step of a
language model. Both programs are compiled and warm; the accountant's time includes fetching what it
measured and adding it up. They take turns, round by round, and the ratios are of each round.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import _timing
from fastsnn_jax.energy.accountant import count
from fastsnn_jax.recipes.lm import network as lm_network
from fastsnn_jax.recipes.lm import preset as lm_preset
from fastsnn_jax.recipes.mnist import network
from fastsnn_jax.recipes.mnist.config import preset
from fastsnn_jax.recipes.mnist.inputs import InputPlan
from fastsnn_jax.train import init_state, make_train_step

VOCABULARY = 65  # characters of tiny Shakespeare
STEPS, BATCH = 50, 64
ROUNDS, ROUNDS_QUICK = 21, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short and unsaved")
    options = parser.parse_args()
    programs: dict[Any, Callable[[], float]] = {}
    for name, (function, *args) in {**mnist(), **language_model()}.items():
        programs[name, "plain"] = _seconds(jax.jit(function), args)
        programs[name, "counted"] = _seconds(count(function), args)
    seconds = _timing.take_turns(programs, ROUNDS_QUICK if options.quick else ROUNDS)
    table = {}
    for name in dict.fromkeys(name for name, _ in programs):
        plain, counted = seconds[name, "plain"], seconds[name, "counted"]
        table[name] = {
            "plain_ms": _timing.summary(1e3 * plain), "counted_ms": _timing.summary(1e3 * counted),
            "ratio": _timing.summary(counted / plain),
        }
        print(f"{name:26} plain {1e3 * np.median(plain):8.2f} ms   "
              f"{np.median(counted / plain):.2f} times that with counting")
    if not options.quick:
        print(_timing.save("accountant", {"programs": table}))


def mnist() -> dict[str, tuple]:
    """Train step of the default network, by input synapse."""
    config = preset(num_steps=STEPS, batch_size=BATCH)
    model = network.build_model(config)
    tx = network.build_optimiser(config, 100).tx
    params = network.init_params(config, model, (28, 28, 1), jax.random.key(0))
    random = np.random.default_rng(0)
    images = (255 * random.random((BATCH, 28, 28, 1)) ** 6).astype(np.uint8)
    batch = (images, random.integers(0, 10, BATCH).astype(np.int32))
    programs = {}
    for synapse in ("dense", "event"):
        step = make_train_step(network.make_loss(model, config, InputPlan(synapse, 64, 0.03)), tx)
        state = init_state(params, tx, jax.random.key(1))
        programs[f"mnist step, {synapse}"] = (step, state, batch)
    return programs


def language_model() -> dict[str, tuple]:
    """Forward pass and train step of the recipe's smaller model."""
    config = lm_preset("nanogpt-cpu", vocab_size=VOCABULARY)
    model, tx = lm_network.build_model(config), lm_network.build_optimiser(config)
    shape = (config.batch_size, config.context + 1)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, shape).astype(np.int32)
    variables = model.init(jax.random.key(0), tokens[:1, :2])
    step = make_train_step(lm_network.make_loss(model, config), tx)
    return {
        "language model, forward": (model.apply, variables, tokens[:, :-1]),
        "language model, train": (step, init_state(variables, tx, jax.random.key(1)), tokens),
    }


def _seconds(run: Callable, args: Any) -> Callable[[], float]:
    def program() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(*args)[0])
        return time.perf_counter() - start

    return program


if __name__ == "__main__":
    main()

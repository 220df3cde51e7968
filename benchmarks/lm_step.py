"""Tokens per second of a language model's train step, spiking against its twin without spikes.

    python -m benchmarks.lm_step
    python -m benchmarks.lm_step --quick        the smaller size, few rounds, nothing saved

The recipe's own step (its network, optimiser and loss), many steps a dispatch as in its loop, with
the spikes counted ("spiking") and with the counts dropped ("uncounted"). All programs take turns,
round by round: a shared machine's drift cancels in the ratios, which are medians over rounds.

Model FLOPs of a token, forward, N = entries of the kernels (the tied head's too), D = head size:

    2 N + sum over layers of  linear 2 (H + G) D D  (write k^T v, read q S)
                              sliding 4 H D * (mean keys a query sees)

and three times that in a train step. They are what the equations ask for: neither spikes nor the
optimiser nor what a chunked form adds. Utilisation is their rate over the best float32 matmul's.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from fastsnn_jax.models import LanguageModel
from fastsnn_jax.nn import LinearAttention, SlidingWindowAttention
from fastsnn_jax.recipes.lm import LMConfig, network, preset
from fastsnn_jax.train import init_state, make_train_step
from fastsnn_jax.train.chunk import Chunk

VARIANTS = ("twin", "spiking", "uncounted")
PASSES = ("train", "forward")
VOCABULARY = 65  # characters of tiny Shakespeare
MATMULS = (512, 1024, 2048)
ROUNDS, ROUNDS_QUICK = 11, 5


class Size(NamedTuple):
    """A network with its batch, and how many steps make a dispatch of some tenths of a second."""

    config: LMConfig
    steps: int


SIZES = {
    "nanogpt-cpu": Size(preset("nanogpt-cpu", vocab_size=VOCABULARY), 16),
    "256-wide": Size(preset("nanogpt-cpu", vocab_size=VOCABULARY, context=256, batch_size=8,
                            model={"d_model": 256, "d_ff": 688}), 3),
}
QUICK = ("nanogpt-cpu",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short and unsaved")
    options = parser.parse_args()
    sizes = {name: SIZES[name] for name in (QUICK if options.quick else SIZES)}

    # The variants of a pass run one right after the other: what is compared is close in time.
    programs: dict[Any, Callable[[], float]] = {n: _matmul(n) for n in MATMULS}
    for name, size in sizes.items():
        for which in PASSES:
            for variant in VARIANTS:
                programs[name, which, variant] = _program(size, which, variant)
    seconds = _timing.take_turns(programs, ROUNDS_QUICK if options.quick else ROUNDS)

    peak = np.max([2 * n**3 / seconds[n] for n in MATMULS], axis=0)
    print(f"matmul {np.median(peak) / 1e9:.0f} GFLOP/s")
    rows, ratios = [], {}
    for name, size in sizes.items():
        config, tokens = size.config, size.steps * size.config.batch_size * size.config.context
        for which in PASSES:
            twin = seconds[name, which, "twin"]
            flops = forward_flops(network.build_model(config), config.context)
            flops *= 3 if which == "train" else 1
            for variant in VARIANTS:
                took = seconds[name, which, variant]
                rows.append({
                    "size": name, "pass": which, "variant": variant,
                    "tokens_per_s": _timing.summary(tokens / took),
                    "model_flops_per_token": flops,
                    "utilisation": _timing.summary(flops * tokens / took / peak),
                })
                if variant != "twin":
                    ratios[f"{variant}_over_twin_{which}_{name}"] = _timing.summary(took / twin)
                print(_line(rows[-1], np.median(took / twin)), flush=True)
            counted, uncounted = (seconds[name, which, each] for each in VARIANTS[1:])
            ratios[f"counted_over_uncounted_{which}_{name}"] = _timing.summary(counted / uncounted)
    if not options.quick:
        print(_timing.save("lm_step", {
            "sizes": {name: size.config.to_json() for name, size in sizes.items()},
            "matmul_flop_per_s": _timing.summary(peak), "rows": rows, "time_ratios": ratios,
        }))


def forward_flops(model: LanguageModel, context: int) -> int:
    """Model FLOPs of one token, as above."""
    params: Any = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    flops = sum(
        2 * leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel" or path[-1].key == "embedding" and model.config.tie_lm_head
    )
    for block in model.blocks:
        layer = block.attention
        if isinstance(layer, LinearAttention):
            flops += 2 * (layer.n_heads + layer.n_kv_heads) * layer.head_dim**2
        elif isinstance(layer, SlidingWindowAttention):
            keys = np.minimum(np.arange(context) + 1, layer.window).mean()
            flops += round(4 * layer.n_heads * layer.head_dim * keys)
        else:
            raise TypeError(f"forward_flops: no formula for {type(layer).__name__}")
    return flops


def _program(size: Size, which: str, variant: str) -> Callable[[], float]:
    """Runs one dispatch and returns its seconds; a train step goes on from where it was."""
    config = size.config
    model = network.build_model(config, spiking=variant != "twin")
    counted_loss = network.make_loss(model, config)

    def loss_fn(params, tokens, key):
        loss, metrics = counted_loss(params, tokens, key)
        if variant == "uncounted":
            del metrics["spikes"]
        return loss, metrics

    def forward(state, tokens):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        return state._replace(step=state.step + 1), loss_fn(state.params, tokens, key)

    tx = network.build_optimiser(config)
    step = make_train_step(loss_fn, tx) if which == "train" else forward
    chunk = Chunk(step, lambda data, row: data[row])
    shape = size.steps, config.batch_size, config.context + 1
    data = jax.random.randint(jax.random.key(0), shape, 0, VOCABULARY)
    params = model.init(jax.random.key(1), data[0, :1, :-1])
    state, order = init_state(params, tx, jax.random.key(2)), jnp.arange(size.steps)

    def program() -> float:
        nonlocal state
        start = time.perf_counter()
        state, outputs = jax.block_until_ready(chunk(state, data, order, 0, size.steps))
        seconds = time.perf_counter() - start
        losses, metrics = jax.device_get(outputs)
        spikes = sum(count["unary"][0] for count in metrics.get("spikes", {}).values())
        if not np.isfinite(losses[: size.steps]).all() or (spikes > 0) != (variant == "spiking"):
            raise SystemExit(f"{which}, {variant}: not a network at work")
        return seconds

    return program


def _matmul(size: int) -> Callable[[], float]:
    """Seconds of one float32 matmul of two squares, the mean of a few."""
    square = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    repeats = max(1, (2048 // size) ** 2)

    def program() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(product(square, square))
        return (time.perf_counter() - start) / repeats

    return program


def _line(row: dict[str, Any], ratio: float) -> str:
    return (f"{row['size']:12} {row['pass']:8} {row['variant']:10} "
            f"{row['tokens_per_s']['median']:9,.0f} tokens/s   {ratio:.2f} times the twin's time   "
            f"{100 * row['utilisation']['median']:.0f} % of the matmul peak")


if __name__ == "__main__":
    main()

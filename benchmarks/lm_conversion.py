"""A trained language model without spikes, every product of which is then fed by spikes.

    python -m experiments.spiking_lm --preset nanogpt-cpu --corpus tiny_shakespeare --compare-ann \
--out RUN
    python -m benchmarks.lm_conversion RUN

Takes the twin of a run, converts it in one line (``sites="synapses"``, the threshold of each token
its mean magnitude / k), and compares: the loss over the held-out text as converted and after a
little fine-tuning on the training text, and the time of a forward pass in batches of the
evaluation, taking turns.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fastsnn_jax as fs
from benchmarks import _timing
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.data import load_corpus, random_crops, windows
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.recipes import lm
from fastsnn_jax.recipes.lm import network
from fastsnn_jax.recipes.lm.pipeline import EVAL_TOKENS, TWIN
from fastsnn_jax.recipes.run_directory import CHECKPOINTS
from fastsnn_jax.train import (
    LoopConfig,
    Source,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

ROUNDS = 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory of a run with --compare-ann")
    parser.add_argument("--data-dir", help="where its text lies (default: TFDS_DATA_DIR)")
    parser.add_argument("--k", type=float, default=3.0, help="mean |s| of a token")
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of fine-tuning, cosine")
    options = parser.parse_args()
    config = lm.saved_config(options.run)
    corpus = load_corpus(config.corpus, options.data_dir,
                         None if config.tokenizer == "auto" else config.tokenizer)
    settled = dataclasses.replace(config, vocab_size=corpus.tokenizer.vocab_size)
    model = network.build_model(settled, spiking=False)
    items = Checkpoints(options.run / TWIN / CHECKPOINTS).restore().items
    variables = lm.recorded_variables(items)
    held_out = windows(corpus.validation, config.context)
    batch = EVAL_TOKENS // config.context

    def forward(variables: Any, tokens: Any) -> Any:
        return model.apply(variables, tokens)[0]

    crops = random_crops(corpus.train, config.context, options.steps * config.batch_size, 1, 0)
    snn = fs.convert(forward, variables, jnp.asarray(crops[: config.batch_size, :-1]),
                     method="dynamic_mean", sites="synapses", k=options.k)

    def spiking(variables: Any, tokens: Any) -> Any:
        return snn.apply(variables, tokens)[0]

    before = _loss(forward, held_out, batch)(variables)
    converted_loss = _loss(spiking, held_out, batch)
    converted = converted_loss(snn.variables)
    tx = optax.adamw(optax.cosine_decay_schedule(options.learning_rate, options.steps))
    source = Source(lambda epoch: jnp.asarray(crops), len(crops), lambda data, index: data[index])
    result = train(
        make_train_step(_training_loss(spiking), tx), source,
        init_state(snn.variables, tx, jax.random.key(1)), LoopConfig(1, config.batch_size, 1),
    )
    tuned = converted_loss(result.params)
    tokens = jnp.asarray(held_out.tokens[:batch, :-1])
    seconds = _timing.take_turns({
        "values": _seconds(forward, variables, tokens),
        "spikes": _seconds(spiking, snn.variables, tokens),
    }, ROUNDS)
    ratio = seconds["spikes"] / seconds["values"]
    counted = jax.jit(snn.apply)(snn.variables, tokens)[1]
    codes = {name: float(np.mean(np.asarray(count.events))) for name, count in counted.items()}
    results = {
        "sites": sum(site.converted for site in snn.sites), "left": [
            site.name for site in snn.sites if not site.converted
        ],
        "k": options.k, "fine_tuning": {"steps": options.steps, "rate": options.learning_rate},
        "loss": {"values": before, "converted": converted, "fine_tuned": tuned},
        "change_percent": {"converted": 100 * (converted / before - 1),
                           "fine_tuned": 100 * (tuned / before - 1)},
        "forward_ms": {name: _timing.summary(1e3 * each) for name, each in seconds.items()},
        "spikes_over_values": _timing.summary(ratio), "mean_count": codes,
    }
    print(f"{results['sites']} sites; loss {before:.4f} of values, {converted:.4f} converted "
          f"({results['change_percent']['converted']:+.2f} %), {tuned:.4f} after {options.steps} "
          f"steps ({results['change_percent']['fine_tuned']:+.2f} %); "
          f"time x {np.median(ratio):.2f}")
    print(_timing.save("lm_conversion", results))


def _loss(forward: Callable, held_out: Any, batch: int) -> Callable[[Any], float]:
    """``variables -> `` nats a token over all windows."""
    def metrics_fn(variables: Any, rows: Any, mask: Any, key: Any) -> dict[str, Any]:
        del key  # nothing is random
        tokens, known = rows
        each = cross_entropy(forward(variables, tokens[:, :-1]), tokens[:, 1:])
        known = known & mask[:, None]
        count = known.sum(dtype=jnp.int32)
        return {"loss": jnp.where(known, each, 0.0).sum(), "samples": count, "correct": count}

    rows = rows_of(jax.tree.map(jnp.asarray, tuple(held_out)))
    evaluate = make_evaluate(metrics_fn, rows, batch, jax.random.key(0))
    return lambda variables: evaluate(variables)["loss"]


def _training_loss(forward: Callable) -> Callable:
    def loss_fn(variables: Any, tokens: Any, key: Any) -> Any:
        del key  # nothing is random
        loss = cross_entropy(forward(variables, tokens[:, :-1]), tokens[:, 1:]).mean()
        count = jnp.int32(tokens[:, 1:].size)
        return loss, {"correct": count, "samples": count}

    return loss_fn


def _seconds(forward: Callable, variables: Any, tokens: Any) -> Callable[[], float]:
    compiled = jax.jit(forward)
    jax.block_until_ready(compiled(variables, tokens))

    def program() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(variables, tokens))
        return time.perf_counter() - start

    return program


if __name__ == "__main__":
    main()

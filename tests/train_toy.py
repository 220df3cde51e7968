"""A small noisy classifier trained by the library's loop; as a script, a run that can be killed.

    python tests/train_toy.py DIR [--resume] [--pause S]    prints the outcome as one JSON line
"""

import argparse
import hashlib
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.train import (
    Interrupted,
    LoopConfig,
    Plateau,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

SAMPLES, FEATURES, HIDDEN, CLASSES = 203, 6, 16, 3


def samples():
    random = np.random.default_rng(0)
    x = random.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    y = (x @ random.normal(size=(FEATURES, CLASSES))).argmax(1).astype(np.int32)
    return jnp.asarray(x), jnp.asarray(y)


def params():
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": 0.3 * jax.random.normal(first, (FEATURES, HIDDEN)),
        "output": 0.3 * jax.random.normal(second, (HIDDEN, CLASSES)),
    }


def sums(params, batch, mask, key):
    """Metrics of a batch; noise on the input makes every step depend on its key."""
    x, y = batch
    hidden = jnp.maximum((x + 0.1 * jax.random.normal(key, x.shape)) @ params["hidden"], 0.0)
    logits = hidden @ params["output"]
    return {
        "loss": jnp.where(mask, cross_entropy(logits, y), 0.0).sum(),
        "correct": ((logits.argmax(-1) == y) & mask).sum(dtype=jnp.int32),
        "samples": mask.sum(dtype=jnp.int32),
        "spikes": {"hidden": ((hidden > 0.5) & mask[:, None]).sum(dtype=jnp.int32)},
    }


def loss_fn(params, batch, key):
    metrics = sums(params, batch, jnp.ones(batch[1].shape, bool), key)
    return metrics.pop("loss") / len(batch[1]), metrics


def run(checkpoints=None, *, epochs=4, batch_size=8, ema=True, tx=None, loss_fn=loss_fn,
        source=None, evaluate=None, resume=False, progress=None, mesh=None, **config):
    """One run of the loop over the toy."""
    tx = optax.adam(0.01) if tx is None else tx
    evaluate = evaluate or make_evaluate(sums, rows_of(samples()), 64, jax.random.key(2), mesh=mesh)
    step = make_train_step(loss_fn, tx, ema_decay=0.9 if ema else None)
    state = init_state(params(), tx, jax.random.key(1), ema=ema)
    return train(
        step, source or rows_of(samples()), state, LoopConfig(epochs, batch_size, **config),
        evaluate=evaluate, checkpoints=checkpoints, resume=resume, progress=progress, mesh=mesh,
    )


def digest(tree):
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def outcome(result):
    """Everything of a result that must not depend on when it was interrupted."""
    history = {name: v for name, v in result.journal.history.items() if name != "epoch_times"}
    return {
        "state": digest(result.state), "params": digest(result.params), "history": history,
        "totals": result.journal.totals, "best_epoch": result.journal.best_epoch,
        "plateau": result.journal.plateau, "stopped": result.journal.stopped,
    }


def killable(out, resume=False, pause=0.0, progress=None):
    """The outcome of a run that saves after every dispatch; with a pause there are many of them."""
    result = run(
        Checkpoints(out), resume=resume, progress=progress, log_every=7, save_every_s=0.0,
        chunk_s=1e-6 if pause else 0.5, plateau=Plateau(patience=0, threshold=0.1),
    )
    return json.loads(json.dumps(outcome(result)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    args = parser.parse_args()

    def progress(event):
        print(event.kind, event.epoch, event.step, file=sys.stderr, flush=True)
        time.sleep(args.pause if event.kind == "chunk" else 0.0)

    try:
        print(json.dumps(killable(args.out, args.resume, args.pause, progress)))
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

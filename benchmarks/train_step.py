"""Samples per second of training and inference: MLP 784-400-10, T=50, Poisson 80 Hz, counting on.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --peers PEERS_PYTHON    interleaved with the other libraries

Four calls, as in ``benchmarks/peers/common.py``: training end to end (encoding included) and with
spikes given in each library's own form (event lists for ours), inference likewise. Ours runs the
loop's own program, many steps a dispatch, on the CPU devices the command has: two of two cores
(``JAX_NUM_CPU_DEVICES=1``: one). Peers run as each is fastest, a step a call, with all the threads.
Optimiser of both: clip to norm 1, L2 1e-5, Adam 3e-3.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import _timing
from benchmarks.peers import common
from fastsnn_jax import encoding
from fastsnn_jax.cli.cores import use_cores
from fastsnn_jax.losses import cross_entropy
from fastsnn_jax.models import MLP
from fastsnn_jax.neurons import lif
from fastsnn_jax.recipes.mnist.network import spike_totals
from fastsnn_jax.sharding import fitting_mesh, map_rows, replicate, shard_batch
from fastsnn_jax.spikes import SpikeTensor
from fastsnn_jax.train import init_state, make_train_step
from fastsnn_jax.train.chunk import Chunk
from fastsnn_jax.windows import sum_windows

CALLS = ("train", "train_given", "infer", "infer_given")
PEERS = ("notebook", "snntorch", "spikingjelly", "norse", "spyx", "snnax")
STEPS_PER_CALL = 90  # about half a second, as the training loop dispatches
NUM_BATCHES = 16  # cycled through, as the peers do


class Ours:
    """The four calls on this library, each a chunk of steps; ``walk`` runs a network over T."""

    def __init__(self, batch_size: int, num_steps: int, walk: Callable = sum_windows,
                 calls: tuple[str, ...] = CALLS):
        self.batch_size, self.num_steps, self.walk = batch_size, num_steps, walk
        self.steps_per_call = -(-STEPS_PER_CALL * 50 // num_steps)
        images, labels = common.digit_like(batch_size * NUM_BATCHES, 0)
        busiest = float(images.sum(1).max()) * common.SPIKE_PROBABILITY
        self.capacity = encoding.event_capacity(busiest, common.NUM_INPUTS)
        scale = 0.3 * 50 / num_steps  # logits are sums over T: as sharp a softmax as at T = 50
        self.model = MLP(neuron=lif(common.DECAY, common.THRESHOLD), logit_scale=scale, gain=2.5)
        images = images.reshape(NUM_BATCHES, batch_size, -1)
        labels = labels.reshape(NUM_BATCHES, batch_size).astype(np.int32)
        self.mesh = fitting_mesh(batch_size)
        self.images = shard_batch(self.mesh, (images, labels), axis=1)
        self.params = self.model.init(jax.random.key(0), jnp.zeros((1, 1, 784)))["params"]
        self.tx = optax.chain(
            optax.clip_by_global_norm(common.MAX_NORM),
            optax.add_decayed_weights(common.WEIGHT_DECAY), optax.adam(common.LEARNING_RATE),
        )
        self.programs = {name: self.program(name) for name in calls}

    @cached_property
    def given(self):
        """Event lists ``[NUM_BATCHES, B, T, K]`` and labels."""
        images, labels = self.images
        trains = [self.encode(jax.random.key(i), image, 0, self.num_steps, 0).data.swapaxes(0, 1)
                  for i, image in enumerate(images)]
        return shard_batch(self.mesh, jnp.stack(trains), axis=1), labels

    def encode(self, key, images, start, steps, first_row):
        return encoding.poisson_events(
            key, images * common.SPIKE_PROBABILITY, steps, self.capacity,
            start=start, first_sample=first_row,
        )

    def forward(self, given: bool, params, data, key):
        def forward(whole, rows, first_row):
            params, key = whole
            trains = rows.swapaxes(0, 1) if given else None  # time first, as a layer takes them

            def run(params, state, start, steps):
                if given:
                    events = jax.lax.dynamic_slice_in_dim(trains, start, steps)
                    spikes = SpikeTensor.from_event(events, common.NUM_INPUTS)
                else:
                    spikes = self.encode(key, rows, start, steps, first_row)
                return self.model.apply({"params": params}, state, spikes, method="run")

            rest = self.model.rest(len(rows), (common.NUM_INPUTS,))
            return self.walk(run, params, rest, self.num_steps)[1]

        return map_rows(self.mesh, forward, (params, key), data)

    def loss(self, given: bool, params, batch, key):
        """Loss and sums of one batch, as `make_train_step` takes them."""
        logits, activity = self.forward(given, params, batch[0], key)
        hits = (logits.argmax(-1) == batch[1]).sum(dtype=jnp.int32)
        spikes = spike_totals(self.model, activity, jnp.ones(self.batch_size, bool))
        sums = {"correct": hits, "samples": jnp.int32(self.batch_size), "spikes": spikes}
        return cross_entropy(logits, batch[1]).mean(), sums

    def program(self, name: str):
        """``() -> seconds`` a step of one chunk of the call ``name``; the first call compiles."""
        given = name.endswith("given")
        data = self.given if given else self.images
        loss_fn = partial(self.loss, given)

        def infer(state, batch):
            key = jax.random.fold_in(jax.random.key(0), state.step)
            loss, sums = loss_fn(state.params, batch, key)
            return state._replace(step=state.step + 1), (loss, sums)

        step = make_train_step(loss_fn, self.tx) if name.startswith("train") else infer
        chunk = Chunk(step, lambda data, i: jax.tree.map(lambda a: a[i], data), self.mesh)
        steps = self.steps_per_call
        order = replicate(self.mesh, jnp.arange(steps) % NUM_BATCHES)
        fresh = init_state(self.params, self.tx, jax.random.key(1))

        def call() -> float:
            # The chunk donates its state, so every call starts from its own copy.
            state = jax.block_until_ready(replicate(self.mesh, jax.tree.map(jnp.copy, fresh)))
            start = time.perf_counter()
            state, (losses, sums) = jax.device_get(chunk(state, data, order, 0, steps))
            seconds = time.perf_counter() - start
            spikes = {k: int(v[steps - 1]) for k, v in sums["spikes"].items()}
            if not np.isfinite(losses[:steps]).all() or min(
                spikes[k] for k in ("input", "hidden", "output")
            ) <= 0:
                raise SystemExit(f"{name}: not a network at work: {spikes}")
            return seconds / steps

        return call

    def measure(self, name: str, repeats: int) -> list[float]:
        return [self.programs[name]() for _ in range(repeats)]


class Peer:
    """A peer in its own process; see ``benchmarks/peers/worker.py``."""

    def __init__(self, python: str, name: str, batch_size: int, num_steps: int):
        worker = Path(__file__).parent / "peers" / "worker.py"
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(worker), name, "--batch-size", str(batch_size),
             "--num-steps", str(num_steps)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a peer stopped; run benchmarks/peers/worker.py by itself to see why")
        return json.loads(line)

    def measure(self, name: str, repeats: int) -> list[float]:
        self.process.stdin.write(json.dumps({"cmd": name, "repeats": repeats}) + "\n")
        self.process.stdin.flush()
        return self.read()["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="Python of the peers' environment")
    parser.add_argument("--names", nargs="*", default=PEERS, help="peers to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()

    use_cores(options.batch_size)
    ours = Ours(options.batch_size, options.num_steps)
    rivals = {"fastsnn_jax": ours}
    for name in options.names if options.peers else ():
        rivals[name] = Peer(options.peers, name, options.batch_size, options.num_steps)
    rates: dict[str, dict[str, list[float]]] = {n: {c: [] for c in CALLS} for n in rivals}
    for round_number in range(-1, options.rounds):
        for name, rival in rivals.items():
            for call in CALLS:
                repeats = 1 if rival is ours else 10
                seconds = float(np.median(rival.measure(call, repeats)))
                if round_number >= 0:  # the first round warms up
                    rates[name][call].append(options.batch_size / seconds)
        print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    table = {n: {c: _timing.summary(r) for c, r in calls.items()} for n, calls in rates.items()}
    print(f"{'samples/s':14}" + "".join(f"{call:>14}" for call in CALLS))
    for name, calls in table.items():
        print(f"{name:14}" + "".join(f"{calls[call]['median']:14.0f}" for call in CALLS))
    ratios = {}
    if len(rivals) > 1:
        print("times as fast as (median over rounds)")
        for call in CALLS:
            # Round by round, because the speed of a shared machine drifts between rounds.
            ours_by_round = np.array(rates["fastsnn_jax"][call])
            ratios[call] = {
                name: float(np.median(ours_by_round / np.array(rates[name][call])))
                for name in rates if name != "fastsnn_jax"
            }
            cells = "".join(f"  {name} {ratio:.2f}" for name, ratio in ratios[call].items())
            print(f"{call:14}{cells}")
    if not options.no_save:
        print(_timing.save("train_step", {
            "batch_size": options.batch_size, "num_steps": options.num_steps,
            "samples_per_s": table, "times_as_fast_as": ratios,
            "peers": {n: r.about for n, r in rivals.items() if n != "fastsnn_jax"},
        }))


if __name__ == "__main__":
    main()

"""Serves one peer over stdin and stdout, so that another process can time it turn by turn.

Run as ``PEERS_PYTHON benchmarks/peers/worker.py NAME``. First line out: ``{"ready": NAME, ...}``,
once every call has been compiled, warmed up and checked. Then one JSON line in, one out:

    {"cmd": "train", "repeats": 5}  ->  {"seconds": [...], "loss": ..., "input": ..., ...}

``cmd`` is ``train``, ``train_given``, ``infer``, ``infer_given`` or ``quit``; spikes are those of
the last batch. A command that fails answers ``{"error": ...}``.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

NAMES = ("notebook", "snntorch", "spikingjelly", "norse", "spyx", "snnax")
PACKAGES = ("torch", "jax", "numpy", "snntorch", "spikingjelly", "norse", "spyx", "snnax")
NUM_BATCHES = 16  # cycled through; too many to be learned by heart, which ends all gradients
WARM_UP = 4


def main() -> None:
    """Reads commands until ``quit`` or the end of the input."""
    options = parse()
    # Whatever the libraries print must not end up among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    calls, about = build(options)
    print(json.dumps({"ready": options.name, **about}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        if command["cmd"] == "quit":
            break
        if command["cmd"] not in calls:
            answer = {"error": f"worker: cmd must be one of {', '.join(calls)} or quit"}
        else:
            answer = measure(calls[command["cmd"]], command.get("repeats", 1))
        print(json.dumps(answer), file=answers)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data", type=Path, help=".npz with images float32 [N, 784] in [0, 1] and labels int [N];"
        " made up if not given",
    )
    return parser.parse_args()


def build(options: argparse.Namespace) -> tuple[dict[str, Callable], dict]:
    """Imports the peer; returns its calls, each ready to be timed, and what it runs on."""
    # As a package, so that a peer's file may have the name of the library that it imports.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    common = importlib.import_module("peers.common")
    peer = importlib.import_module(f"peers.{options.name}").make(
        options.batch_size, options.num_steps, options.seed
    )
    size = options.batch_size * NUM_BATCHES
    if options.data:
        with np.load(options.data) as data:
            images, labels = data["images"][:size], data["labels"][:size].astype(np.int64)
    else:
        images, labels = common.digit_like(size, options.seed)
    if len(images) < size:
        sys.exit(f"worker: {options.data} must hold at least {size} images, got {len(images)}")
    images, labels = np.split(images, NUM_BATCHES), np.split(labels, NUM_BATCHES)
    spikes = [
        peer.spikes(common.poisson(batch, options.num_steps, options.seed + number))
        for number, batch in enumerate(images)
    ]
    calls = {
        "train": cycle(peer.train_step, images, labels),
        "train_given": cycle(peer.train_step_given, spikes, labels),
        "infer": cycle(peer.infer, images),
        "infer_given": cycle(peer.infer_given, spikes),
    }
    for name, call in calls.items():
        for _ in range(WARM_UP):
            check(f"{options.name} {name}", call())
    about = {
        "batch_size": options.batch_size,
        "num_steps": options.num_steps,
        "versions": {"python": platform.python_version(), **versions()},
    }
    return calls, about


def cycle(call: Callable, *batches: list) -> Callable:
    """``call`` on the next batch at each call."""

    def endless() -> Iterator[tuple]:
        while True:
            yield from zip(*batches, strict=True)

    arguments = endless()
    return lambda: call(*next(arguments))


def measure(call: Callable, repeats: int) -> dict:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, **result._asdict()}


def check(where: str, result) -> None:
    """A peer that gives no number or does not fire would be timed for nothing."""
    if result.loss is not None and not math.isfinite(result.loss):
        sys.exit(f"worker: {where}: the loss must be finite, got {result.loss}")
    if min(result.input, result.hidden, result.output) <= 0:
        sys.exit(f"worker: {where}: every layer must fire, got {result}")


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()

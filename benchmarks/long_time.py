"""Training over long T: time of a step and temporary memory of its gradient, by way of walking T.

    python -m benchmarks.long_time

The network, batch and program of ``benchmarks/train_step.py``, encoding and devices included; the
rows take turns, and ratios are medians over rounds. The recipe runs 50 steps at once and more in
windows; "windows" are two for 50 steps, to which a longer run in windows is to be compared.
"""

import argparse
from functools import partial

import jax
import numpy as np

from benchmarks import _timing
from benchmarks.train_step import Ours
from fastsnn_jax.cli.cores import use_cores
from fastsnn_jax.unroll import unroll
from fastsnn_jax.windows import WINDOW, add_windows, sum_windows, unroll_windows

BATCH = 64


def at_once(run, params, state, num_steps):
    """All of T in one piece."""
    return run(params, state, 0, num_steps)


WAYS = {
    "recipe": sum_windows, "at once": at_once, "windows": partial(add_windows, unroll_windows),
    "store all": partial(add_windows, unroll),
    "store nothing": partial(add_windows, partial(unroll, remat=True)),
}
ROWS = [("recipe", 50), ("recipe", 400), ("recipe", 1600), ("windows", 50),
        ("at once", 400), ("store all", 400), ("store nothing", 400)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    use_cores(BATCH)
    programs = {(way, steps): Ours(BATCH, steps, WAYS[way], ("train",)) for way, steps in ROWS}
    calls = {row: ours.programs["train"] for row, ours in programs.items()}
    seconds = _timing.take_turns(calls, options.rounds)
    rows = []
    for (way, num_steps), ours in programs.items():
        taken = seconds[way, num_steps]
        rows.append({
            "way": way, "num_steps": num_steps, "train_step_ms": _timing.summary(1e3 * taken),
            **{f"times_{first}_50": float(np.median(taken / seconds[first, 50]))
               for first in ("recipe", "windows")},
            "gradient_temporary_bytes": _temporary_bytes(ours),
        })
        print(f"{way:14} T={num_steps:5d} {rows[-1]['train_step_ms']['median']:8.1f} ms  "
              f"{rows[-1]['times_recipe_50']:6.2f} times T=50 of the recipe  "
              f"{rows[-1]['times_windows_50']:6.2f} of windows  "
              f"{rows[-1]['gradient_temporary_bytes'] / 2**20:7.1f} MiB")
    print(_timing.save("long_time", {"batch_size": BATCH, "window": WINDOW, "rows": rows}))


def _temporary_bytes(ours: Ours) -> int:
    """Of all devices together."""
    gradient = jax.grad(partial(ours.loss, False), has_aux=True)
    batch = jax.tree.map(lambda leaf: leaf[0], ours.images)
    compiled = jax.jit(gradient).lower(ours.params, batch, jax.random.key(0)).compile()
    devices = 1 if ours.mesh is None else ours.mesh.size
    return devices * compiled.memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    main()

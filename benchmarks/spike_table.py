"""Loss against spikes of the language model, over k, rounding, kinds of neuron and of attention.

    python -m benchmarks.spike_table --out runs/spike_table [--steps N] [--seeds N]

Every row is a run of the preset "nanogpt-cpu" (tiny Shakespeare) in a directory of its own;
finished rows are read back, so an interrupted table goes on where it stopped.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks import _timing
from fastsnn_jax.recipes import lm

ROWS: dict[str, dict[str, Any]] = {
    "twin without spikes": {"spiking": False},
    "k=1.5": {"k": 1.5},
    "k=3": {"k": 3.0},
    "k=4": {"k": 4.0},
    "k=3, rounded down": {"k": 3.0, "rounding": "down"},
    "lif_sint, k=2": {"neuron": "lif_sint", "k": 2.0},
    "linear attention only": {"attn_kind": "linear"},
    "linear and sliding, summed": {"attn_kind": "parallel_sum"},
    "head too": {"spiking_lm_head": True},
}
FIGURES = (
    "val_loss", "spikes_per_channel", "sparsity", "saturated_fraction",
    "synaptic_events_per_token", "dense_macs_per_token",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="directory of the runs")
    parser.add_argument("--data-dir", help="where tiny_shakespeare lies (default: TFDS_DATA_DIR)")
    parser.add_argument("--steps", type=int, default=lm.preset("nanogpt-cpu").steps)
    parser.add_argument("--seeds", type=int, default=1, help="seeds per row, from 0")
    options = parser.parse_args()
    table = {"the preset": {}, **ROWS}
    results = {}
    for name, model in table.items():
        seeds = range(options.seeds)
        metrics = [_metrics(options, name, model, seed) for seed in seeds]
        results[name] = {
            figure: [row[figure] for row in metrics] for figure in FIGURES
        }
        loss = results[name]["val_loss"]
        spikes = metrics[0]["spikes_per_channel"]
        print(f"{name:28} loss {statistics.mean(loss):.4f}  "
              f"spikes per channel {'-' if spikes is None else f'{spikes:.3f}'}", flush=True)
    print(_timing.save("spike_table", {"steps": options.steps, "rows": results}))


def _metrics(options: Any, name: str, model: dict[str, Any], seed: int) -> dict[str, Any]:
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    out = Path(options.out) / f"{'-'.join(words)}-{seed}"
    config = lm.preset("nanogpt-cpu", model=model, seed=seed, steps=options.steps)
    begun = (out / "config.json").exists()
    return lm.run(config, out, data_dir=options.data_dir, resume=begun)["metrics"]


if __name__ == "__main__":
    main()

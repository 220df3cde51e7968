"""What every benchmark does the same way: repeat, summarise, describe the machine, save."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fastsnn_jax.record import environment

RESULTS = Path(__file__).parent / "results"


def milliseconds(call: Callable[[], Any], repeats: int = 20, warm_up: int = 3) -> dict[str, float]:
    """Wall time of ``call`` in ms, compiled and warm, every result awaited."""
    for _ in range(warm_up):
        jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return summary(1e3 * np.array(seconds))


def take_turns(programs: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, np.ndarray]:
    """Seconds ``[rounds]`` of every program; the first round warms up."""
    seconds: dict[Any, list[float]] = {key: [] for key in programs}
    for number in range(-1, rounds):
        for key, program in programs.items():
            took = program()
            if number >= 0:
                seconds[key].append(took)
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return {key: np.array(values) for key, values in seconds.items()}


def summary(values: Any) -> dict[str, float]:
    """Median, extremes and number of repeated measurements."""
    values = np.asarray(values, float)
    return {
        "median": float(np.median(values)), "min": float(values.min()),
        "max": float(values.max()), "repeats": int(values.size),
    }


def machine() -> dict[str, Any]:
    """Versions, device, processor and git hash."""
    return {**environment(), "cores": os.cpu_count(), "processor": _processor()}


def save(name: str, results: dict[str, Any]) -> Path:
    """Writes ``benchmarks/results/NAME-PLATFORM.json`` and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{jax.default_backend()}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    return path


def _processor() -> str:
    if platform.system() == "Linux":
        run = subprocess.run(["lscpu"], capture_output=True, text=True, check=False)
        for line in run.stdout.splitlines():
            if line.startswith("Model name:"):
                return line.split(":", 1)[1].strip()
    return platform.processor()

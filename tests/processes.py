"""Processes that tests start: runs as a user starts them, and programs on eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# Tests run programs of a few numbers once, so that most of their time is compilation, which takes
# 0.6 of it without the dear optimisations, and half of the rest with the plainer of XLA's emitters.
PLAIN_EMITTER = "--xla_cpu_use_fusion_emitters=false"
CHEAPLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": PLAIN_EMITTER}
# A run of many steps runs its programs often: with a few optimisations it takes half as long.
_FOR_LONG_RUNS = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"


def environment(**more: str) -> dict[str, str]:
    """Environment of a process of this checkout, which compiles as this one: to the same bits."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY)} | more


def environment_of_long_runs(**more: str) -> dict[str, str]:
    """Environment of runs of many steps, which are compared with each other only."""
    variables = environment(**more)
    if all(variables.get(name) == value for name, value in CHEAPLY.items()):
        variables.pop("JAX_DISABLE_MOST_OPTIMIZATIONS")
        variables["XLA_FLAGS"] = f"{PLAIN_EMITTER} {_FOR_LONG_RUNS}"
    return variables


def on_eight_devices(program: str) -> Any:
    """What a program that sees eight devices, and the modules of the tests, prints as JSON."""
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", program], text=True, capture_output=True, timeout=600,
        env=environment(
            XLA_FLAGS=f"{flags} --xla_force_host_platform_device_count=8",
            PYTHONPATH=os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        ),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

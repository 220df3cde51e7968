"""How many devices a command makes of a machine's cores."""

import json
import os
import subprocess
import sys

import jax
import pytest
from processes import environment

from fastsnn_jax.cli.cores import share, use_cores

FIRST = """
import jax
from fastsnn_jax.cli.cores import use_cores
use_cores(64)
print(jax.local_device_count())
"""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize("batch_size", [*range(1, 70), 96, 128, 160, 192, 1024])
def test_devices_share_a_batch_evenly_with_thirty_two_samples_each(batch_size):
    for cores in (1, 2, 3, 4, 7, 8, 64):
        count = share(batch_size, cores)
        assert 1 <= count <= cores and 64 % count == batch_size % count == 0
        assert count == 1 or batch_size // count >= 32
        twice = 2 * count
        assert twice > cores or batch_size % twice or batch_size // twice < 32


def test_where_jax_has_its_devices_they_stay():
    before = jax.local_devices()
    use_cores(1024)
    assert jax.local_devices() == before


@pytest.mark.slow
@pytest.mark.parametrize(("told", "devices"), [
    ({}, share(64, CORES)),
    ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
    ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
], ids=str)
def test_a_process_has_a_device_for_each_core_unless_it_is_told_how_many(told, devices):
    assert output_of("-c", FIRST, **told) == f"{devices}\n"


@pytest.mark.slow
def test_the_mnist_command_puts_the_cores_to_work(tmp_path):
    run = ("--dataset", "digits", "--smoke", "--num-steps", "6", "--out", str(tmp_path / "run"))
    output_of("-m", "experiments.mnist_lif", *run)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["batch_size"] == 64
    assert record["device"]["count"] == record["metrics"]["devices"] == share(64, CORES)


def output_of(*arguments, **told):
    """What Python printed in an environment that says no more of devices than ``told``."""
    own = environment(XLA_FLAGS="", JAX_NUM_CPU_DEVICES="") | told
    own = {name: value for name, value in own.items() if value}
    done = subprocess.run([sys.executable, *arguments], env=own, text=True, capture_output=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""How many of a machine's cores a command puts to work."""

import contextlib
import os

import jax

_SAMPLES_PER_DEVICE = 32  # less was not measured; every device repeats the optimiser's work


def use_cores(batch_size: int) -> None:
    """Makes the CPU `share` devices, which run the loops over time that XLA runs on one core each.

    Every device keeps the data set. Where JAX has its devices already, or ``JAX_NUM_CPU_DEVICES``
    or ``XLA_FLAGS`` say how many, it stays at that. Cores are those the process may run on; a
    container's quota of their time is not seen.
    """
    told = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if told or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    able = hasattr(os, "sched_getaffinity")  # the cores this process may use; not on macOS
    cores = len(os.sched_getaffinity(0)) if able else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has its devices
        jax.config.update("jax_num_cpu_devices", share(batch_size, cores))


def share(batch_size: int, cores: int) -> int:
    """How many devices: a power of 2, with 32 or more samples of the batch for each.

    So they divide the evaluation's batches of 256 too.

    >>> share(64, cores=2), share(64, cores=16), share(63, cores=2)
    (2, 2, 1)
    """
    count = 1
    while 2 * count <= cores and batch_size % (2 * count) == 0:
        if batch_size // (2 * count) < _SAMPLES_PER_DEVICE:
            break
        count *= 2
    return count

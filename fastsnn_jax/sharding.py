"""One mesh axis, ``data``: the batch is split over the devices, everything else is copied."""

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fastsnn_jax._checks import check, check_count
from fastsnn_jax._typing import Array, PyTree

_SAMPLES_PER_CORE = 32  # fewer were not measured; every device repeats the optimiser's work


def use_cores(batch_size: int) -> int:
    """Makes a CPU as many devices as its cores can share a batch evenly, 32 samples each or more.

    XLA runs a loop over time on one core; as devices, all of them are at work. Nothing changes
    where JAX has its devices already, or ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS`` say how many.

    Returns:
      How many devices this process has. Where that is another backend's, such as a GPU's, the
      number of CPU devices is set and does not matter.

    Raises:
      ValueError, TypeError: if ``batch_size`` is below 1 or no int.
    """
    check_count("use_cores", "batch_size", batch_size)
    told = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if jax.config.values["jax_num_cpu_devices"] < 1 and not told:
        able = hasattr(os, "sched_getaffinity")  # the cores this process may use; not on macOS
        cores = len(os.sched_getaffinity(0)) if able else os.cpu_count() or 1
        most = min(cores, batch_size // _SAMPLES_PER_CORE)
        count = max((n for n in range(1, most + 1) if batch_size % n == 0), default=1)
        with contextlib.suppress(RuntimeError):  # JAX has its devices
            jax.config.update("jax_num_cpu_devices", count)
    return jax.local_device_count()


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh with the single axis ``data`` over ``devices`` (default: all of this process).

    The axis is Auto on every jax version (newer ones default to Explicit): the compiler places
    the collectives, and for a batch-sharded step that is one all-reduce of the gradient.

    >>> data_mesh(jax.devices()[:1]).shape["data"]
    1
    """
    devices = jax.local_devices() if devices is None else list(devices)
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def fitting_mesh(batch_size: int) -> Mesh | None:
    """Mesh over as many devices as divide ``batch_size``; None when that is one."""
    count = math.gcd(batch_size, jax.local_device_count())
    return None if count == 1 else data_mesh(jax.local_devices()[:count])


def shard_batch(mesh: Mesh | None, batch: Any, axis: int = 0) -> Any:
    """Places every leaf with ``axis`` split over the mesh; None leaves it on one device.

    Raises:
      ValueError: if the axis cannot be split evenly.
    """
    if mesh is None:
        return jax.device_put(batch)
    size = mesh.shape["data"]
    for leaf in jax.tree.leaves(batch):
        check(leaf.ndim > axis and leaf.shape[axis] % size == 0, "shard_batch",
              f"axis {axis} must be a multiple of the {size} devices", leaf.shape,
              "choose another batch size or mesh")
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(*[None] * axis, "data")))


def replicate(mesh: Mesh | None, tree: Any) -> Any:
    """Places a whole copy of every leaf on each device of the mesh; None means one device."""
    if mesh is None:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def map_rows(
    mesh: Mesh | None, function: Callable[[PyTree, PyTree, int | Array], PyTree],
    whole: PyTree, rows: PyTree,
) -> PyTree:
    """``function(whole, rows, first)``, each device of the mesh at work on rows of its own.

    Nothing travels on the way there; on the way back the gradients of ``whole`` are added up, once.
    Plain twin: ``function(whole, rows, 0)``, which a mesh of None means.

    Args:
      mesh: from `data_mesh` or `fitting_mesh`, or None.
      function: what it gives for a row depends on ``whole``, the row and its number alone. Of
        ``rows`` it is given some that follow each other, and the number of the ``first``. All
        outputs have a leading axis of rows.
      whole: what every row needs, such as parameters and keys.
      rows: pytree of arrays with a leading axis of rows, a multiple of the devices.

    >>> import jax.numpy as jnp
    >>> mesh = data_mesh(jax.devices()[:1])
    >>> map_rows(mesh, lambda scale, x, first: scale * x, 2.0, jnp.arange(3.0))
    Array([0., 2., 4.], dtype=float32)
    """
    if mesh is None:
        return function(whole, rows, 0)

    def own(whole, rows):
        count = jax.tree.leaves(rows)[0].shape[0]
        return function(whole, rows, lax.axis_index("data") * count)

    split = PartitionSpec("data")
    return jax.shard_map(
        own, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False
    )(whole, rows)

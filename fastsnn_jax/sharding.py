"""One mesh axis, ``data``: the batch is split over the devices, everything else is copied."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fastsnn_jax._checks import check


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

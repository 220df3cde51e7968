"""One mesh axis, ``data``: the batch is split over the devices, everything else is copied."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Array, PyTree


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
    """Mesh over the most devices that divide batch and number of devices; None when that is one.

    Not 5 or 6 of 8: such devices of a TPU need not form the block that a mesh asks for.
    """
    count = math.gcd(batch_size, jax.local_device_count())
    return None if count == 1 else data_mesh(jax.local_devices()[:count])


def shard_batch(mesh: Mesh | None, batch: Any, axis: int = 0) -> Any:
    """Places every leaf with ``axis`` split over the mesh; None leaves it on one device.

    Raises:
      ValueError: if the axis cannot be split evenly.
    """
    if mesh is None:
        return jax.device_put(batch)
    _check_split("shard_batch", mesh, batch, axis)
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
    """``function(whole, rows, first_row)``, each device of the mesh at work on rows of its own.

    Nothing travels where `shard_batch` put the rows and `replicate` what is whole; in the backward
    pass the gradients of ``whole`` are added up, once. Plain twin: ``function(whole, rows, 0)``,
    which a mesh of None means.

    Args:
      mesh: from `data_mesh` or `fitting_mesh`, or None.
      function: what it gives for a row depends on ``whole``, the row and its number alone. It is
        given rows that follow each other, and the number of the first of them.
      whole: what every row needs, such as parameters and keys.
      rows: pytree of arrays that share their leading axis, that of rows.

    Returns:
      What ``function`` gives for all rows: a pytree of arrays with a leading axis of rows.

    Raises:
      ValueError: if the rows cannot be split evenly.

    >>> import jax.numpy as jnp
    >>> mesh = data_mesh(jax.devices()[:1])
    >>> map_rows(mesh, lambda scale, x, first_row: scale * x, 2.0, jnp.arange(3.0))
    Array([0., 2., 4.], dtype=float32)
    """
    if mesh is None:
        return function(whole, rows, 0)
    _check_split("map_rows", mesh, rows, 0)

    def own(whole, rows):
        count = jax.tree.leaves(rows)[0].shape[0]
        return function(whole, rows, lax.axis_index("data") * count)

    # Unchecked, for loops of kernels start from zeros, which do not vary over devices as their
    # results do. The gradients of whatever is whole are added up all the same.
    split = PartitionSpec("data")
    return jax.shard_map(
        own, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False
    )(whole, rows)


def _check_split(where: str, mesh: Mesh, batch: Any, axis: int) -> None:
    size = mesh.shape["data"]
    for leaf in jax.tree.leaves(batch):
        check(leaf.ndim > axis and leaf.shape[axis] % size == 0, where,
              f"axis {axis} must be a multiple of the {size} devices", leaf.shape,
              "choose another batch size or mesh")

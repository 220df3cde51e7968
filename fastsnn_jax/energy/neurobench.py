"""NeuroBench's view of a network: its metrics by its names and definitions, without torch."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from operator import mul
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_choice, fail
from fastsnn_jax._typing import Array, ArrayLike
from fastsnn_jax.activity import fan_out
from fastsnn_jax.energy.recurrent_cells import Cell, CellOperations, cell_operations

QUIRKS = "2.3.0"


class Connection(NamedTuple):
    """A layer of weights that NeuroBench counts: dense or a convolution, without its bias.

    Attributes:
      apply: ``(weights, x [*N]) -> y [*M]`` of one sample, linear in each.
      weights: the kernel.
    """

    apply: Callable[[Array, Array], Array]
    weights: ArrayLike


@dataclasses.dataclass(frozen=True)
class SynapticOperations:
    """Operations of all samples together, Python integers; those of several batches add up.

    Attributes:
      macs, acs: NeuroBench's effective ones. All operations of a call (one layer, one time step,
        the whole batch) are acs where every input of the call is -1, 0 or 1, else all are macs.
      dense: with no weight and no input zero; what pads an input is no operation.
      strict_macs, strict_acs: the effective ones, those of an input -1 or 1 acs, whatever else is
        in its batch; a product of two activations is a mac.
    """

    macs: int
    acs: int
    dense: int
    strict_macs: int
    strict_acs: int

    def __add__(self, other: "SynapticOperations") -> "SynapticOperations":
        if not isinstance(other, SynapticOperations):
            return NotImplemented
        return SynapticOperations(*(
            a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)
        ))


def neurobench(
    connections: Mapping[str, Connection | Cell], signals: Mapping[str, Any], *,
    variables: Any = None, activations: Mapping[str, ArrayLike] | None = None,
    membranes: Mapping[str, ArrayLike] | None = None, quirks: str | None = None,
) -> dict[str, Any]:
    """NeuroBench's metrics of one batch, by NeuroBench's names.

        Effective = <1[x], VJP of the 0/1 layer at ones>;  Dense = the same with 1 for all weights
        and inputs;  both summed over calls in integers and divided by the samples at last

    ============================  ==================================================================
    Footprint                     bytes of ``variables``
    ConnectionSparsity            share of weights that are 0, of all ``connections``
    ActivationSparsity            share of zeros in all ``activations``
    SynapticOperations            Effective_MACs, Effective_ACs, Dense per sample; by call, so that
                                  one analog sample makes macs of a batch's acs
    MembraneUpdates               per sample, membranes that changed; in the first step all did
    StrictSynapticOperations      not NeuroBench's: the same operations, split by element, which
                                  does not depend on what is in a batch
    ============================  ==================================================================

    Args:
      connections: of the network, by any names; a layer that is used twice stands here once.
      signals: what each of them read, ``[T, B, *N]``, one entry of T for each call. Of a `Cell` a
        tuple of the inputs and, where it was given one, the state: ``(x,)``, ``(x, h)`` or, of an
        lstm, ``(x, (h, c))``.
      variables: tree of all parameters and buffers.
      activations: outputs ``[T, B, *M]`` of the activation functions and neurons.
      membranes: membranes ``[T, B, *M]`` of the neurons after each step.
      quirks: "2.3.0" also does what that release is known to do otherwise than it says: it rounds
        ConnectionSparsity to 4 decimals, counts only the first row of an rnn cell's call without
        state, and keeps the zeros of an lstm's state in Dense. Its float32 sums, which go wrong
        from 2^24 operations a call on, are not imitated.

    Returns:
      Floats, and None for a metric whose argument was left out.

    Raises:
      ValueError: names of connections and signals that differ, no connections, signals that are
        not finite or do not fit their connection, batches of different size, unknown quirks.

    Source: NeuroBench 2.3.0, neurobench/metrics, whose counts the tests repeat.

    >>> dense = Connection(lambda weights, x: x @ weights, jnp.array([[1.0, 2.0], [0.0, 3.0]]))
    >>> neurobench({"dense": dense}, {"dense": jnp.array([[[1.0, 1.0]], [[0.5, 0.0]]])})[
    ...     "SynapticOperations"]
    {'Effective_MACs': 2.0, 'Effective_ACs': 3.0, 'Dense': 8.0}
    """
    operations = synaptic_operations(connections, signals, quirks=quirks)
    trees = [signals, activations or {}, membranes or {}]
    batches = {np.shape(leaf)[1] for leaf in jax.tree.leaves(trees)}
    check(len(batches) == 1, "neurobench", "all signals must be of one batch", sorted(batches))
    (samples,) = batches
    return {
        "Footprint": None if variables is None else sum(
            leaf.size * leaf.dtype.itemsize for leaf in map(jnp.asarray, jax.tree.leaves(variables))
        ),
        "ConnectionSparsity": connection_sparsity(connections, quirks=quirks),
        "ActivationSparsity": None if activations is None else _share_of_zeros(activations),
        "SynapticOperations": {
            "Effective_MACs": operations.macs / samples,
            "Effective_ACs": operations.acs / samples,
            "Dense": operations.dense / samples,
        },
        "MembraneUpdates": None if membranes is None else sum(
            map(_changes, membranes.values())
        ) / samples,
        "StrictSynapticOperations": {
            "Effective_MACs": operations.strict_macs / samples,
            "Effective_ACs": operations.strict_acs / samples,
        },
    }


def synaptic_operations(
    connections: Mapping[str, Connection | Cell], signals: Mapping[str, Any], *,
    quirks: str | None = None,
) -> SynapticOperations:
    """The sums that `neurobench` divides by the samples; arguments and errors as there."""
    _check_arguments(connections, signals, quirks)
    total = SynapticOperations(0, 0, 0, 0, 0)
    for name, connection in connections.items():
        where, signal = f"neurobench: {name}", signals[name]
        if isinstance(connection, Cell):
            check(isinstance(signal, tuple), where, "signals of a cell must be a tuple (x, ...)",
                  type(signal).__name__)
            x, *states = (_finite(where, leaf) for leaf in jax.tree.leaves(signal))
            counted = cell_operations(connection, x, tuple(states), quirks is not None)
            strictly = cell_operations(connection, x, tuple(states), False)
            total += _cell_sums(x, counted, strictly)
        else:
            total += _connection_operations(where, connection, _finite(where, signal))
    return total


def connection_sparsity(
    connections: Mapping[str, Connection | Cell], *, quirks: str | None = None
) -> float:
    """Share of weights that are 0, a cell's biases among them; arguments as in `neurobench`."""
    leaves = [np.asarray(leaf) for layer in connections.values()
              for leaf in jax.tree.leaves(layer.weights)]
    zeros = sum(leaf.size - np.count_nonzero(leaf) for leaf in leaves)
    weights = sum(leaf.size for leaf in leaves)
    if quirks is None:
        return zeros / weights
    return round(float(np.float32(zeros) / np.float32(weights)), 4)


def _check_arguments(connections: Mapping, signals: Mapping, quirks: str | None) -> None:
    if quirks is not None:
        check_choice("neurobench", "quirks", quirks, (QUIRKS,))
    check(len(connections) > 0, "neurobench", "there must be connections", "none")
    check(set(connections) == set(signals), "neurobench",
          f"there must be signals of {sorted(connections)}", sorted(signals))


def _connection_operations(
    where: str, connection: Connection, x: np.ndarray
) -> SynapticOperations:
    weights, shape = np.asarray(connection.weights), x.shape[2:]
    masks = [mask.astype(np.float32) for mask in (weights != 0, np.ones_like(weights))]
    try:
        fans, full = (
            np.asarray(_fan_outs(connection.apply, mask, shape), np.int64) for mask in masks
        )
    except (TypeError, ValueError) as error:
        raise fail(where, "signals must be [T, B, *N] with an N that it takes", shape) from error
    spikes, others = np.abs(x) == 1, (x != 0) & (np.abs(x) != 1)
    calls = ~others.any(axis=tuple(range(1, x.ndim)))
    per_call = (spikes | others).sum(1)
    return SynapticOperations(
        macs=_dot(per_call[~calls], fans), acs=_dot(per_call[calls], fans),
        dense=x.shape[0] * x.shape[1] * sum(full.ravel().tolist()),
        strict_macs=_dot(others.sum(1), fans), strict_acs=_dot(spikes.sum(1), fans),
    )


@partial(jax.jit, static_argnums=(0, 2))
def _fan_outs(apply: Callable[[Array, Array], Array], mask: Array, shape: tuple[int, ...]) -> Array:
    return fan_out(lambda x: apply(mask, x), shape)


def _cell_sums(
    x: np.ndarray, counted: CellOperations, strictly: CellOperations
) -> SynapticOperations:
    calls = np.isin(x, (-1, 0, 1)).all(axis=(1, 2))
    acs, strict_acs = int(counted.effective[calls].sum()), int(strictly.spike_driven.sum())
    return SynapticOperations(
        macs=int(counted.effective.sum()) - acs, acs=acs, dense=int(counted.dense.sum()),
        strict_macs=int(strictly.effective.sum()) - strict_acs, strict_acs=strict_acs,
    )


def _dot(signals: np.ndarray, fans: np.ndarray) -> int:
    """``<signals summed over the first axis, fans>``, in Python's integers."""
    return sum(map(mul, signals.sum(0).ravel().tolist(), fans.ravel().tolist()))


def _finite(where: str, signal: Any) -> np.ndarray:
    array = np.asarray(signal)
    check(array.ndim >= 3, where, "signals must be [T, B, *N]", array.shape)
    numbers = jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
    check(bool(numbers) and bool(np.isfinite(array).all()), where,
          "signals must be finite numbers", array.dtype)
    return array


def _share_of_zeros(activations: Mapping[str, ArrayLike]) -> float:
    outputs = [np.asarray(output) for output in activations.values()]
    size = sum(output.size for output in outputs)
    zeros = size - sum(int(np.count_nonzero(output)) for output in outputs)
    return zeros / size if size else 0.0


def _changes(membrane: ArrayLike) -> int:
    v = np.asarray(membrane)
    return v[0].size + int(np.count_nonzero(v[1:] != v[:-1]))

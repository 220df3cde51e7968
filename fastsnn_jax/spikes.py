"""SpikeTensor: one spiking signal seen as counts, as a dense train or as events."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax import codings
from fastsnn_jax._checks import check, check_choice, check_count, fail
from fastsnn_jax._typing import Array, ArrayLike, Float, Int, Shaped
from fastsnn_jax.kernels.event_synapse import event_matmul

OVERFLOWS = ("saturate", "error")
INT8_BOUNDS = (-128, 127)
PARTIAL_SUM = 256  # rows added one by one; float32 sums of 784 drift by 1.4e-6 of sum |s| |W|


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "threshold", "saturated"],
    meta_fields=["form", "coding", "num_channels"],
)
@dataclass(frozen=True, eq=False)
class SpikeTensor:
    """A spiking signal of ``N`` channels standing for the values ``threshold * count``.

        count[*lead, N] = sum_t plane_weights[t] * spikes[t, *lead, N]        (see ``codings``)

    form     data
    count    [*lead, N], integer-valued; float while training, so that gradients flow
    dense    [T, *lead, N], spikes in {0, 1} or {-1, 0, 1}
    event    int32[T, *lead, K], the channels that spike, ascending, padded with N; where the
             coding is signed, n - N says that channel n spikes with the value -1

    Every form gives the same ``matmul`` without being turned into another: bit-equal for integer
    weights (int32 sums) and for dyadic ones (sums below 2^24), else within 1e-6 * sum |s| |W|
    (the float32 dot of counts alone reaches 3e-6 where one count is 10^4 times the others).

    threshold   [*lead, 1], value of one count; the integer 1 (default) keeps integer sums integers
    saturated   int32[*lead], entries that did not fit so far: counts clipped, events dropped
    form, coding, num_channels   static; num_channels is N in the event form, None in the others

    Build one with ``from_count``, ``from_dense`` or ``from_event``, which check shapes and dtypes
    always and values outside jit. A pytree for arguments and results of jit, vmap, grad and
    shard_map, but never a scan carry: a conversion changes its structure.

    >>> spikes = SpikeTensor.from_count(jnp.array([[3.0, 0.0, -2.0]]), coding="ternary")
    >>> train = spikes.to_dense(4)
    >>> train.data[:, 0].tolist()
    [[1.0, 0.0, -1.0], [1.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    >>> train.to_event(2).data[:, 0].tolist()
    [[-1, 0], [-1, 0], [0, 3], [3, 3]]
    >>> weight = jnp.array([[1.0], [10.0], [100.0]])
    >>> [form.matmul(weight).item() for form in (spikes, train, train.to_event(2))]
    [-197.0, -197.0, -197.0]
    """

    data: Array
    threshold: Array
    saturated: Int[Array, "*lead"]
    form: str
    coding: str
    num_channels: int | None = None

    @classmethod
    def from_count(
        cls, counts: ArrayLike, *, coding: str = "binary", threshold: ArrayLike = 1,
        saturated: ArrayLike = 0,
    ) -> "SpikeTensor":
        """Counts [*lead, N], integers in a float or integer dtype; >= 0 if the coding is binary.

        Raises TypeError for another dtype, ValueError for NaN, fractions or wrong shapes.
        """
        where = "SpikeTensor.from_count"
        counts, values = _numeric(where, "counts", counts, ndim=1)
        check_choice(where, "coding", coding, codings.CODINGS)
        if values is not None:
            limit = 2**codings.MAX_PLANES
            whole = (values == np.round(values)) & (np.abs(values) <= limit)
            _check_values(where, "counts", values, f"integers within +-{limit}", whole)
            if coding == "binary":
                remedy = "use coding='ternary' or 'bitwise' for signed counts"
                _check_values(where, "binary counts", values, ">= 0", values >= 0, remedy)
        return cls._build(where, counts, counts.shape[:-1], threshold, saturated, "count", coding)

    @classmethod
    def from_dense(
        cls, train: ArrayLike, *, coding: str = "binary", threshold: ArrayLike = 1,
        saturated: ArrayLike = 0,
    ) -> "SpikeTensor":
        """Planes [T, *lead, N] of spikes: 0 and 1, in signed codings also -1.

        Raises TypeError for a dtype neither float nor integer, ValueError for any other value.
        """
        where = "SpikeTensor.from_dense"
        train, values = _numeric(where, "train", train, ndim=2)
        codings.check_steps(where, coding, train.shape[0])
        if values is not None:
            alphabet = (-1, 0, 1) if coding in codings.SIGNED else (0, 1)
            _check_values(where, f"{coding} spikes", values, f"in {alphabet}",
                          np.isin(values, alphabet))
        return cls._build(where, train, train.shape[1:-1], threshold, saturated, "dense", coding)

    @classmethod
    def from_event(
        cls, index: Int[Array, "T *lead K"], num_channels: int, *, coding: str = "binary",
        threshold: ArrayLike = 1, saturated: ArrayLike = 0,
    ) -> "SpikeTensor":
        """Channels that spike, ascending, padded with ``num_channels`` (negative spikes: n - N).

        Raises TypeError unless ``index`` is an integer array, ValueError when out of range.
        """
        where = "SpikeTensor.from_event"
        index, values = _numeric(where, "index", index, ndim=2)
        if not _is_integer(index):
            raise TypeError(f"{where}: index must be int32, got dtype {index.dtype}")
        codings.check_steps(where, coding, index.shape[0])
        check_count(where, "num_channels", num_channels)
        if values is not None:
            low = -num_channels if coding in codings.SIGNED else 0
            inside = (values >= low) & (values <= num_channels)
            _check_values(where, "index", values, f"in {low} .. {num_channels}", inside)
            rising = (np.diff(values) > 0) | (values[..., 1:] == num_channels)
            _check_values(where, "index", values[..., 1:], "ascending, padding last", rising)
        lead = index.shape[1:-1]
        return cls._build(where, index.astype(jnp.int32), lead, threshold, saturated, "event",
                          coding, num_channels)

    @classmethod
    def _build(cls, where, data, lead, threshold, saturated, *static) -> "SpikeTensor":
        threshold, values = _numeric(where, "threshold", threshold, ndim=0)
        if values is not None:
            good = (values > 0) & np.isfinite(values)
            _check_values(where, "threshold", values, "finite and > 0", good)
        remedy = "fold a value per channel into the weight"
        threshold = _broadcast(where, "threshold", threshold, (*lead, 1), remedy)
        saturated = jnp.asarray(saturated, jnp.int32)
        return cls(data, threshold, _broadcast(where, "saturated", saturated, lead), *static)

    @property
    def num_steps(self) -> int | None:
        """T of a train or of events; None for counts, which have no time."""
        return None if self.form == "count" else self.data.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """[*lead, N], the shape of the counts, whatever the form."""
        if self.form == "count":
            return self.data.shape
        return (*self.data.shape[1:-1], self.num_channels or self.data.shape[-1])

    def to_count(self) -> "SpikeTensor":
        """The same signal as counts [*lead, N]; gradients flow back to a float train."""
        if self.form == "count":
            return self
        counts = codings.decode(self.to_dense().data, self.coding)
        return replace(self, data=counts, form="count", num_channels=None)

    def to_dense(
        self, num_steps: int | None = None, *, overflow: str = "saturate",
    ) -> "SpikeTensor":
        """The same signal as a train [T, *lead, N]; counts need ``num_steps``.

        Counts beyond ``codings.bounds``, NaN and fractions are clipped or rounded and counted in
        ``saturated``; ``overflow="error"`` raises ValueError instead, which needs concrete
        values and so is refused under jit. No gradient flows to counts: train on counts.
        A train keeps the dtype of its counts; events give float32.
        """
        where = "SpikeTensor.to_dense"
        if self.form != "count":
            check(num_steps in (None, self.num_steps), where, f"num_steps must be {self.num_steps}"
                  f" or left out for a {self.form} view", num_steps, "call to_count() first")
            if self.form == "dense":
                return self
            train = codings.events_to_train(self.data, self.shape[-1])
            return replace(self, data=train, form="dense", num_channels=None)
        check_count(where, "num_steps", num_steps)
        assert num_steps is not None  # for the type checker; check_count raised
        low, high = codings.bounds(self.coding, num_steps)
        counts, saturated = self._narrow(where, low, high, overflow)
        train = codings.encode(counts, self.coding, num_steps).astype(self.data.dtype)
        return replace(self, data=train, saturated=saturated, form="dense")

    def to_event(self, capacity: int, *, overflow: str = "saturate") -> "SpikeTensor":
        """The same signal as the first ``capacity`` spiking channels of each step.

        Spikes beyond are dropped and counted in ``saturated``; ``overflow="error"`` raises
        ValueError instead (not under jit). Counts have no steps: call ``to_dense`` first.
        """
        where = "SpikeTensor.to_event"
        check(self.form != "count", where, "a train or events are needed", "counts",
              "call to_dense(num_steps) first")
        check_count(where, "capacity", capacity)
        if self.form == "event" and self.data.shape[-1] == capacity:
            return self
        train = self.to_dense().data
        signed = self.coding in codings.SIGNED
        index, dropped = codings.train_to_events(train, capacity, signed)
        saturated = self._count_lost(where, jnp.sum(dropped, axis=0), overflow)
        return replace(self, data=index, saturated=saturated, form="event",
                       num_channels=self.shape[-1])

    def to_int8(self, *, overflow: str = "saturate") -> "SpikeTensor":
        """The same view with int8 data, for inference: no gradient; counts clip to -128 .. 127.

        What is clipped is counted in ``saturated`` or, with ``overflow="error"``, refused.
        Events stay what they are, int32 indices.
        """
        if self.form == "event":
            return self
        if self.form == "dense":
            return replace(self, data=self.data.astype(jnp.int8))
        counts, saturated = self._narrow("SpikeTensor.to_int8", *INT8_BOUNDS, overflow)
        return replace(self, data=counts.astype(jnp.int8), saturated=saturated)

    def value(self) -> Float[Array, "*lead N"]:
        """What the signal stands for, ``threshold * count``, in float32 or wider."""
        counts = self.to_count().data
        return _at_least_float32(counts) * self.threshold

    def num_events(self) -> Int[Array, "*lead"]:
        """Spikes over all steps and channels of each leading index, exact below 2^31.

        Counts are priced by their coding: |s| spikes in unary ones, the ones of |s| in bitwise.
        Raises ValueError for two's-complement counts: the ones of -1 depend on the steps.
        """
        if self.form == "event":
            return jnp.sum(self.data < self.shape[-1], axis=(0, -1), dtype=jnp.int32)
        if self.form == "dense":
            return jnp.sum(self.data != 0, axis=(0, -1), dtype=jnp.int32)
        check(self.coding != "twos_complement", "SpikeTensor.num_events",
              "planes are needed for two's complement", "counts", "call to_dense(num_steps) first")
        spikes = jnp.abs(self.data.astype(jnp.int32))
        if self.coding == "bitwise":
            spikes = jax.lax.population_count(spikes)
        return jnp.sum(spikes, axis=-1, dtype=jnp.int32)

    def matmul(self, weight: Shaped[Array, "N M"]) -> Shaped[Array, "*lead M"]:
        """``threshold * (counts @ weight)``, computed in the form this view has.

        Integer weights (int8) sum in int32, float weights in float32 or wider. A train or events
        are multiplied plane by plane, then the products are weighted and summed.
        """
        weight = self._check_weight("SpikeTensor.matmul", weight)
        if self.form == "count":
            return _dot(self.data, weight) * self.threshold
        if self.coding == "twos_complement":
            products = self._digit_products(weight)
        else:
            products = self._products(weight)
        return jnp.sum(products, axis=0) * self.threshold

    def synapse(self, weight: Shaped[Array, "N M"]) -> Shaped[Array, "T *lead M"]:
        """The current of each time step; of a binary train, ``threshold * (train @ weight)``.

            current[t] = threshold * plane_weights[t] * (spikes[t] @ weight)

        Over all steps it sums to ``matmul``, and over the first bit planes to a first guess at it.
        Raises ValueError for counts, which have no steps.
        """
        weight = self._check_weight("SpikeTensor.synapse", weight)
        check(self.form != "count", "SpikeTensor.synapse", "a train or events are needed",
              "counts", "use matmul, or call to_dense(num_steps) first")
        return self._products(weight) * self.threshold

    def _products(self, weight: Array) -> Array:
        if self.form == "dense":
            products = _dot(self.data, weight)
        else:
            products = _event_dot(self.data, weight, signed=self.coding in codings.SIGNED)
        if self.coding not in codings.POSITIONAL:
            return products
        return codings.weigh(products, codings.plane_weights(self.coding, self.data.shape[0]))

    def _digit_products(self, weight: Array) -> Array:
        if self.form == "dense":
            products = _dot(codings.signed_digits(self.data), weight)
        else:
            index = codings.signed_digit_events(self.data, self.shape[-1])
            products = _event_dot(index, weight, signed=True)
        return codings.weigh(products, codings.digit_weights(self.data.shape[0]))

    def _narrow(self, where: str, low: int, high: int, overflow: str) -> tuple[Array, Array]:
        counts = self.data
        if _is_integer(counts):
            limits = jnp.iinfo(counts.dtype)
            low, high = max(low, limits.min), min(high, limits.max)
        else:
            counts = _at_least_float32(counts)
        kept = jnp.clip(jnp.round(counts), low, high)
        lost = jnp.sum(kept != counts, axis=-1, dtype=jnp.int32)  # NaN differs from everything
        return kept.astype(jnp.int32), self._count_lost(where, lost, overflow)

    def _count_lost(self, where: str, lost: Int[Array, "*lead"], overflow: str) -> Array:
        check_choice(where, "overflow", overflow, OVERFLOWS)
        if overflow == "error":
            check(not isinstance(lost, jax.core.Tracer), where,
                  "overflow='error' needs concrete values", "traced ones",
                  "use 'saturate' under jit and read saturated")
            check(not np.any(lost), where, "all entries must fit", f"{np.sum(lost)} that do not",
                  "allow more steps or capacity, or overflow='saturate'")
        return self.saturated + lost

    def _check_weight(self, where: str, weight: ArrayLike) -> Array:
        weight, _ = _numeric(where, "weight", weight, ndim=2)
        if _is_integer(weight) and not np.can_cast(weight.dtype, np.int32):
            raise TypeError(f"{where}: weight must fit int32 sums, got dtype {weight.dtype}")
        check(weight.ndim == 2 and weight.shape[0] == self.shape[-1], where,
              f"weight must have shape [{self.shape[-1]}, M]", weight.shape)
        return weight


def _dot(spikes: Array, weight: Array) -> Array:
    if _is_integer(weight):
        if not _is_integer(spikes):
            spikes = jnp.round(spikes).astype(jnp.int32)
        return jnp.matmul(spikes, weight, preferred_element_type=jnp.int32)
    # HIGHEST: accelerators otherwise round float32 operands, and the views would differ.
    return jnp.matmul(_at_least_float32(spikes), _at_least_float32(weight),
                      precision=jax.lax.Precision.HIGHEST)


def _event_dot(index: Array, weight: Array, signed: bool) -> Array:
    padding = len(weight)
    weight = weight.astype(jnp.int32) if _is_integer(weight) else _at_least_float32(weight)
    if signed:  # n - N picks row n of -W, n row n of W, N the padding
        index, padding = index + padding, 2 * padding
        weight = jnp.concatenate([-weight, weight])
    parts = max(1, -(-index.shape[-1] // PARTIAL_SUM))
    spare = [(0, 0)] * (index.ndim - 1) + [(0, -index.shape[-1] % parts)]
    index = jnp.pad(index, spare, constant_values=padding)
    index = jnp.swapaxes(index.reshape(*index.shape[:-1], -1, parts), -1, -2)
    return jnp.sum(event_matmul(index, weight), axis=-2)


def _at_least_float32(array: Array) -> Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _is_integer(array: Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)


def _numeric(
    where: str, name: str, given: ArrayLike, ndim: int,
) -> tuple[Array, np.ndarray | None]:
    """``given`` as a JAX array of numbers and, when concrete, its values as they came."""
    array = jnp.asarray(given)
    array = array.astype(array.dtype)  # a weak type, as Python numbers have, would trace again
    if not _is_integer(array) and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{where}: {name} must be floating or integer, got dtype {array.dtype}")
    check(array.ndim >= ndim, where, f"{name} must have {ndim} axes or more", array.shape)
    return array, None if isinstance(given, jax.core.Tracer) else np.asarray(given)


def _broadcast(where: str, name: str, array: Array, shape: tuple, remedy: str = "") -> Array:
    axes = (1,) * (len(shape) - array.ndim) + array.shape
    fits = len(axes) == len(shape) and all(a in (1, b) for a, b in zip(axes, shape, strict=True))
    check(fits, where, f"{name} must broadcast to {shape}", array.shape, remedy)
    return jnp.broadcast_to(array, shape)


def _check_values(
    where: str, name: str, values: np.ndarray, expected: str, good: np.ndarray, remedy: str = "",
) -> None:
    if not np.all(good):
        raise fail(where, f"{name} must be {expected}", values[~good].flat[0], remedy)

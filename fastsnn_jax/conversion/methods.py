"""Conversion methods: how the number at a site becomes a spike count.

    value = V * s,    s a whole number of spikes

dynamic_mean   V = mean |x| / k of each token, nothing to calibrate      (SpikingBrain, eq. 19-21)
max            V = max / N over the calibration batch                    (Diehl 2015)
percentile     the same of the 99.9th percentile                         (Rueckauer 2017)
mse            the range whose counts are nearest in mean square
ltb            range grown per channel by what it cuts off               (Bu 2025, arXiv:2409.03368)
qcfs           mse at the start, then learnt with the weights            (Bu 2022, arXiv:2303.04347)

N is the number of time steps. All but the first fire

    s = clip(floor(x / V + initial), 0, N)

what an integrate-and-fire neuron with reset by subtraction fires in N steps when it starts at
``initial * V`` and its input is constant or comes first: at 1/2, the default, x / V is rounded,
halves upward. A signed site is a pair of such neurons, for x and for -x: halves go away from 0.
dynamic_mean rounds halves to even, see ``neurons.adaptive_threshold``.

``smooth`` evens out channels with outliers in front of a product: V is that of x_j / c_j, and of
channel j it is c_j V, with c_j = sqrt(max |x_j| / max |w_j|) (Xiao 2023, arXiv:2211.10438, equation
4 at 1/2). Its weights may take c_j up; here they stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax

from fastsnn_jax._checks import check, check_choice, check_count, check_number, fail
from fastsnn_jax._typing import Array
from fastsnn_jax.conversion.sites import Site
from fastsnn_jax.neurons import adaptive_threshold

LTB_UPDATES = 100  # more come closer to the maximum, which needs more steps (paper, section 5.3)
MSE_RANGES = 64  # ranges tried, from 1/64 of the maximum to all of it
LEAST_THRESHOLD = 1e-12  # what an optimiser may make of one, 0 and below, would divide by 0


class Encoded(NamedTuple):
    """The spikes that stand for a value.

    Attributes:
      counts: the value's shape, whole numbers in float32 or wider; gradients flow.
      threshold: V, broadcast against the counts.
      clipped: how many did not fit, with the axes of the counts or 1 in the place of channels.
    """

    counts: Array
    threshold: Array
    clipped: Array

    def value(self, dtype: Any) -> Array:
        """What they stand for."""
        return (self.counts * self.threshold).astype(dtype)


@dataclass(frozen=True)
class DynamicMean:
    """A threshold for each token, from its own mean; see ``neurons.adaptive_threshold``."""

    k: float = 3.0
    num_steps: int = 127
    signed: bool | None = None
    smooth: bool = False

    name = "dynamic_mean"
    learnt = False

    def __post_init__(self) -> None:
        check_number("convert", "k", self.k, above=0.0, at_most=1e6)
        _check_common(self)

    def calibrate(self, site: Site, value: Array, weight: Array | None) -> dict[str, Array]:
        """Nothing but the smoothing: the threshold follows from the value."""
        return {"scale": _smoothing(site, value, weight)} if self.smooth else {}

    def encode(self, site: Site, feed: Mapping[str, Array], value: Array) -> Encoded:
        """Counts against the mean over the site's channels, each token for itself."""
        if "scale" in feed:
            scale = _spread(site, lax.stop_gradient(feed["scale"]), value)
            encoded = self._fire(site, (value / scale).astype(value.dtype))
            return encoded._replace(threshold=encoded.threshold * scale)
        return self._fire(site, value)

    def _fire(self, site: Site, value: Array) -> Encoded:
        neuron = adaptive_threshold(self.k, signed=is_signed(self, site), limit=self.num_steps)
        last = tuple(range(value.ndim - len(site.channels), value.ndim))
        tokens = jnp.moveaxis(value, site.channels, last)
        shape = tokens.shape
        spikes = neuron.encode({}, tokens.reshape(*shape[:len(shape) - len(last)], -1))
        counts = jnp.moveaxis(spikes.data.reshape(shape), last, site.channels)
        lead = (*shape[:len(shape) - len(last)], *[1] * len(last))
        threshold, clipped = (
            jnp.moveaxis(each.reshape(lead), last, site.channels)
            for each in (spikes.threshold, spikes.saturated)
        )
        return Encoded(_wide(counts), threshold, clipped)


@dataclass(frozen=True)
class Calibrated:
    """A threshold for each site, or each channel of it, from the calibration batch."""

    name: str
    num_steps: int = 8
    percentile: float = 99.9
    per_channel: bool = False
    signed: bool | None = None
    initial: float = 0.5
    smooth: bool = False

    def __post_init__(self) -> None:
        check_number("convert", "percentile", self.percentile, above=0.0, at_most=100.0)
        check_number("convert", "initial", self.initial, at_least=0.0, at_most=1.0)
        _check_flag("per_channel", self.per_channel)
        _check_common(self)

    @property
    def learnt(self) -> bool:
        """True where gradients reach the thresholds."""
        return self.name == "qcfs"

    def calibrate(self, site: Site, value: Array, weight: Array | None) -> dict[str, Array]:
        """The threshold, a number or one for each channel; 1 / N where nothing ever arrives."""
        if self.smooth:
            scale = _smoothing(site, value, weight)
            return {"threshold": self._threshold(site, value / _spread(site, scale, value)) * scale}
        return {"threshold": self._threshold(site, value)}

    def _threshold(self, site: Site, value: Array) -> Array:
        channels = site.channels if self.per_channel else ()
        others = tuple(axis for axis in range(value.ndim) if axis not in channels)
        value = _wide(value)
        size = jnp.abs(value) if is_signed(self, site) else jnp.maximum(value, 0)
        extent = _EXTENTS[self.name](self, size, others)
        return jnp.where(extent == 0, 1.0, extent) / self.num_steps

    def encode(self, site: Site, feed: Mapping[str, Array], value: Array) -> Encoded:
        """Counts against the site's threshold."""
        threshold = feed["threshold"]
        if not self.learnt:
            threshold = lax.stop_gradient(threshold)
        threshold = _spread(site, threshold, value)
        return self._fire(site, _wide(value), jnp.maximum(jnp.abs(threshold), LEAST_THRESHOLD))

    def _fire(self, site: Site, value: Array, threshold: Array) -> Encoded:
        ratio, most = value / threshold, float(self.num_steps)
        signed = is_signed(self, site)
        fired = jnp.floor((jnp.abs(ratio) if signed else ratio) + self.initial)
        whole = jnp.clip(fired, 0, most) * (jnp.sign(ratio) if signed else 1)
        # The rounding has the slope of the ratio where it is in range, and none outside.
        inside = lax.clamp(-most if signed else 0.0, ratio, most)
        counts = lax.stop_gradient(whole) + (inside - lax.stop_gradient(inside))
        return Encoded(counts, threshold, lax.stop_gradient(fired > most))


Method: TypeAlias = DynamicMean | Calibrated

METHODS = ("dynamic_mean", "max", "percentile", "mse", "ltb", "qcfs")
_CALIBRATED_OPTIONS = ("num_steps", "per_channel", "signed", "initial", "smooth")
_OPTIONS = {
    "dynamic_mean": ("k", "num_steps", "signed", "smooth"),
    "percentile": (*_CALIBRATED_OPTIONS, "percentile"),
}


def build(name: str, options: Mapping[str, Any]) -> Method:
    """The method of that name; ValueError for an unknown one, or an option it does not have.

    >>> build("max", {"num_steps": 4}).num_steps
    4
    """
    check_choice("convert", "method", name, METHODS)
    allowed = _OPTIONS.get(name, _CALIBRATED_OPTIONS)
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise fail("convert", f"options of method {name!r} are {', '.join(allowed)}",
                   ", ".join(unknown))
    if name == "dynamic_mean":
        return DynamicMean(**options)
    return Calibrated(name, **{"per_channel": name == "ltb"} | dict(options))


def is_signed(method: Method, site: Site) -> bool:
    """Whether a site's spikes carry signs: those of a value that may be negative, unless told."""
    return not site.nonnegative if method.signed is None else method.signed


def _smoothing(site: Site, value: Array, weight: Array | None) -> Array:
    """What each channel is divided by; its weights take it up, so nothing else changes."""
    assert weight is not None  # of a product, as convert has checked
    others = tuple(axis for axis in range(value.ndim) if axis not in site.channels)
    theirs = jnp.max(jnp.abs(_wide(value)), axis=others)
    first = tuple(range(len(site.partners)))
    kernel = jnp.moveaxis(jnp.abs(_wide(weight)), site.partners, first)
    ours = jnp.max(kernel, axis=tuple(range(len(first), kernel.ndim)))
    if first and theirs.shape != ours.shape:  # a grouped convolution: the inputs of one group
        ours = jnp.tile(ours, theirs.shape[0] // ours.shape[0])
    scale = jnp.sqrt(theirs) / jnp.sqrt(ours)
    return jnp.where(jnp.isfinite(scale) & (scale > 0), scale, 1.0)


def _spread(site: Site, each: Array, value: Array) -> Array:
    """A number for each channel against the value; a single number as it is."""
    if not each.ndim:
        return each
    return lax.expand_dims(each, [axis for axis in range(value.ndim) if axis not in site.channels])


def _largest(method: Calibrated, size: Array, others: tuple[int, ...]) -> Array:
    return jnp.max(size, axis=others)


def _percentile(method: Calibrated, size: Array, others: tuple[int, ...]) -> Array:
    return jnp.percentile(size, method.percentile, axis=others)


def _least_square(method: Calibrated, size: Array, others: tuple[int, ...]) -> Array:
    most = jnp.max(size, axis=others, keepdims=True)
    most = jnp.where(most == 0, 1.0, most)

    def error(share: Array) -> Array:
        threshold = share * most / method.num_steps
        counts = jnp.clip(jnp.floor(size / threshold + method.initial), 0, method.num_steps)
        return jnp.mean(jnp.square(counts * threshold - size), axis=others)

    shares = jnp.arange(1, MSE_RANGES + 1, dtype=size.dtype) / MSE_RANGES
    best = jnp.argmin(lax.map(error, shares), axis=0)
    return shares[best] * jnp.squeeze(most, others)


def _balanced(method: Calibrated, size: Array, others: tuple[int, ...]) -> Array:
    """Gradient descent on the square of what the range cuts off, from 0 (equations 14 and 15)."""
    def update(_: Any, extent: Array) -> Array:
        beyond = jnp.maximum(size - extent, 0)
        return extent + 2 * jnp.mean(beyond, axis=others, keepdims=True)

    start = jnp.zeros_like(jnp.max(size, axis=others, keepdims=True))
    return jnp.squeeze(lax.fori_loop(0, LTB_UPDATES, update, start), others)


_EXTENTS: dict[str, Callable[[Calibrated, Array, tuple[int, ...]], Array]] = {
    "max": _largest, "percentile": _percentile, "mse": _least_square, "ltb": _balanced,
    "qcfs": _least_square,
}


def _check_common(method: Method) -> None:
    check_count("convert", "num_steps", method.num_steps)
    check(method.num_steps <= 2**24, "convert", f"num_steps must be <= {2**24}", method.num_steps)
    _check_flag("smooth", method.smooth)
    if method.signed is not None:
        _check_flag("signed", method.signed)


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"convert: {name} must be a bool, got {value!r}")


def _wide(value: Array) -> Array:
    return value.astype(jnp.promote_types(value.dtype, jnp.float32))

"""Spike functions: a step forward, a smooth derivative backward.

A surrogate is called on the distance to threshold, ``u = v - threshold``, and returns spikes in
{0, 1} of ``u``'s dtype. Its backward pass multiplies by ``g(u)`` in place of the step's derivative,
which is zero almost everywhere. ``G`` is the integral of ``g``.

================  =====================================  =============  ======================
factory           g(u)                                   peak           source
================  =====================================  =============  ======================
straight_through  slope                                  slope          Bengio 2013, 1308.3432
fast_sigmoid      1 / (1 + slope |u|)^2                  1              Zenke 2018, 1705.11146
superspike        the same, at the slope of its paper    1              Zenke 2018, 1705.11146
arctan            (a/2) / (1 + (pi a u / 2)^2)           a/2            Fang 2021, 2007.05785
sigmoid           a s(a u) (1 - s(a u)), s logistic      a/4            Neftci 2019, 1901.09948
triangular        max(0, 1 - |u| / width) / width        1/width        Esser 2016, 1603.08270
boxcar            1 / width where |u| <= width / 2       1/width        Wu 2018, 1706.02609
gaussian          exp(-(u/w)^2 / 2) / (w sqrt(2 pi))     0.399/w        Yin 2021, 2103.12593
================  =====================================  =============  ======================

From ``arctan`` down, the area under g is 1, the height of the step it stands for.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp

from fastsnn_jax._checks import check, check_choice, check_floating, check_number
from fastsnn_jax._typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Spike function ``spike(u)``: Heaviside forward, ``derivative(u)`` backward.

    Hashable and comparable, so that whatever holds one (a neuron) can be a static argument.

    Attributes:
      shape: name of the derivative's formula, as in the module's table.
      scale: its one constant (slope, a, width or w).
      ties: "fire" spikes at ``u == 0`` (``>=``), "hold" does not (``>``).
      forward: True for the twin that also works under forward-mode differentiation.

    >>> spike = fast_sigmoid(slope=10.0)
    >>> spike(jnp.array([-0.5, 0.0, 0.5]))
    Array([0., 1., 1.], dtype=float32)
    >>> float(jax.grad(spike)(0.1))
    0.25
    """

    shape: str
    scale: float
    ties: str = "fire"
    forward: bool = False

    def __post_init__(self) -> None:
        check_choice("surrogate", "shape", self.shape, tuple(_FORMULAS))
        check_number(self.shape, "scale", self.scale, above=0.0, at_most=1e6)
        check_choice(self.shape, "ties", self.ties, ("fire", "hold"))

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns spikes in {0, 1}; TypeError unless ``u`` is floating."""
        check_floating(self.shape, "u", u)
        u = jnp.asarray(u)
        if not self.forward:
            return _fire(self, u)
        integral = self.integral(u)
        # The difference is exactly 0, so the value is exact while the tangent is that of G.
        return self.heaviside(u) + (integral - jax.lax.stop_gradient(integral))

    def heaviside(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the step alone, in ``u``'s dtype."""
        u = jnp.asarray(u)
        return (u >= 0 if self.ties == "fire" else u > 0).astype(u.dtype)

    def derivative(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns ``g(u)``, what the backward pass multiplies by."""
        u = jnp.asarray(u)
        return _FORMULAS[self.shape][0](u, self.scale).astype(u.dtype)

    def integral(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns ``G(u)``, whose derivative is ``g(u)``."""
        u = jnp.asarray(u)
        return _FORMULAS[self.shape][1](u, self.scale).astype(u.dtype)

    def forward_mode(self) -> "Surrogate":
        """Returns the twin that computes ``step(u) + G(u) - stop_gradient(G(u))``.

        Same values and gradients; differentiable by ``jax.jvp`` and any number of times.
        """
        return dataclasses.replace(self, forward=True)


def straight_through(slope: float = 0.3, *, ties: str = "fire") -> Surrogate:
    """Constant derivative ``slope`` everywhere."""
    return Surrogate("straight_through", slope, ties)


def fast_sigmoid(slope: float = 10.0, *, ties: str = "fire") -> Surrogate:
    """Derivative of the fast sigmoid, scaled to peak 1: ``1 / (1 + slope |u|)^2``."""
    return Surrogate("fast_sigmoid", slope, ties)


def superspike(slope: float = 100.0, *, ties: str = "fire") -> Surrogate:
    """``fast_sigmoid`` at the steep slope of the SuperSpike paper."""
    return Surrogate("fast_sigmoid", slope, ties)


def arctan(alpha: float = 2.0, *, ties: str = "fire") -> Surrogate:
    """Derivative of ``atan(pi alpha u / 2) / pi``, peak ``alpha / 2``."""
    return Surrogate("arctan", alpha, ties)


def sigmoid(alpha: float = 4.0, *, ties: str = "fire") -> Surrogate:
    """Derivative of the logistic ``1 / (1 + exp(-alpha u))``, peak ``alpha / 4``."""
    return Surrogate("sigmoid", alpha, ties)


def triangular(width: float = 1.0, *, ties: str = "fire") -> Surrogate:
    """Triangle of area 1, zero where ``|u| >= width``."""
    return Surrogate("triangular", width, ties)


def boxcar(width: float = 1.0, *, ties: str = "fire") -> Surrogate:
    """Rectangle of area 1 on ``|u| <= width / 2``."""
    return Surrogate("boxcar", width, ties)


def gaussian(width: float = 0.5, *, ties: str = "fire") -> Surrogate:
    """Normal density with standard deviation ``width``."""
    return Surrogate("gaussian", width, ties)


def round_ste(
    x: Float[Array, "..."],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    rounding: str = "nearest",
    window: str = "identity",
    tau: float = 1.0,
) -> Float[Array, "..."]:
    """Rounds to integers and clips to ``[low, high]``, with a surrogate gradient.

        y = clip(round(x), low, high)
        identity:  dy/dx = 1 where low <= x <= high, else 0
        sigmoid:   dy/dx = s(x / tau) (1 - s(x / tau)) / tau, everywhere

    Args:
      x: any shape, floating.
      low: least count, for example 0 for unsigned counts.
      high: greatest count.
      rounding: "nearest", half to even, or "down", towards 0: what a soft-reset neuron fires that
        starts at half its threshold, or at rest.
      window: "identity" passes the gradient of every count in range; "sigmoid" is FastSNN's bump
        around 0 (``neurons/surrogate.py``), which fades for counts above about 5.
      tau: width of the sigmoid window, > 0.

    Returns:
      Integer-valued array of ``x``'s dtype.

    Raises:
      TypeError: if ``x`` is not floating.
      ValueError: if ``low > high``, or for an unknown window or a bad ``tau``.

    >>> round_ste(jnp.array([-1.2, 0.5, 1.5, 9.0]), low=0, high=4)
    Array([0., 0., 2., 4.], dtype=float32)
    """
    check_floating("round_ste", "x", x)
    check(low <= high, "round_ste", "low must be <= high", (low, high))
    check_choice("round_ste", "rounding", rounding, tuple(_ROUNDINGS))
    check_choice("round_ste", "window", window, ("identity", "sigmoid"))
    check_number("round_ste", "tau", tau, above=0.0)
    return _round((low, high, rounding, window, tau), x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fire(surrogate, u):
    return surrogate.heaviside(u)


_fire.defvjp(
    lambda surrogate, u: (surrogate.heaviside(u), u),
    lambda surrogate, u, cotangent: (cotangent * surrogate.derivative(u),),
)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _round(settings, x):
    low, high, rounding, _, _ = settings
    return jnp.clip(_ROUNDINGS[rounding](x), low, high)


def _round_backward(settings, x, cotangent):
    low, high, _, window, tau = settings
    if window == "sigmoid":
        return (cotangent * _logistic_slope(x, 1.0 / tau).astype(cotangent.dtype),)
    return (jnp.where((x >= low) & (x <= high), cotangent, 0),)


_round.defvjp(lambda settings, x: (_round(settings, x), x), _round_backward)


def _logistic_slope(u, alpha):
    decayed = jnp.exp(-alpha * jnp.abs(u))  # s (1 - s) by one exponential, without cancellation
    return alpha * decayed / jnp.square(1 + decayed)


def _triangle_area(u, width):
    reach = jnp.clip(u / width, -1, 1)
    return reach - 0.5 * reach * jnp.abs(reach)


_ROUNDINGS = {"nearest": jnp.round, "down": jnp.trunc}

_FORMULAS = {  # shape: (g, G)
    "straight_through": (
        lambda u, slope: jnp.full_like(u, slope),
        lambda u, slope: slope * u,
    ),
    "fast_sigmoid": (
        lambda u, slope: 1 / jnp.square(1 + slope * jnp.abs(u)),
        lambda u, slope: u / (1 + slope * jnp.abs(u)),
    ),
    "arctan": (
        lambda u, alpha: 0.5 * alpha / (1 + jnp.square(0.5 * math.pi * alpha * u)),
        lambda u, alpha: jnp.arctan(0.5 * math.pi * alpha * u) / math.pi,
    ),
    "sigmoid": (
        _logistic_slope,
        lambda u, alpha: jax.nn.sigmoid(alpha * u),
    ),
    "triangular": (
        lambda u, width: jnp.maximum(0, 1 - jnp.abs(u) / width) / width,
        _triangle_area,
    ),
    "boxcar": (
        lambda u, width: jnp.where(jnp.abs(u) <= 0.5 * width, 1 / width, 0),
        lambda u, width: jnp.clip(u / width, -0.5, 0.5),
    ),
    "gaussian": (
        lambda u, width: jnp.exp(-0.5 * jnp.square(u / width)) / (width * math.sqrt(2 * math.pi)),
        lambda u, width: 0.5 + 0.5 * jax.lax.erf(u / (width * math.sqrt(2))),
    ),
}

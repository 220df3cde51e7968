"""Rotary position embedding: a query's product with a key depends on their distance alone."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_floating, check_number
from fastsnn_jax._rope_scaling import check_rope_scaling
from fastsnn_jax._typing import Array, Float, Int


def rope(
    x: Float[Array, "B L H D"], positions: Int[Array, "*B L"], *, theta: float,
    scaling: tuple[tuple[str, str | float], ...] | None = None,
) -> Float[Array, "B L H D"]:
    """Turns feature i of the first half against feature i of the second, by position.

        angle[l, i] = positions[l] * theta**(-2i / D),  i < D / 2
        first, second  ->  first cos - second sin,  second cos + first sin

    ``scaling`` slows the turning down, for contexts longer than those trained on: ``linear``
    divides every frequency by ``factor``; ``llama3`` only those whose wavelength is above
    ``original_max_position_embeddings / low_freq_factor``, keeps those below
    ``original_max_position_embeddings / high_freq_factor`` and goes over smoothly in between.
    ``yarn`` goes over from feature to feature, between the two that turn ``beta_fast`` and
    ``beta_slow`` times within ``original_max_position_embeddings``, and multiplies what it returns
    by ``attention_factor``. ``dynamic`` turns a token at position p >= N =
    ``original_max_position_embeddings`` as if theta were ``theta * g**(D / (D - 2))`` with
    ``g = factor * (p + 1) / N - (factor - 1)``: each token as when it was the last of the text, so
    that what a cache holds stays right.

    Args:
      x: queries or keys ``[B, L, H, D]``, D even.
      positions: tokens before each one, ``[L]`` or ``[B, L]``, >= 0.
      theta: base of the wavelengths, > 0.
      scaling: (name, value) pairs: ``rope_type`` and the numbers of that type.

    Returns:
      ``[B, L, H, D]`` in the dtype of ``x``; products are float32, and a frequency is right to
      2^-33 of a turn per token, that of ``dynamic`` beyond N to float32.

    Raises:
      ValueError: if D is odd, or 2 and the scaling dynamic, the positions do not fit, or
        ``scaling`` names something unknown, lacks something, or is out of range.
      TypeError: if ``x`` is not floating or a number is none.

    Su et al. 2021, RoFormer, arXiv:2104.09864; ``llama3`` as in Llama 3.1's configuration;
    ``yarn``: Peng et al. 2023, arXiv:2309.00071, its ends rounded to whole features as in the
    configurations of Qwen2.5.

    >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)  # one turn of one radian
    >>> rope(x, jnp.array([1]), theta=1e4).round(3).tolist()
    [[[[0.5400000214576721, 0.8410000205039978]]]]
    """
    check_floating("rope", "x", x)
    check(jnp.ndim(x) == 4, "rope", "x must have shape [B, L, H, D]", jnp.shape(x))
    batch, length, _, size = x.shape
    check(size % 2 == 0, "rope", "the head size D must be even", size)
    check(
        jnp.shape(positions) in ((length,), (batch, length)), "rope",
        f"positions must have shape ({length},) or ({batch}, {length})", jnp.shape(positions),
    )
    check_number("rope", "theta", theta, above=0)
    check_rope_scaling("rope", "scaling", scaling)
    options: dict[str, Any] = dict(scaling or ())
    # Turns in units of 2^-32, which wrap as whole turns do: the difference of two angles depends on
    # the distance alone at any position, where a float32 product has lost it by a million.
    frequencies = _frequencies(size, theta, options)
    turns = np.mod(frequencies / (2 * math.pi), 1)
    turning = jnp.asarray(np.mod(np.round(turns * 2.0**32), 2.0**32).astype(np.uint32))
    phase = jnp.asarray(positions).astype(jnp.uint32)[..., None, None] * turning
    angle = phase.astype(jnp.int32).astype(jnp.float32) * (2 * math.pi / 2**32)  # in -pi .. pi
    if options.get("rope_type") == "dynamic":
        angle = _grown(angle, positions, frequencies, options)
    cos, sin = jnp.cos(angle), jnp.sin(angle)  # [(B,) L, 1, D / 2]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    if "attention_factor" in options:
        turned = options["attention_factor"] * turned
    return turned.astype(x.dtype)


def _frequencies(size, theta, options):
    """Radians per token ``[D / 2]``, float64 on the host."""
    turning = np.float64(theta) ** (-np.arange(0, size, 2) / size)
    if not options or options["rope_type"] == "dynamic":
        return turning
    slow = turning / options["factor"]
    kept = {"linear": _none_kept, "llama3": _fast_kept, "yarn": _first_kept}[options["rope_type"]]
    return slow + (turning - slow) * kept(turning, theta, options)


def _grown(angle, positions, frequencies, options):
    """The angles ``[(B,) L, 1, D / 2]``, made smaller for tokens beyond the original context."""
    half, factor = len(frequencies), options["factor"]
    check(half > 1, "rope", "the head size D must be above 2 for dynamic scaling", 2 * half)
    position = jnp.asarray(positions).astype(jnp.float32)[..., None, None]
    growth = factor * (position + 1) / options["original_max_position_embeddings"] - (factor - 1)
    slower = jnp.maximum(growth, 1) ** (-jnp.arange(half) / (half - 1))
    return jnp.where(growth > 1, position * frequencies.astype(np.float32) * slower, angle)


def _none_kept(turning, theta, options):
    return 0.0


def _fast_kept(turning, theta, options):
    """1 above ``high_freq_factor`` turns within the original context, 0 below the low one."""
    low, high = options["low_freq_factor"], options["high_freq_factor"]
    turns = options["original_max_position_embeddings"] * turning / (2 * math.pi)
    return np.clip((turns - low) / (high - low), 0, 1)


def _first_kept(turning, theta, options):
    """1 up to the feature of ``beta_fast`` turns, 0 from that of ``beta_slow`` on."""
    half, length = len(turning), options["original_max_position_embeddings"]

    def feature(turns):
        return half * math.log(length / (2 * math.pi * turns)) / math.log(theta)

    first = max(math.floor(feature(options["beta_fast"])), 0)
    last = min(math.ceil(feature(options["beta_slow"])), 2 * half - 1)
    return 1 - np.clip((np.arange(half) - first) / max(last - first, 1e-3), 0, 1)

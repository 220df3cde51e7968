"""The one shape check of all attention cores that read keys and values of the same size."""

import jax.numpy as jnp

from fastsnn_jax._checks import check, check_floating


def check_heads(where: str, q, k, v) -> None:
    """Raises unless q is ``[B, L, H, D]``, k and v are ``[B, L, G, D]``, and G divides H."""
    for name, array in (("q", q), ("k", k), ("v", v)):
        check_floating(where, name, array)
        check(
            jnp.ndim(array) == 4 and jnp.size(array) > 0, where,
            f"{name} must have shape [B, L, heads, D], none of them 0", jnp.shape(array),
        )
    batch, length, heads, size = q.shape
    fits = k.shape == v.shape and k.shape[:2] == (batch, length) and k.shape[3] == size
    check(
        fits, where, f"k and v must have shape ({batch}, {length}, kv heads, {size})",
        f"{k.shape} and {v.shape}",
    )
    check(
        heads % k.shape[2] == 0, where,
        f"the kv heads must divide the {heads} query heads", k.shape[2],
    )

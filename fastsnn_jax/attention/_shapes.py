"""The shape check of all attention cores."""

import jax.numpy as jnp

from fastsnn_jax._checks import check, check_floating


def check_heads(where: str, q, k, v, free_values: bool = False) -> None:
    """Raises unless q is ``[B, L, H, D]``, k and v are ``[B, L, G, D]``, and G divides H.

    With ``free_values`` the last axis of v may have any size.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        check_floating(where, name, array)
        check(
            jnp.ndim(array) == 4 and jnp.size(array) > 0, where,
            f"{name} must have shape [B, L, heads, D], none of them 0", jnp.shape(array),
        )
    batch, length, heads, size = q.shape
    check(
        k.shape == (batch, length, k.shape[2], size), where,
        f"k must have shape ({batch}, {length}, kv heads, {size}), as q", k.shape,
    )
    last = "value size" if free_values else size
    check(
        v.shape[:3] == k.shape[:3] and (free_values or v.shape == k.shape), where,
        f"v must have shape ({batch}, {length}, {k.shape[2]}, {last}), as k", v.shape,
    )
    check(
        heads % k.shape[2] == 0, where,
        f"the kv heads must divide the {heads} query heads", k.shape[2],
    )

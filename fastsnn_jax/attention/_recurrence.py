"""The checks that every form of the linear-attention recurrence makes of its arguments."""

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_count, check_floating
from fastsnn_jax.attention._shapes import check_heads


def check_recurrence(where: str, q, k, v, log_decay) -> None:
    """Raises unless the arguments of ``S[t] = diag(exp(log_decay[t])) S[t-1] + k[t]^T v[t]`` fit.

    Shapes: q ``[B, L, H, D]``, k ``[B, L, G, D]``, v ``[B, L, G, E]``, G a divisor of H, log_decay
    None or ``[B, L, G, D or 1]``. Values of ``log_decay`` above 0 are seen outside jit only.
    """
    check_heads(where, q, k, v, free_values=True)
    if log_decay is None:
        return
    check_floating(where, "log_decay", log_decay)
    check(
        jnp.shape(log_decay) in (k.shape, (*k.shape[:3], 1)), where,
        f"log_decay must have shape {k.shape} or {(*k.shape[:3], 1)}", jnp.shape(log_decay),
    )
    if not isinstance(log_decay, jax.core.Tracer):
        values = np.asarray(log_decay, np.float32)  # in numpy: under jit jnp would trace even this
        check(
            bool((values <= 0).all()), where, "log_decay must be <= 0", f"up to {values.max():g}",
            "pass the logarithm of a decay in (0, 1]",
        )


def check_chunk(where: str, chunk: int) -> None:
    """Raises unless ``chunk`` is a power of two."""
    check_count(where, "chunk", chunk)
    check(chunk & (chunk - 1) == 0, where, "chunk must be a power of two", chunk)

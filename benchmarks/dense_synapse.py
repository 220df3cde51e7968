"""Dense synapse against the plain product: the product and its kernel's gradient.

    python -m benchmarks.dense_synapse

``[3200, N] @ [N, M]`` of random binary trains, float32, the sine of the loss included; the two take
turns, and the ratio is the median over rounds.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from fastsnn_jax.kernels.dense_synapse import dense_matmul

ROWS, DENSITY, ROUNDS = 3200, 0.1, 21
INNER = 10  # steps inside one program, so that buffers are allocated once
SHAPES = [(400, 10), (400, 128), (784, 400)]


def descent(product, spikes, kernel):
    """``INNER`` steps that need the product and the kernel's gradient."""

    def loss(kernel):
        return jnp.sum(jnp.sin(product(spikes, kernel)))

    def body(_, kernel):
        return kernel - 1e-6 * jax.grad(loss)(kernel)

    return jax.lax.fori_loop(0, INNER, body, kernel)


def seconds(program, *given) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*given))
    return (time.perf_counter() - start) / INNER


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for shape in SHAPES:
        spikes = jnp.asarray((rng.random((ROWS, shape[0])) < DENSITY).astype(np.float32))
        kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
        taken = _timing.take_turns({
            name: partial(seconds, jax.jit(partial(descent, product)), spikes, kernel)
            for name, product in (("plain", jnp.matmul), ("ours", dense_matmul))
        }, ROUNDS)
        rows.append({
            "kernel": shape, "times_as_fast": float(np.median(taken["plain"] / taken["ours"])),
            **{f"{name}_ms": _timing.summary(1e3 * value) for name, value in taken.items()},
        })
        plain, ours = (rows[-1][f"{name}_ms"]["median"] for name in ("plain", "ours"))
        print(f"[{ROWS}, {shape[0]}] @ {list(shape)}  plain {plain:.2f} ms  ours {ours:.2f} ms  "
              f"{rows[-1]['times_as_fast']:.2f} times as fast")
    print(_timing.save("dense_synapse", {"rows": rows}))


if __name__ == "__main__":
    main()

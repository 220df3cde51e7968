"""Event-driven input synapse against the dense product, forward and kernel gradient.

    python -m benchmarks.event_synapse

[T * B, N] x [N, M] = [3200, 784] x [784, 400] over densities: ``DENSITY_LIMIT_CPU`` of
``kernels/event_synapse.py`` lies below where the two cross.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _timing
from fastsnn_jax.kernels.event_synapse import event_matmul

ROWS, CHANNELS, WIDTH = 3200, 784, 400
INNER = 10  # repetitions inside one program, so that buffers are allocated once
DENSITIES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def event_list(train: np.ndarray) -> jnp.ndarray:
    """Ascending indices of the ones of each row, padded with N."""
    capacity = int(train.sum(1).max())
    order = np.argsort(-train, axis=1, kind="stable")[:, :capacity]
    fired = np.take_along_axis(train, order, 1) > 0
    return jnp.asarray(np.where(fired, order, CHANNELS).astype(np.int32))


def repeated(function):
    """``INNER`` dependent evaluations in one dispatch."""

    def run(signal, matrix):
        def body(_, carry):
            return function(signal, matrix + carry[0, 0] * 1e-20)

        start = jnp.zeros(jax.eval_shape(function, signal, matrix).shape)
        return jax.lax.fori_loop(0, INNER, body, start)

    return jax.jit(run)


def gradient(product):
    """Gradient of ``product`` to the kernel for a cotangent ``[R, M]``."""

    def run(signal, cotangent):
        kernel = jnp.zeros((CHANNELS, WIDTH))
        return jax.vjp(lambda kernel: product(signal, kernel), kernel)[1](cotangent)[0]

    return run


def main() -> None:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(CHANNELS, WIDTH)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(ROWS, WIDTH)), jnp.float32)
    table = []
    for density in DENSITIES:
        train = (rng.random((ROWS, CHANNELS)) < density).astype(np.float32)
        row = {"density": density, "fullest_row": int(train.sum(1).max())}
        for name, signal, product in (
            ("dense", jnp.asarray(train), jnp.matmul), ("event", event_list(train), event_matmul),
        ):
            forward, backward = repeated(product), repeated(gradient(product))
            row[f"{name}_forward_ms"] = _timing.milliseconds(partial(forward, signal, kernel))
            row[f"{name}_gradient_ms"] = _timing.milliseconds(partial(backward, signal, cotangent))
        for timing in row.values():
            if isinstance(timing, dict):
                timing.update({k: timing[k] / INNER for k in ("median", "min", "max")})
        table.append(row)
        cells = "".join(
            f"  {name} {row[name + '_ms']['median']:6.2f} ms"
            for name in ("dense_forward", "event_forward", "dense_gradient", "event_gradient")
        )
        print(f"density {density:5.3f} fullest row {row['fullest_row']:3d}{cells}", flush=True)
    print(_timing.save("event_synapse", {"rows": ROWS, "channels": CHANNELS, "width": WIDTH,
                                         "table": table}))


if __name__ == "__main__":
    main()

"""Every neuron over time, forward and gradient, against the plain scan of its step.

    python -m benchmarks.neurons

Currents [T, B, N] = [50, 64, 400] float32.
"""

from functools import partial

import jax
import jax.numpy as jnp

from benchmarks import _timing
from fastsnn_jax import neurons
from fastsnn_jax.unroll import unroll

STEPS, BATCH, WIDTH = 50, 64, 400
INNER = 5
NEURONS = {
    "lif": neurons.lif(),
    "lif, zero reset": neurons.lif(reset="zero"),
    "lif, learned decay": neurons.lif(learn=("decay",)),
    "lif, learned decay and threshold": neurons.lif(learn=("decay", "threshold")),
    "notebook": neurons.lif_preset("notebook"),
    "snntorch": neurons.lif_preset("snntorch"),
    "spikingjelly": neurons.lif_preset("spikingjelly"),
    "norse_box": neurons.lif_preset("norse_box"),
    "spyx": neurons.lif_preset("spyx"),
    "adaptive_lif": neurons.adaptive_lif(),
    "current_lif": neurons.current_lif(),
    "leaky_integrator": neurons.leaky_integrator(),
}


def main() -> None:
    currents = 0.3 * jax.random.normal(jax.random.key(0), (STEPS, BATCH, WIDTH))
    table = {}
    for name, neuron in NEURONS.items():
        params = neuron.init(jax.random.key(1), (WIDTH,))
        state = neuron.rest((BATCH, WIDTH))

        def plain(params, state, currents, neuron=neuron):
            return unroll(neuron.step, params, state, currents)

        row = {}
        for way, run in (("unroll", neuron.unroll), ("plain", plain)):
            forward, gradient = _repeated(run, params, state)
            row[way] = {
                "forward_ms": _scaled(_timing.milliseconds(partial(forward, currents))),
                "gradient_ms": _scaled(_timing.milliseconds(partial(gradient, currents))),
            }
        table[name] = row
        print(f"{name:34}" + "".join(
            f"{way} {row[way]['forward_ms']['median']:6.2f} / "
            f"{row[way]['gradient_ms']['median']:6.2f} ms   " for way in row
        ), flush=True)
    results = {"shape": [STEPS, BATCH, WIDTH], "dtype": "float32", "neurons": table}
    print(_timing.save("neurons", results))


def _repeated(run, params, state):
    """Forward and gradient, ``INNER`` times in one program: buffers are allocated once."""

    def loss(currents):
        return jnp.sum(jnp.sin(run(params, state, currents)[1]))

    def times(function):
        def program(currents):
            def body(_, total):
                return total + function(currents + 1e-20 * total)

            return jax.lax.fori_loop(0, INNER, body, jnp.float32(0))

        return jax.jit(program)

    def first_of_gradient(currents):
        gradient = jax.grad(loss)(currents)
        return gradient[0, 0, 0] + gradient[-1, -1, -1]

    return times(loss), times(first_of_gradient)


def _scaled(timing):
    return timing | {key: timing[key] / INNER for key in ("median", "min", "max")}


if __name__ == "__main__":
    main()

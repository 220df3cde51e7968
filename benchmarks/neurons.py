"""Every neuron over time, forward and gradient, against the plain scan of its step.

    python -m benchmarks.neurons

Currents [T, B, N] = [50, 64, 400] float32; and with ``--long`` the whole network over long T.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks import _timing
from fastsnn_jax import encoding, neurons
from fastsnn_jax.models import MLP
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="also time and memory over T")
    options = parser.parse_args()
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
    if options.long:
        results["long_time"] = _long_time()
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


def _long_time() -> list[dict]:
    """Time and temporary memory of a training gradient over T, in windows of 50 steps."""
    model, window, batch = MLP(logit_scale=0.3, gain=2.0), 50, 64
    probability = 0.08 * jax.random.uniform(jax.random.key(0), (batch, 784)) ** 4
    variables = model.init(jax.random.key(1), jnp.zeros((1, 1, 784)))
    key, rest, rows = jax.random.key(2), model.rest(batch, (784,)), []

    def step(variables, state, start):
        spikes = encoding.poisson_events(key, probability, window, 64, start=start)
        return model.apply(variables, state, spikes, method="run")

    for remat in (False, True):
        for num_steps in (50, 400, 1600):
            starts = jnp.arange(0, num_steps, window)

            def loss(variables, starts=starts, remat=remat):
                _, (logits, _) = unroll(step, variables, rest, starts, remat=remat)
                return jax.nn.logsumexp(logits.sum(0), axis=-1).mean()

            compiled = jax.jit(jax.value_and_grad(loss)).lower(variables).compile()
            timing = _timing.milliseconds(partial(compiled, variables), repeats=7)
            memory = compiled.memory_analysis().temp_size_in_bytes
            rows.append({"remat": remat, "num_steps": num_steps, "window": window,
                         "gradient_ms": timing, "temporary_bytes": memory})
            print(f"remat {remat!s:5} T={num_steps:5d} {timing['median']:8.1f} ms "
                  f"{memory / 2**20:8.1f} MiB", flush=True)
    return rows


if __name__ == "__main__":
    main()

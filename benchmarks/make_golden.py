"""Records what the LIF neurons of other libraries do: ``tests/golden/lif_<library>.json``.

Run with the peers' Python (``benchmarks/requirements-peers.txt``). Each case holds currents
[T, N], the library's spikes and membranes, and the gradient of sum(weights * spikes) with respect
to the currents, with the library's default surrogate. ``random`` currents have four decimals and
keep every membrane off the threshold; ``dyadic`` ones are multiples of a quarter or a half under a
decay of 1/2, so that no step rounds, and put every membrane exactly at threshold in the first step.
"""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

NUM_STEPS, NUM_NEURONS = 20, 7
THRESHOLD = 1.0
MARGIN = 2e-3  # of random membranes from the threshold: far above rounding
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"

Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def main() -> None:
    """Writes one file per library."""
    random = np.random.default_rng(0)
    weights = random.integers(-8, 9, (NUM_STEPS, NUM_NEURONS)).astype(np.float32) / 8
    for library, cases in CASES.items():
        record = {
            "library": library,
            "version": importlib.metadata.version(library),
            "weights": rows(weights),
            "cases": [],
        }
        for preset, run, overrides, gain, dyadic in cases:
            currents = choose(run, weights, gain, dyadic)
            spikes, membranes, gradient = run(currents, weights)
            record["cases"].append({
                "kind": "dyadic" if dyadic else "random",
                "preset": preset,
                "overrides": overrides,
                "currents": rows(currents),
                "spikes": rows(spikes.astype(int)),
                "membranes": rows(membranes),
                "gradient": rows(gradient),
            })
        path = GOLDEN / f"lif_{library}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(path.name, record["version"], len(cases), "cases")


def choose(run: Run, weights: np.ndarray, gain: float, dyadic: bool) -> np.ndarray:
    """Currents that make the neuron fire; random ones of the first seed that keeps the margin."""
    shape = NUM_STEPS, NUM_NEURONS
    for seed in range(1000):
        random = np.random.default_rng(seed)
        if dyadic:
            currents = random.integers(-2, 7, shape) / (4 * gain)
            currents[0] = THRESHOLD / gain  # a tie for every neuron; later ones are left to chance
            return currents.astype(np.float32)
        currents = (random.normal(0.35, 0.5, shape) / gain).round(4).astype(np.float32)
        # A membrane that hardly passed the threshold has been reset, but its spike then follows
        # from the current before it; moving every current a little finds those as well.
        nearby = [currents * (1 + change) for change in (-MARGIN / 4, MARGIN / 4)]
        spikes, membranes, _ = run(currents, weights)
        same = all(np.array_equal(run(other, weights)[0], spikes) for other in nearby)
        if same and np.abs(membranes - THRESHOLD).min() > MARGIN:
            return currents
    raise RuntimeError("make_golden: no seed keeps the membranes off the threshold")


def rows(array: np.ndarray) -> list[str]:
    """One string per time step, each number as short as its dtype allows."""
    return [" ".join(map(str, step)) for step in array]


def through_torch(make: Callable[[], Callable]) -> Run:
    """``make()`` returns ``step(state or None, current) -> (state, spikes, membrane)``."""

    def run(currents: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        step = make()
        inputs = torch.from_numpy(currents).requires_grad_()
        state, spikes, membranes = None, [], []
        for current in inputs:
            state, fired, membrane = step(state, current)
            spikes.append(fired)
            membranes.append(membrane)
        spikes, membranes = torch.stack(spikes), torch.stack(membranes)
        (spikes * torch.from_numpy(weights)).sum().backward()
        return spikes.detach().numpy(), membranes.detach().numpy(), inputs.grad.numpy()

    return run


def snntorch_leaky(**options) -> Run:
    from snntorch import Leaky

    def make() -> Callable:
        neuron = Leaky(threshold=THRESHOLD, **options)

        def step(state, current):
            spikes, membrane = neuron(current, neuron.reset_mem() if state is None else state)
            return membrane, spikes, membrane

        return step

    return through_torch(make)


def spikingjelly_lif(**options) -> Run:
    from spikingjelly.activation_based.neuron import LIFNode

    def make() -> Callable:
        neuron = LIFNode(v_threshold=THRESHOLD, **options)

        def step(state, current):
            spikes = neuron(current)
            return neuron, spikes, neuron.v

        return step

    return through_torch(make)


def norse_lif_box(dt: float, tau_mem_inv: float) -> Run:
    from norse.torch import LIFBoxCell, LIFBoxParameters

    def make() -> Callable:
        neuron = LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.as_tensor(tau_mem_inv)), dt=dt)

        def step(state, current):
            spikes, state = neuron(current, state)
            return state, spikes, state.v

        return step

    return through_torch(make)


def spyx_lif(beta: float) -> Run:
    from spyx.nn import LIF

    def run(currents: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        neuron = LIF((NUM_NEURONS,), beta=beta, threshold=THRESHOLD, rngs=nnx.Rngs(0))

        def objective(currents):
            v, spikes, membranes = neuron.initial_state(1), [], []
            for current in currents:
                fired, v = neuron(current[None], v)
                spikes.append(fired[0])
                membranes.append(v[0])
            spikes = jnp.stack(spikes)
            return (spikes * weights).sum(), (spikes, jnp.stack(membranes))

        gradient, traces = jax.grad(objective, has_aux=True)(jnp.asarray(currents))
        return *map(np.asarray, traces), np.asarray(gradient)

    return run


# Per case: our preset and what it overrides; the input gain, by which currents are divided.
CASES = {
    "snntorch": [
        ("snntorch", snntorch_leaky(beta=0.9), {}, 1.0, False),
        ("snntorch", snntorch_leaky(beta=0.5), {"decay": 0.5}, 1.0, True),
        ("snntorch", snntorch_leaky(beta=0.9, reset_mechanism="zero"), {"reset": "zero"}, 1.0,
         False),
        ("snntorch", snntorch_leaky(beta=0.5, reset_mechanism="zero"),
         {"decay": 0.5, "reset": "zero"}, 1.0, True),
    ],
    "spikingjelly": [
        ("spikingjelly", spikingjelly_lif(tau=4.0), {"decay": 0.75}, 0.25, False),
        ("spikingjelly", spikingjelly_lif(), {}, 0.5, True),
        ("spikingjelly", spikingjelly_lif(tau=4.0, decay_input=False),
         {"decay": 0.75, "input_gain": 1.0}, 1.0, False),
        ("spikingjelly", spikingjelly_lif(decay_input=False), {"input_gain": 1.0}, 1.0, True),
    ],
    "norse": [
        ("norse_box", norse_lif_box(dt=0.001, tau_mem_inv=100.0), {}, 0.1, False),
        ("norse_box", norse_lif_box(dt=0.5, tau_mem_inv=1.0), {"decay": 0.5}, 0.5, True),
    ],
    "spyx": [
        ("spyx", spyx_lif(beta=0.9), {"decay": 0.9}, 1.0, False),
        ("spyx", spyx_lif(beta=0.5), {}, 1.0, True),
    ],
}

if __name__ == "__main__":
    main()

"""The LIF presets against what the libraries they are named after did (benchmarks/make_golden.py).

The files also hold the libraries' versions; no other library is needed to run this.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastsnn_jax.neurons import lif_preset
from fastsnn_jax.unroll import unroll

FILES = sorted(Path(__file__).with_name("golden").glob("lif_*.json"))
RECORDS = [json.loads(path.read_text()) for path in FILES]
CASES = [
    pytest.param(
        case, record["weights"],
        id="-".join([record["library"], case["kind"], *map(str, case["overrides"].values())]),
    )
    for record in RECORDS for case in record["cases"]
]
DYADIC = [case for case in CASES if case.values[0]["kind"] == "dyadic"]


def array(rows):
    return np.array([row.split() for row in rows], np.float32)


def preset(case):
    return lif_preset(case["preset"], **case["overrides"])


def spikes_of(neuron, currents):
    """Runs neurons [N] as a batch of one."""
    return neuron.unroll({}, neuron.rest((1, currents.shape[1])), currents[:, None])[1][:, 0]


def test_every_library_with_a_preset_is_recorded():
    presets = {case["preset"] for record in RECORDS for case in record["cases"]}
    assert presets == {"snntorch", "spikingjelly", "norse_box", "spyx"}
    assert len(CASES) == 12


@pytest.mark.parametrize("case, weights", CASES)
def test_spikes_are_those_of_the_library(case, weights):
    expected = array(case["spikes"])
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(spikes_of(preset(case), array(case["currents"])), expected)


@pytest.mark.parametrize("case, weights", CASES)
def test_membranes_are_those_of_the_library(case, weights):
    neuron = preset(case)

    def step(params, state, current):
        state, _ = neuron.step(params, state, current)
        return state, state.v

    currents = array(case["currents"])
    _, membranes = unroll(step, {}, neuron.rest(currents.shape[1:]), currents)
    tolerance = 0.0 if case["kind"] == "dyadic" else 1e-6
    np.testing.assert_allclose(membranes, array(case["membranes"]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("case, weights", CASES)
def test_gradients_are_those_of_the_library(case, weights):
    neuron, weights = preset(case), array(weights)
    gradient = jax.grad(lambda currents: (weights * spikes_of(neuron, currents)).sum())(
        jnp.asarray(array(case["currents"]))
    )
    expected = array(case["gradient"])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case, weights", DYADIC)
def test_the_dyadic_case_tells_apart_what_happens_at_threshold(case, weights):
    neuron = preset(case)
    other = {"fire": "hold", "hold": "fire"}[neuron.surrogate.ties]
    flipped = dataclasses.replace(
        neuron, surrogate=dataclasses.replace(neuron.surrogate, ties=other)
    )
    spikes = spikes_of(flipped, array(case["currents"]))
    assert (np.asarray(spikes) != array(case["spikes"])).sum() >= 3

"""What one step of a neuron costs: elementary operations and state variables."""

from collections import Counter
from functools import singledispatch
from typing import Any

import jax

from fastsnn_jax._checks import fail
from fastsnn_jax.energy.layer_counts import Operations
from fastsnn_jax.neurons import LIF, AdaptiveLIF, CurrentLIF, LeakyIntegrator


def update_ops(neuron: Any) -> Operations:
    """Operations of one clock-driven update of one neuron, by class, ascending.

    Read off the neuron's own equations: "mul" and "add" of its leak and input, "compare" with the
    threshold, "reset" (a subtraction or a clearing, taken or not). A factor that is 1 costs
    nothing. The addition of the synaptic current is one "add", however many spikes made it.

    Raises ValueError for a neuron whose work is not known, or does not end at the neuron.

    >>> from fastsnn_jax.neurons import lif
    >>> update_ops(lif())
    (('add', 1), ('compare', 1), ('mul', 1), ('reset', 1))
    """
    return tuple(sorted((name, number) for name, number in _work(neuron).items() if number))


def state_words(neuron: Any) -> int:
    """State variables that one neuron keeps from step to step.

    >>> from fastsnn_jax.neurons import current_lif
    >>> state_words(current_lif())
    2
    """
    return len(jax.tree.leaves(jax.eval_shape(lambda: neuron.rest((1, 1)))))


@singledispatch
def _work(neuron: Any) -> Counter:
    raise fail(
        "update_ops",
        "neuron must be a lif, current_lif, adaptive_lif or leaky_integrator", repr(neuron),
        "count the whole network with energy.count",
    )


@_work.register
def _(neuron: LIF) -> Counter:
    ops = _leak(neuron, "decay") + Counter(add=1, compare=1)
    return ops + Counter(reset=int(neuron.reset != "none"))


@_work.register
def _(neuron: LeakyIntegrator) -> Counter:
    return _leak(neuron, "decay") + Counter(add=1)


@_work.register
def _(neuron: CurrentLIF) -> Counter:
    decays = neuron.synapse_decay != 1 or bool(neuron.learn)
    return _work(neuron.membrane) + Counter(add=1, mul=int(decays))


@_work.register
def _(neuron: AdaptiveLIF) -> Counter:
    threshold = Counter(mul=1, add=1)  # threshold + adaptation * a
    adaptation = Counter(mul=1, add=1)  # decay * a, and a constant where there was a spike
    return _work(neuron.membrane) + threshold + adaptation


def _leak(neuron: Any, name: str) -> Counter:
    decays = getattr(neuron, name) != 1 or name in neuron.learn
    return Counter(mul=int(decays) + int(neuron.input_gain != 1))

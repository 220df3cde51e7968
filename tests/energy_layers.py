"""Layers and devices that the tests of energy share, small and by hand."""

import dataclasses

from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.profiles import Profile, load_profile

LIF = (("add", 1), ("compare", 1), ("mul", 1), ("reset", 1))


def layer(inputs, outputs, steps, spikes, samples=1, **changes):
    """A dense binary layer of lif neurons."""
    updates = samples * steps * outputs
    return dataclasses.replace(LayerCounts(
        kind="synapse", drive="spikes", coding="binary", samples=samples, num_steps=steps,
        inputs=inputs, outputs=outputs, weights=inputs * outputs, connections=inputs * outputs,
        active=spikes, events=spikes, saturated=0, ac=spikes * outputs, mac=0, product=0,
        bias_add=0, updates=updates, update_ops=LIF, elementwise=(), state_words=1, emitted=0,
        activation_words=0, kv_words=0,
    ), **changes)


def notebook():
    """784-400-10, T = 50; 784 * 0.1307 * 0.08 * 50 = 409.875 input and 1000 hidden spikes."""
    return {"dense0": layer(784, 400, 50, 8 * 409 + 7, samples=8),
            "dense1": layer(400, 10, 50, 8 * 1000, samples=8)}


def device(**changes):
    """horowitz45 with fields replaced."""
    return Profile.from_json({**load_profile("horowitz45").fields, **changes})


def exactly(pj):
    return {"low": pj, "nominal": pj, "high": pj, "source": "by hand", "table": "none",
            "basis": "derived", "date": "2020"}

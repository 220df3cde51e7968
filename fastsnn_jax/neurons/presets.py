"""LIF neurons as other libraries define them: values, ties and gradients.

============  ====================  ========  ===============================  ==================
preset        update                fires at  reset, its gradient              surrogate
============  ====================  ========  ===============================  ==================
notebook      v = 0.9 v + x         v >= 1    zero, detached                   constant slope 0.3
snntorch      v = 0.9 v + x         v > 1     subtract, a step late, detached  arctan 2
spikingjelly  v = v + (x - v) / 2   v >= 1    zero, attached                   logistic 4
norse_box     v = v + (x - v) / 10  v > 1     zero, attached                   superspike 1
spyx          v = 0.5 v + x         v > 1     subtract, output late, attached  superspike 25
============  ====================  ========  ===============================  ==================

With the reset attached the notebook's unbounded slope makes the gradient overflow within fifty
updates of its own recipe; detached it learns as published.

Sources: the MNIST notebook whose training this package reproduces; snnTorch
``_neurons/leaky.py``; SpikingJelly ``activation_based/neuron/lif.py``; norse
``functional/lif_box.py``; spyx ``nn.py``. snnTorch has no default decay, 0.9 is customary; spyx
draws one per neuron around 0.5 and learns it, as ``learn=("decay",)`` does from a single value.
norse 1.1.0 documents a slope of 100 and leaves it out of its backward pass, which counts here.
"""

from typing import Any

from fastsnn_jax import surrogate
from fastsnn_jax._checks import check_choice
from fastsnn_jax.neurons.lif import LIF, lif


def lif_preset(name: str, **overrides: Any) -> LIF:
    """Returns the LIF of another library, with any argument of ``lif`` overridden.

    Variants within a library are overrides: SpikingJelly's soft reset without input decay is
    ``lif_preset("spikingjelly", reset="subtract", input_gain=1.0)``, snnTorch's immediate reset
    ``lif_preset("snntorch", reset_delay=False, detach_reset=False)`` (snnTorch differs from it only
    where a membrane stays above threshold after its reset).

    Args:
      name: "notebook", "snntorch", "spikingjelly", "norse_box" or "spyx".
      **overrides: arguments of ``lif``, for example ``decay`` or ``threshold``.

    Raises:
      ValueError: for an unknown name, or as ``lif`` does.
      TypeError: for an argument ``lif`` does not have.

    >>> lif_preset("snntorch", decay=0.5).reset_delay
    True
    """
    check_choice("lif_preset", "name", name, tuple(_PRESETS))
    return lif(**{**_PRESETS[name], **overrides})


_PRESETS: dict[str, dict[str, Any]] = {
    "notebook": {
        "decay": 0.9,
        "reset": "zero",
        "detach_reset": True,
        "surrogate": surrogate.straight_through(0.3),
    },
    "snntorch": {
        "decay": 0.9,
        "reset_delay": True,
        "detach_reset": True,
        "surrogate": surrogate.arctan(2.0, ties="hold"),
    },
    "spikingjelly": {
        "decay": 0.5,
        "input_gain": "1-decay",
        "reset": "zero",
        "surrogate": surrogate.sigmoid(4.0),
    },
    "norse_box": {
        "decay": 0.9,
        "input_gain": "1-decay",
        "reset": "zero",
        "surrogate": surrogate.superspike(1.0, ties="hold"),
    },
    "spyx": {
        "decay": 0.5,
        "reset_delay": True,
        "output_delay": True,
        "surrogate": surrogate.superspike(25.0, ties="hold"),
    },
}

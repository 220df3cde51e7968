"""What a language model did with some text, for pictures and SpikeScope."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._typing import Float, Int, Params
from fastsnn_jax.data import Tokenizer
from fastsnn_jax.models import LanguageModel
from fastsnn_jax.nn import Coding
from fastsnn_jax.scope.studio.trace_file import (
    MAX_LAYERS,
    MAX_LETTERS,
    MAX_NEURONS,
    MAX_STEPS,
)


class Read(NamedTuple):
    """Some texts, and what every layer made of them; nothing of a model without spikes.

    Attributes:
      tokens: the texts.
      counts: spike counts of every coding in the network, by layer.
      bit_planes: spikes that arrive at each synapse, by key of ``activity``, as the energy report
        counts them.
    """

    tokens: Int[np.ndarray, "B L"]
    counts: dict[str, list[Float[np.ndarray, "B L D"]]]
    bit_planes: dict[str, Int[np.ndarray, "B L"]]


def read_text(model: LanguageModel, params: Params, tokens: Int[np.ndarray, "B L"]) -> Read:
    """Runs the model on ``tokens`` and listens to its codings."""
    if not model.config.spiking:
        return Read(tokens, {}, {})

    @jax.jit
    def listen(params: Params, tokens: Any) -> Any:
        (_, activity), state = model.apply(
            params, tokens, mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                isinstance(module, Coding) and module.neuron is not None
            ),
        )
        counts = {
            name: [coded.astype(jnp.float32) for coded in _coded(layer)]
            for name, layer in state["intermediates"].items()
        }
        return counts, {key: count.bit_plane for key, count in activity.items()}

    counts, planes = jax.device_get(listen(params, tokens))
    keys = [key for group in model.input_groups() for key in group]  # in order, as jit's are not
    return Read(tokens, counts, {key: planes[key] for key in keys})


def text_traces(read: Read, tokenizer: Tokenizer) -> dict[str, Any]:
    """Traces of the first text, as in ``scope.save_traces``.

    A row of a raster is a channel of the layer's first coding and shows the size of its counts; the
    steps are tokens.
    """
    tokens = read.tokens[0, :MAX_STEPS]
    traces: dict[str, Any] = {"tokens": [_shown(tokenizer, token) for token in tokens]}
    layers = {
        name: np.abs(np.concatenate([counts[0] for counts in coded], axis=-1))[:MAX_STEPS]
        for name, coded in list(read.counts.items())[:MAX_LAYERS]
    }
    if not layers:
        return traces
    return traces | {
        "raster": {name: sizes[:, :MAX_NEURONS].astype(np.uint8) for name, sizes in layers.items()},
        "rates": {name: sizes.mean(0) for name, sizes in layers.items()},
        "token_spikes": {
            key: planes[0, :MAX_STEPS]
            for key, planes in list(read.bit_planes.items())[:MAX_LAYERS]
        },
    }


def _coded(node: Any) -> list[Any]:
    """Counts of the captured codings below a node of nested dicts."""
    if not isinstance(node, Mapping):
        return [coded.spikes.data for coded in node]
    return [counts for _, child in sorted(node.items()) for counts in _coded(child)]


def _shown(tokenizer: Tokenizer, token: int) -> str:
    known = min(int(token), tokenizer.vocab_size - 1)
    return tokenizer.decode(np.array([known]))[:MAX_LETTERS]

"""What a language model did with one stretch of text, for pictures and SpikeScope."""

from typing import Any

import jax
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


def layer_counts(
    model: LanguageModel, params: Params, tokens: Int[np.ndarray, "B L"]
) -> dict[str, list[Float[np.ndarray, "B L D"]]]:
    """Spike counts of every coding in the network, by layer."""

    @jax.jit
    def captured(params: Params, tokens: Any) -> Any:
        _, state = model.apply(
            params, tokens, mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                isinstance(module, Coding) and module.neuron is not None
            ),
        )
        layers = sorted(state["intermediates"].items())
        return {name: _coded(layer) for name, layer in layers}

    return {
        name: [np.asarray(counts, np.float32) for counts in layer]
        for name, layer in captured(params, tokens).items()
    }


def text_traces(
    model: LanguageModel, params: Params, tokenizer: Tokenizer, tokens: Int[np.ndarray, " L"]
) -> dict[str, Any]:
    """Traces of one text, as in ``scope.save_traces``; of a model without spikes its tokens.

    A raster row is a channel of the layer's first coding and shows the size of its counts; the
    steps are tokens. ``token_spikes`` are bit planes, as the energy report counts them.
    """
    tokens = tokens[: MAX_STEPS]
    traces: dict[str, Any] = {"tokens": [_shown(tokenizer, token) for token in tokens]}
    if not model.config.spiking:
        return traces
    activity = jax.jit(lambda p, t: model.apply(p, t)[1])(params, tokens[None])
    layers = {
        name: np.abs(np.concatenate([counts[0] for counts in coded], axis=-1))
        for name, coded in layer_counts(model, params, tokens[None]).items()
    }
    keys = [key for group in model.input_groups() for key in group][: MAX_LAYERS]
    shown = list(layers)[: MAX_LAYERS]
    return traces | {
        "raster": {name: layers[name][:, : MAX_NEURONS].astype(np.uint8) for name in shown},
        "rates": {name: layers[name].mean(0) for name in shown},
        "token_spikes": {key: np.asarray(activity[key].bit_plane[0]) for key in keys},
    }


def _coded(node: Any) -> list[Any]:
    """Counts of the captured codings below a node of nested dicts."""
    if not isinstance(node, dict):
        return [coded.spikes.data for coded in node]
    return [counts for _, child in sorted(node.items()) for counts in _coded(child)]


def _shown(tokenizer: Tokenizer, token: int) -> str:
    known = min(int(token), tokenizer.vocab_size - 1)
    return tokenizer.decode(np.array([known]))[: MAX_LETTERS]

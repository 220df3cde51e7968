"""What a language model did with some text, for pictures and SpikeScope."""

from typing import Any, NamedTuple

import jax
import numpy as np

from fastsnn_jax._typing import Int, Params
from fastsnn_jax.data import Tokenizer
from fastsnn_jax.models import LanguageModel
from fastsnn_jax.nn.projection import Heard, hear_codings
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
      codings: every coding of every layer, in order.
      bit_planes: spikes that arrive at each synapse, by key of ``activity``, as the energy report
        counts them.
      first_spike: potential from which on there is a spike, in units of the threshold.
    """

    tokens: Int[np.ndarray, "B L"]
    codings: dict[str, list[Heard]]
    bit_planes: dict[str, Int[np.ndarray, "B L"]]
    first_spike: float = 0.5


def read_text(model: LanguageModel, params: Params, tokens: Int[np.ndarray, "B L"]) -> Read:
    """Runs the model on ``tokens`` and listens to its codings."""
    if not model.config.spiking:
        return Read(tokens, {}, {})

    @jax.jit
    def listen(params: Params, tokens: Any) -> Any:
        (_, activity), heard = hear_codings(model.apply, params, tokens)
        return heard, {key: count.bit_plane for key, count in activity.items()}

    heard, planes = jax.device_get(listen(params, tokens))
    keys = [key for group in model.input_groups() for key in group]  # in order, as jit's are not
    layers = dict.fromkeys([*(key.partition("/")[0] for key in keys), *heard])
    return Read(
        tokens, {layer: heard[layer] for layer in layers if layer in heard},
        {key: planes[key] for key in keys},
        first_spike=0.5 if model.blocks[0].neuron.rounding == "nearest" else 1.0,
    )


def text_traces(read: Read, tokenizer: Tokenizer) -> dict[str, Any]:
    """Traces of the first text, as in ``scope.save_traces``.

    A row of a raster is a channel of the layer's first coding and shows the size of its counts; the
    steps are tokens. A membrane is what was rounded to that count, in units of the token's
    threshold.
    """
    tokens = read.tokens[0, :MAX_STEPS]
    traces: dict[str, Any] = {"tokens": [_shown(tokenizer, token) for token in tokens]}
    layers = dict(list(read.codings.items())[:MAX_LAYERS])
    if not layers:
        return traces
    sizes = {name: np.abs(np.concatenate([each.counts[0] for each in codings], axis=-1))[:MAX_STEPS]
             for name, codings in layers.items()}
    return traces | {
        "raster": {name: counts[:, :MAX_NEURONS].astype(np.uint8)
                   for name, counts in sizes.items()},
        "membrane": {name: codings[0].potential[0, :MAX_STEPS, :MAX_NEURONS]
                     for name, codings in layers.items()},
        "threshold": dict.fromkeys(layers, read.first_spike),
        "rates": {name: counts.mean(0) for name, counts in sizes.items()},
        "token_spikes": {
            key: planes[0, :MAX_STEPS]
            for key, planes in list(read.bit_planes.items())[:MAX_LAYERS]
        },
    }


def _shown(tokenizer: Tokenizer, token: int) -> str:
    known = min(int(token), tokenizer.vocab_size - 1)
    return tokenizer.decode(np.array([known]))[:MAX_LETTERS]

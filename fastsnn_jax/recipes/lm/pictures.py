"""Pictures of a language-model run, drawn from its record and one window of held-out text."""

from pathlib import Path
from typing import Any

import numpy as np

from fastsnn_jax import scope
from fastsnn_jax._typing import Int, Params
from fastsnn_jax.data import Tokenizer
from fastsnn_jax.models import LanguageModel
from fastsnn_jax.recipes.lm.network import largest_count
from fastsnn_jax.recipes.lm.traces import read_text, text_traces
from fastsnn_jax.recipes.scope_page import write_scope


def draw_all(
    directory: Path, record: dict[str, Any], twin_history: dict[str, Any] | None,
    model: LanguageModel, params: Params, tokenizer: Tokenizer, tokens: Int[np.ndarray, "B L"],
) -> None:
    """Writes the losses, the page and, of a spiking model, spike rates and counts.

    Where there was a teacher, its loss is drawn as a level.

    Args:
      twin_history: losses of the twin without spikes, as the record's own.
      tokens: held-out text whose spike counts are drawn; the page shows its first row.
    """
    history, read = record["training_history"], read_text(model, params, tokens)
    teacher = record.get("distillation", {}).get("teacher_val_loss")
    figures = {"losses": scope.loss_curves(history, twin=twin_history, teacher=teacher)}
    if record["spikes"] is not None:
        figures["spike_rates"] = scope.spike_rates(history["steps"], history["spikes_per_channel"])
        figures["counts"] = scope.count_histogram(
            {name: np.concatenate([np.ravel(each.counts) for each in codings])
             for name, codings in read.codings.items()},
            limit=largest_count(model),
        )
    for name, figure in figures.items():
        scope.save(figure, directory / f"{name}.png")
    write_scope(directory, record, text_traces(read, tokenizer))

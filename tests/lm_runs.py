"""Small runs of the language-model recipe that several test files look at."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.data import char_tokenizer, windows
from fastsnn_jax.recipes import lm
from fastsnn_jax.recipes.lm import pipeline, preset, training
from fastsnn_jax.record import load_record
from fastsnn_jax.train.chunk import Pace

WORDS = "To be, or not to be: that is the question. "
TEXT = "".join(WORDS[i % 7:] for i in range(24))
LETTERS, HELD_OUT = len(set(TEXT)), len(TEXT) - len(TEXT) * 9 // 10
CONTEXT, STEPS, EVALUATIONS = 16, 6, 3


def config_of(folder, **fields):
    """Six steps of the smoke preset on a text of our own, in characters."""
    path = folder / "hamlet.txt"
    path.write_text(TEXT)
    return preset("smoke", **{
        "corpus": str(path), "tokenizer": "char", "context": CONTEXT, "steps": STEPS, **fields,
    })


def run(config, out, pictures=False, **options):
    """A run of three evaluations, one step a dispatch; pictures cost more than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "EVALUATIONS", EVALUATIONS)
        patch.setattr(Pace, "length", lambda pace, remaining: 1)
        if not pictures:
            patch.setattr(pipeline, "draw_all", lambda *_: [])
        return lm.run(config, out, **options)


class Finished:
    """A finished run: its configuration, directory, record and what it said."""

    def __init__(self, folder, **fields):
        self.config = config_of(folder, **fields)
        self.directory, self.said = folder / "run", []
        self.record = run(self.config, self.directory, pictures=True, say=self.said.append)


def outcome(out, *others):
    """Everything of a finished run that must not depend on when it was interrupted.

    ``others`` are directories in it with checkpoints of their own.
    """
    record = load_record(out)
    parts = ("training_history", "evaluation", "twin", "spikes", "activity", "sample")
    items = [Checkpoints(path / "checkpoints").restore().items
             for path in (out, *(out / name for name in others))]
    return {name: record[name] for name in parts}, {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(items)
    }


def held_out_windows():
    """Windows of the held-out text [n, CONTEXT + 1], and which targets are not padding."""
    return windows(char_tokenizer(TEXT).encode(TEXT[-HELD_OUT:]), CONTEXT)


def loss_by_hand(logits, tokens, known):
    """Mean cross-entropy of the known targets, in float64."""
    logits = np.asarray(logits, np.float64)
    logits -= logits.max(-1, keepdims=True)
    chance = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(chance, tokens[:, 1:, None], -1)[..., 0][known].mean()


class Examined(NamedTuple):
    """What the model of a loaded run answers to the held-out windows, and what it codes."""

    logits: np.ndarray
    activity: dict
    counts: list  # of each coding [known tokens, channels]

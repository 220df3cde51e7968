"""A network, a language model, their counts and traces, and a page as a browser would read it."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np

from fastsnn_jax import scope
from fastsnn_jax.energy.layer_counts import LayerCounts

T, SAMPLES = 50, 4
EVIL = "</script><b>&amp;\u2028"
LIF = (("add", 1), ("compare", 1), ("mul", 1), ("reset", 1))
EMPTY = {field.name: 0 for field in dataclasses.fields(LayerCounts)} | {
    "kind": "synapse", "drive": "spikes", "coding": "binary", "samples": SAMPLES, "num_steps": T,
    "update_ops": (), "elementwise": (),
}


def layer(**fields):
    return LayerCounts(**EMPTY | fields)


def dense(inputs, outputs, spikes, **fields):
    """A dense layer with biases and LIF neurons, ``spikes`` of which arrive in all."""
    updates = SAMPLES * fields.get("num_steps", T) * outputs
    return layer(**{
        "inputs": inputs, "outputs": outputs, "weights": inputs * outputs,
        "connections": inputs * outputs, "active": spikes, "events": spikes,
        "ac": spikes * outputs, "bias_add": updates, "updates": updates, "update_ops": LIF,
        "state_words": 1, "emitted": 7,
    } | fields)


COUNTS = {"dense0/kernel": dense(784, 400, 1_640), "dense1/kernel": dense(400, 10, 1_000)}
TOKEN = {"coding": "bitwise", "num_steps": 1, "updates": 0, "update_ops": (), "bias_add": 0}
LM_COUNTS = {
    "block_0/q": dense(4, 6, 24, **TOKEN), "block_0/k": dense(4, 3, 24, **TOKEN),
    "block_0/up": dense(12, 5, 40, **TOKEN),
    "attention": layer(kind="other", drive="analog", coding="none", num_steps=1, product=90,
                       kv_words=30, elementwise=(("exp", 5), ("add", 8))),
}
SPIKES = (np.arange(T * 6).reshape(T, 6) % 7 == 0).astype(np.uint8)
TRACES = {
    "raster": {"input": SPIKES, EVIL: SPIKES[:, :5]},
    "membrane": {EVIL: np.linspace(-1, 2, T * 3).reshape(T, 3)}, "threshold": {EVIL: 1.0},
    "rates": {"hidden": np.array([0, 0, 1 / 4, 3 / 8, 1.0])},
    "drift": {"hidden decay": [0.9, 0.95]},
}
TEXT = {
    "tokens": ["a", "\n", EVIL],
    "token_spikes": {"block_0/q": [8, 4, 12], "block_0/k": [8, 4, 12], "block_0/up": [6, 0, 24]},
}
RUNS = [("others", 91.5, 2e5), scope.RunPoint("thrifty", 80.0, None, 3e4)]


class Page(HTMLParser):
    """What a browser would find: elements, attributes, the text of scripts; tags must balance."""

    VOID = ("meta", "input", "br")

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.data = json.loads(next(text for text, kind in self.texts.values() if kind))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("script", "style"):
            index = len(self.elements)
            before = self.texts.get(index, ("", None))[0]
            self.texts[index] = (before + text, self.elements[-1][1].get("type"))

    def parts(self):
        """{key: HTML} of the sections."""
        found = re.findall(r'<section [^>]*id="(\w+)".*?</section>', self.source, re.DOTALL)
        bodies = re.findall(r"<section .*?</section>", self.source, re.DOTALL)
        return dict(zip(found, bodies, strict=True))

"""What a language-model run is made of, and the presets that fill it in."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax.config import SNNConfig, check_fields

EVALUATIONS = 10  # of the held-out text while training, in runs above 100 steps
TOKENIZERS = ("auto", "char", "byte")


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """Everything that decides the result of a run. Values are validated on creation.

    Attributes:
      preset: whose sizes and budget these are.
      corpus: "auto" (tiny Shakespeare where there is one, else the standard library's sources),
        "tiny_shakespeare", "stdlib" or the path of a text file.
      tokenizer: "char", "byte", or "auto": characters for tiny Shakespeare, else bytes.
      model: sizes and kinds; its own ``vocab_size`` is not used.
      vocab_size: of the model; None takes the tokenizer's.
      context: L, tokens per training window.
      batch_size, accumulate: windows per update, and the parts they are computed in.
      steps: updates.
      learning_rate, weight_decay, beta2, clip_norm: of AdamW, with cosine decay to a tenth.
      warmup: share of the steps that warms up before it.
      ema_decay: of the average of the parameters that is evaluated and kept; None keeps none.
      spike_weight: price of a spike, as a loss per mean ``log2(1 + |count|)`` of a channel.
      energy_weight: price of a synaptic operation, as a loss per spike per synapse of the network.
      compare_ann: trains the twin without spikes as well, with the same recipe.
      generate: prompt of the sample in the record; None takes the start of the held-out text.
      sample_tokens: length of that sample.
      seed: of everything random.
    """

    preset: str = "default"
    corpus: str = "auto"
    tokenizer: str = "auto"
    model: SNNConfig = SNNConfig()
    vocab_size: int | None = None
    context: int = 64
    batch_size: int = 12
    accumulate: int = 1
    steps: int = 2000
    learning_rate: float = 3e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    beta2: float = 0.99
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    spike_weight: float = 0.0
    energy_weight: float = 0.0
    compare_ann: bool = False
    generate: str | None = None
    sample_tokens: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        where = "LMConfig"
        check_choice(where, "preset", self.preset, tuple(PRESETS))
        check_choice(where, "tokenizer", self.tokenizer, TOKENIZERS)
        if not isinstance(self.model, SNNConfig):
            raise TypeError(f"{where}: model must be an SNNConfig, got {self.model!r}")
        for name in ("context", "batch_size", "accumulate", "steps", "sample_tokens"):
            check_count(where, name, getattr(self, name))
        if self.vocab_size is not None:
            check_count(where, "vocab_size", self.vocab_size)
        check(self.batch_size % self.accumulate == 0, where,
              f"batch_size must be a multiple of accumulate {self.accumulate}", self.batch_size)
        check_number(where, "warmup", self.warmup, at_least=0, at_most=0.99)
        check_count(where, "seed", self.seed, at_least=0)
        check(self.steps <= 100 or self.steps % EVALUATIONS == 0, where,
              f"steps above 100 must be a multiple of {EVALUATIONS}, the evaluations on the way",
              self.steps)
        for name in ("steps", "seed"):
            check(getattr(self, name) < 2**31, where, f"{name} must be < 2**31",
                  getattr(self, name))
        check_number(where, "learning_rate", self.learning_rate, above=0, at_most=1e3)
        check_number(where, "weight_decay", self.weight_decay, at_least=0, at_most=1e3)
        check_number(where, "beta2", self.beta2, above=0, at_most=1 - 1e-6)
        for name in ("spike_weight", "energy_weight"):
            check_number(where, name, getattr(self, name), at_least=0, at_most=1e6)
            check(self.model.spiking or not getattr(self, name), where,
                  f"{name} must be 0 for a model without spikes", getattr(self, name))
        for name in ("clip_norm", "ema_decay"):
            if getattr(self, name) is not None:
                check_number(where, name, getattr(self, name), above=0,
                             at_most=1e6 if name == "clip_norm" else 1 - 1e-6)
        for name in ("corpus", "generate"):
            value = getattr(self, name)
            if not (isinstance(value, str) or name == "generate" and value is None):
                raise TypeError(f"{where}: {name} must be text, got {value!r}")
        if not isinstance(self.compare_ann, bool):
            raise TypeError(f"{where}: compare_ann must be true or false, got {self.compare_ann!r}")

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return int(self.warmup * self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain dict; ``LMConfig.from_json`` gives the configuration back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"model": self.model.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "LMConfig":
        """Configuration of the given fields, the others at their defaults.

        Raises:
          ValueError, TypeError: unknown field, or a value that is not allowed.
        """
        check_fields(cls, fields)
        values: dict[str, Any] = {**fields, "model": SNNConfig.from_json(fields.get("model", {}))}
        return cls(**values)


def preset(name: str = "default", /, **overrides: Any) -> LMConfig:
    """Configuration of a preset with fields replaced; ``model`` may be a part of its fields.

    "default": a small hybrid, minutes on two cores. "nanogpt-cpu", "nanogpt-gpu": the sizes and
    budgets of nanoGPT's two settings on tiny Shakespeare (github.com/karpathy/nanoGPT, README).
    "smoke": seconds, to see that everything runs.

    Raises:
      ValueError, TypeError: unknown preset or field, or a value that is not allowed.

    >>> preset("nanogpt-cpu", steps=10).model.d_model
    128
    """
    check_choice("preset", "preset", name, tuple(PRESETS))
    model = overrides.get("model", {})
    if isinstance(model, SNNConfig):
        model = model.to_json()
    if not isinstance(model, Mapping):
        raise TypeError(f"preset: model must be a mapping, got {model!r}")
    base = PRESETS[name]
    fields = {"preset": name, **base, **overrides, "model": {**base["model"], **model}}
    return LMConfig.from_json(fields)


_SMALL = {
    "d_model": 128, "n_heads": 4, "n_layers": 4, "d_ff": 344, "attn_kind": "interleaved",
    "window": 64, "gate": "decay", "feature_map": "relu", "normalizer": "rms", "ffn": "gated",
    "k": 2.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {"model": _SMALL},
    "smoke": {
        "model": {**_SMALL, "d_model": 32, "n_heads": 2, "n_layers": 2, "d_ff": 48, "window": 8},
        "context": 16, "batch_size": 4, "steps": 4, "sample_tokens": 16,
    },
    "nanogpt-cpu": {"model": _SMALL, "corpus": "tiny_shakespeare"},
    "nanogpt-gpu": {
        "model": {**_SMALL, "d_model": 384, "n_heads": 6, "n_layers": 6, "d_ff": 1024,
                  "window": 256, "dropout": 0.2, "dtype": "bfloat16"},
        "corpus": "tiny_shakespeare", "context": 256, "batch_size": 64, "steps": 5000,
        "learning_rate": 1e-3,
    },
}

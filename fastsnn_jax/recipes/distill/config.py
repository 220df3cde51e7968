"""What a distillation run is made of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax.config import SNNConfig, check_fields
from fastsnn_jax.recipes.lm.config import LMConfig

ATTENTION = ("interleaved", "linear", "sliding", "softmax")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Everything that decides the result of a run. Values are validated on creation.

    Attributes:
      preset: whose sizes and budget these are, "default" or "smoke".
      teacher: directory of a published model, of one that ``save_pretrained`` wrote, or of a
        finished run of the language-model recipe; None trains a teacher first.
      model: the teacher that is trained here, without spikes and with softmax attention.
      teacher_steps: its updates.
      corpus: "auto", "tiny_shakespeare", "stdlib" or the path of a text file, in the tokens of
        the teacher.
      attn: attention of the student, that of the teacher or another in place of its softmax:
        "interleaved" (linear and sliding in turn), "linear" or "sliding".
      window: W, keys of sliding layers that take the place of softmax ones.
      spiking: whether the student's projections read spikes.
      k: mean spike count of a channel.
      temperature: T, at which the choices of the two are compared.
      mix: share of the teacher in the loss, against that of the text.
      context: L, tokens per training window.
      batch_size: windows per update.
      steps: updates of the student.
      learning_rate: peak of the student's schedule.
      sample_tokens: length of the text in the record.
      seed: of everything random.
    """

    preset: str = "default"
    teacher: str | None = None
    model: SNNConfig = SNNConfig(attn_kind="softmax", spiking=False)
    teacher_steps: int = 1000
    corpus: str = "auto"
    attn: str = "interleaved"
    window: int = 32
    spiking: bool = True
    k: float = 2.0
    temperature: float = 2.0
    mix: float = 0.5
    context: int = 64
    batch_size: int = 12
    steps: int = 500
    learning_rate: float = 2e-3
    sample_tokens: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        where = "DistillConfig"
        check_choice(where, "preset", self.preset, tuple(PRESETS))
        for name in ("teacher", "corpus"):
            value = getattr(self, name)
            if not (isinstance(value, str) or name == "teacher" and value is None):
                raise TypeError(f"{where}: {name} must be text, got {value!r}")
            check(value != "", where, f"{name} must not be empty", "''")
        if not isinstance(self.model, SNNConfig):
            raise TypeError(f"{where}: model must be an SNNConfig, got {self.model!r}")
        conventional = self.model.attn_kind == "softmax" and not self.model.spiking
        check(conventional, where, "model must have softmax attention and no spikes",
              f"{self.model.attn_kind!r} and spiking={self.model.spiking}")
        check_choice(where, "attn", self.attn, ATTENTION)
        check_count(where, "teacher_steps", self.teacher_steps)
        check_count(where, "window", self.window)
        if not isinstance(self.spiking, bool):
            raise TypeError(f"{where}: spiking must be true or false, got {self.spiking!r}")
        check_number(where, "k", self.k, above=0, at_most=1e6)
        check_number(where, "temperature", self.temperature, above=0, at_most=1e3)
        check_number(where, "mix", self.mix, at_least=0, at_most=1)
        self.teacher_run(), self.student_run(self.model)  # refuse what a training cannot be

    def teacher_run(self) -> LMConfig:
        """How a teacher is trained here, at the language-model recipe's own learning rate."""
        return self._training(self.model, steps=self.teacher_steps)

    def student_run(self, model: SNNConfig) -> LMConfig:
        """How the student, of configuration ``model``, is trained."""
        training = self._training(model, steps=self.steps)
        return dataclasses.replace(
            training, vocab_size=model.vocab_size, learning_rate=self.learning_rate
        )

    def _training(self, model: SNNConfig, steps: int) -> LMConfig:
        return LMConfig(
            preset=self.preset, corpus=self.corpus, model=model, context=self.context,
            batch_size=self.batch_size, steps=steps, sample_tokens=self.sample_tokens,
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dict; ``DistillConfig.from_json`` gives the configuration back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"model": self.model.to_json()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "DistillConfig":
        """Configuration of the given fields, the others at their defaults.

        Raises:
          ValueError, TypeError: unknown field, or a value that is not allowed.
        """
        check_fields(cls, fields)
        values = dict(fields)
        if "model" in values:
            values["model"] = SNNConfig.from_json(values["model"])
        return cls(**values)


def preset(name: str = "default", /, **overrides: Any) -> DistillConfig:
    """Configuration of a preset with fields replaced; ``model`` may be a part of its fields.

    Raises:
      ValueError, TypeError: unknown preset or field, or a value that is not allowed.

    >>> preset("smoke", attn="linear").steps
    2
    """
    check_choice("preset", "preset", name, tuple(PRESETS))
    model = overrides.get("model", {})
    if not isinstance(model, Mapping):
        raise TypeError(f"preset: model must be a mapping, got {model!r}")
    base = PRESETS[name]
    return DistillConfig.from_json(
        {"preset": name, **base, **overrides, "model": {**base["model"], **model}}
    )


_SMALL = {
    "d_model": 128, "n_heads": 4, "n_layers": 4, "d_ff": 344, "ffn": "gated",
    "attn_kind": "softmax", "spiking": False,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {"model": _SMALL},
    "smoke": {
        "model": {**_SMALL, "d_model": 32, "n_heads": 2, "n_layers": 2, "d_ff": 48}, "window": 8,
        "context": 16, "batch_size": 4, "steps": 2, "teacher_steps": 2, "sample_tokens": 16,
    },
}

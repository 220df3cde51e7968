"""What a conversion run is made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax.config import check_fields
from fastsnn_jax.conversion import METHODS
from fastsnn_jax.data.images import IMAGE_DATASETS

MODELS = ("mlp", "cnn")
BOTH = "both"
MAX_STEPS = 127  # of a spike train: counts of the adaptive threshold end there


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Everything that decides the result of a run. Values are validated on creation.

    Attributes:
      dataset: "auto" (MNIST where there is one, else digits), "mnist" or "digits".
      model: "mlp" (784-1280-10), "cnn" (three convolutions with BatchNorm and pooling), or
        "both", one run each.
      methods: of conversion, see ``fastsnn_jax.conversion``.
      num_steps: N, the time steps to convert for.
      calibration_samples: training images that set the thresholds.
      per_channel: a threshold for each channel of a layer, and not one for all of it.
      recalibrate: takes BatchNorm's statistics again over the spikes of the calibration images.
      dynamic_range: of "dynamic_mean", how many means of a token its N spikes reach to:
        ``k = N / dynamic_range``.
      epochs: passes over the training images; None takes as many as network and dataset need.
      batch_size, learning_rate: of Adam, with cosine decay.
      label_smoothing, ema_decay, shift, stretch: regularisation; see ``recipes.mnist``.
      fine_tune_steps: N of the network that is fine-tuned, by "qcfs".
      fine_tune_epochs, fine_tune_learning_rate: of the fine-tuning; no epochs, no fine-tuning. None
        takes the rate that suits the network.
      seed: of everything random.
      smoke: a few hundred images only, to see that everything runs.

    >>> ConvertConfig(num_steps=[2, 4]).num_steps
    (2, 4)
    """

    dataset: str = "auto"
    model: str = BOTH
    methods: tuple[str, ...] = METHODS
    num_steps: tuple[int, ...] = (2, 4, 8, 16, 32)
    calibration_samples: int = 1024
    per_channel: bool = True
    recalibrate: bool = True
    dynamic_range: float = 6.0
    epochs: int | None = None
    batch_size: int = 128
    learning_rate: float = 3e-3
    label_smoothing: float = 0.0
    ema_decay: float = 0.999
    shift: float = 1.0
    stretch: float = 0.1
    fine_tune_steps: int = 2
    fine_tune_epochs: int = 1
    fine_tune_learning_rate: float | None = None
    seed: int = 0
    smoke: bool = False

    def __post_init__(self) -> None:
        where = "ConvertConfig"
        check_choice(where, "dataset", self.dataset, IMAGE_DATASETS)
        check_choice(where, "model", self.model, (*MODELS, BOTH))
        for name in ("methods", "num_steps"):
            object.__setattr__(self, name, _tuple(where, name, getattr(self, name)))
        for method in self.methods:
            check_choice(where, "methods", method, METHODS)
        for steps in (*self.num_steps, self.fine_tune_steps):
            check_count(where, "num_steps", steps)
            check(steps <= MAX_STEPS, where, f"num_steps must be <= {MAX_STEPS}", steps)
        for name in ("calibration_samples", "batch_size"):
            check_count(where, name, getattr(self, name))
        if self.epochs is not None:
            check_count(where, "epochs", self.epochs)
        check_count(where, "fine_tune_epochs", self.fine_tune_epochs, at_least=0)
        check_count(where, "seed", self.seed, at_least=0)
        check(self.seed < 2**31, where, "seed must be < 2**31", self.seed)
        for name in ("learning_rate", "fine_tune_learning_rate"):
            if getattr(self, name) is not None or name == "learning_rate":
                check_number(where, name, getattr(self, name), above=0, at_most=1e6)
        check_number(where, "label_smoothing", self.label_smoothing, at_least=0, at_most=0.99)
        check_number(where, "ema_decay", self.ema_decay, above=0, at_most=1 - 1e-6)
        check_number(where, "shift", self.shift, at_least=0, at_most=8)
        check_number(where, "stretch", self.stretch, at_least=0, at_most=0.5)
        check_number(where, "dynamic_range", self.dynamic_range, above=0, at_most=1e3)
        for name in ("per_channel", "recalibrate", "smoke"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{where}: {name} must be true or false, got {getattr(self, name)}")

    def to_json(self) -> dict[str, Any]:
        """Plain dict; ``ConvertConfig.from_json`` gives the configuration back."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in fields.items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ConvertConfig":
        """Configuration of the given fields, the others at their defaults.

        Raises:
          ValueError, TypeError: unknown field, or a value that is not allowed.
        """
        check_fields(cls, fields)
        return cls(**fields)


def preset(smoke: bool = False, **overrides: Any) -> ConvertConfig:
    """Configuration with fields replaced; ``smoke`` takes two epochs, one method and N.

    Raises:
      ValueError, TypeError: unknown field, or a value that is not allowed.

    >>> preset(smoke=True, model="mlp").num_steps
    (2,)
    """
    fields = _SMOKE if smoke else {}
    return ConvertConfig.from_json({**fields, "smoke": smoke, **overrides})


_SMOKE: dict[str, Any] = {
    "epochs": 2, "methods": ("mse",), "num_steps": (2,), "calibration_samples": 64,
}


def _tuple(where: str, name: str, values: Any) -> tuple:
    """Several values of one kind, each once; from the command line or a file they come as lists."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{where}: {name} must be a list, got {values!r}")
    check(len(values) > 0, where, f"{name} must not be empty", "none")
    if any(isinstance(value, (list, dict)) for value in values):
        raise TypeError(f"{where}: {name} must hold words or numbers, got {list(values)!r}")
    check(len(set(values)) == len(values), where, f"{name} must differ", list(values))
    return tuple(values)

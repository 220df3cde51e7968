"""What an MNIST run is made of, and the protocols that fill it in."""

import dataclasses
from typing import Any

from fastsnn_jax._checks import check, check_choice, check_count, check_number
from fastsnn_jax.data.images import IMAGE_DATASETS

PROTOCOLS = ("default", "few-events", "notebook")
MODELS = ("mlp", "cnn")
ENCODERS = ("poisson", "latency", "direct")
SYNAPSES = ("auto", "dense", "event")
BLOCK_PIXELS = 4  # of 2 x 2 among which ``latency_winners`` may spike
STEP_MS = 1.0  # one time step; so 1000 Hz is a spike at every step
MAX_RATE_HZ = 1000.0 / STEP_MS
MAX_STEPS = 100_000  # so that spikes per sample stay exact in float32


@dataclasses.dataclass(frozen=True)
class MnistConfig:
    """Everything that decides the result of a run. Values are validated on creation.

    Attributes:
      dataset: "auto" (MNIST where there is one, else digits), "mnist" or "digits".
      protocol: whose training this is; "notebook" also selects on the test set, and says so.
      model: "mlp" (784-400-10) or "cnn".
      encoder: "poisson", "latency" or "direct".
      input_synapse: "event", "dense", or "auto": by device and measured density.
      num_steps: T, time steps of 1 ms.
      max_rate_hz: Poisson rate of a white pixel.
      latency_threshold, latency_window: of the latency encoder, see ``encoding.latency``.
      latency_winners: how many of each 2 x 2 pixels may spike, see ``encoding.local_winners``.
      threshold, decay: of the neurons; ``learn_decay`` starts every neuron at ``decay``.
      gain: scale of the initial kernels.
      logit_scale: logit per output spike.
      epochs: passes over the training images; None takes as many as protocol and dataset need.
      batch_size, learning_rate: of the optimiser, with cosine decay in our protocols.
      label_smoothing, ema_decay, shift, stretch: regularisation; see ``augment``.
      energy_weight: price of the synaptic operations that training can save, as a loss per spike
        per synapse of the network.
      patience: epochs without a better selection accuracy before the run stops.
      inference_samples: test images whose spikes are measured at the end.
      seed: of everything random.
      smoke: a few hundred images only, to see that everything runs.
    """

    dataset: str = "auto"
    protocol: str = "default"
    model: str = "mlp"
    encoder: str = "poisson"
    input_synapse: str = "auto"
    num_steps: int = 50
    max_rate_hz: float = 80.0
    latency_threshold: float = 0.55
    latency_window: int = 10
    latency_winners: int = BLOCK_PIXELS
    threshold: float = 1.0
    decay: float = 0.9
    learn_decay: bool = True
    gain: float = 2.0
    logit_scale: float = 0.3
    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float = 2e-3
    label_smoothing: float = 0.05
    ema_decay: float | None = 0.999
    shift: float = 1.0
    stretch: float = 0.1
    energy_weight: float = 0.0
    patience: int | None = None
    inference_samples: int = 4096
    seed: int = 0
    smoke: bool = False

    def __post_init__(self):
        where = "MnistConfig"
        check_choice(where, "dataset", self.dataset, IMAGE_DATASETS)
        check_choice(where, "protocol", self.protocol, PROTOCOLS)
        check_choice(where, "model", self.model, MODELS)
        check_choice(where, "encoder", self.encoder, ENCODERS)
        check_choice(where, "input_synapse", self.input_synapse, SYNAPSES)
        for name in (
            "num_steps", "latency_window", "latency_winners", "batch_size", "inference_samples",
        ):
            check_count(where, name, getattr(self, name))
        check(self.latency_winners <= BLOCK_PIXELS, where,
              f"latency_winners must be <= {BLOCK_PIXELS}, all of a block", self.latency_winners)
        check(self.num_steps <= MAX_STEPS, where, f"num_steps must be <= {MAX_STEPS}",
              self.num_steps)
        check_count(where, "seed", self.seed, at_least=0)
        check(self.seed < 2**31, where, "seed must be < 2**31", self.seed)
        for name in ("epochs", "patience"):
            if getattr(self, name) is not None:
                check_count(where, name, getattr(self, name))
        check_number(where, "max_rate_hz", self.max_rate_hz, above=0, at_most=MAX_RATE_HZ)
        check_number(where, "latency_threshold", self.latency_threshold, at_least=0, at_most=0.99)
        check_number(where, "decay", self.decay, above=0, at_most=1)
        for name in ("threshold", "gain", "logit_scale", "learning_rate"):
            check_number(where, name, getattr(self, name), above=0, at_most=1e6)
        check_number(where, "label_smoothing", self.label_smoothing, at_least=0, at_most=0.99)
        if self.ema_decay is not None:
            check_number(where, "ema_decay", self.ema_decay, above=0, at_most=1 - 1e-6)
        check_number(where, "shift", self.shift, at_least=0, at_most=8)
        check_number(where, "stretch", self.stretch, at_least=0, at_most=0.5)
        check_number(where, "energy_weight", self.energy_weight, at_least=0, at_most=1e6)
        for name in ("learn_decay", "smoke"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{where}: {name} must be true or false, got {getattr(self, name)}")
        if self.encoder == "latency":
            check(self.num_steps >= self.latency_window, where,
                  f"num_steps must be >= {self.latency_window}, the latency window", self.num_steps,
                  "later spikes would be lost")
        notebook = self.protocol == "notebook"
        check(not (notebook and self.learn_decay), where,
              "learn_decay must be false in the notebook's protocol", True)
        event = self.input_synapse == "event"
        check(not event or (self.model == "mlp" and self.encoder == "poisson"), where,
              "input_synapse 'event' needs model mlp and encoder poisson",
              f"{self.model} and {self.encoder}", "use auto or dense")

    @property
    def selected_on(self) -> str:
        """Data that chooses the best epoch: "validation", in the notebook's protocol "test"."""
        return "test" if self.protocol == "notebook" else "validation"

    def to_json(self) -> dict[str, Any]:
        """Plain dict; ``preset(**config.to_json())`` gives the configuration back."""
        return dataclasses.asdict(self)


def preset(protocol: str = "default", **overrides: Any) -> MnistConfig:
    """Configuration of a protocol with fields replaced.

    "default" is tuned for accuracy, "few-events" for accuracy at under 40,000 synaptic events per
    inference, both on validation data; "notebook" reproduces the MNIST notebook.

    Raises:
      ValueError, TypeError: unknown protocol or field, or a value that is not allowed.

    >>> preset("notebook").learning_rate
    0.003
    """
    check_choice("preset", "protocol", protocol, PROTOCOLS)
    known = {field.name for field in dataclasses.fields(MnistConfig)}
    unknown = sorted(set(overrides) - known)
    check(not unknown, "preset", f"fields must be among {', '.join(sorted(known))}", unknown)
    fields: dict[str, Any] = {"protocol": protocol, **_PROTOCOLS[protocol], **overrides}
    return MnistConfig(**fields)


_PROTOCOLS: dict[str, dict[str, Any]] = {
    "default": {},
    "few-events": {"encoder": "latency", "num_steps": 16, "latency_winners": 3},
    "notebook": {
        "learn_decay": False, "gain": 3**-0.5, "logit_scale": 1.0, "learning_rate": 3e-3,
        "label_smoothing": 0.0, "ema_decay": None, "shift": 0.0, "stretch": 0.0, "patience": 5,
    },
}

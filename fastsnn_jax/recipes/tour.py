"""A tour of the library in a minute: each part used once, with a figure that must hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax import scope
from fastsnn_jax._checks import check
from fastsnn_jax._files import make_directory
from fastsnn_jax._typing import Array, Float
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.conversion import convert
from fastsnn_jax.energy.report import report
from fastsnn_jax.energy.text import joules
from fastsnn_jax.jaxpr import run_needed
from fastsnn_jax.models import TinyANN, build_model_from_config
from fastsnn_jax.recipes import lm
from fastsnn_jax.recipes.convert.work import Signal, count_work, dense_macs
from fastsnn_jax.recipes.scope_page import PAGE_FILE
from fastsnn_jax.record import energy_report, environment

LANGUAGE_MODEL = "language_model"  # directory of its run
STEPS = 10
PLANES = 7  # bits of a count up to 127
LARGEST_ERROR = 0.25  # of the converted network's output, relative: what 3 spikes of a mean allow
_BATCH, _TOKENS, _INPUTS, _OUTPUTS = 4, 16, 128, 10
_HIDDEN = {False: 256, True: 32}  # by smoke
_MODEL: dict[bool, dict[str, Any]] = {
    False: {"attn_kind": "hybrid_alt", "d_model": 64, "n_heads": 4, "n_layers": 2, "d_ff": 128},
    True: {"attn_kind": "hybrid_alt", "d_model": 32, "n_heads": 2, "n_layers": 2, "d_ff": 48},
}
Say = Callable[[str], Any]


def run(
    out: str | Path, *, seed: int = 0, smoke: bool = False, say: Say = lambda line: None,
    progress: Any = None,
) -> dict[str, dict[str, Any]]:
    """Takes every step, and tells its figures; what is left in ``out`` is a run and a page.

    Args:
      out: directory that holds no tour yet.
      seed: of parameters, batches and inputs.
      smoke: smaller networks.
      say: told each step's result, and which one fails.
      progress: told of the training.

    Returns:
      The figures of every step by its name.

    Raises:
      ValueError: a step's figure is not what it must be; or ``out`` holds a tour or is a file.
      OSError: ``out`` cannot be written.
    """
    config = lm.preset("smoke", seed=seed)  # refuses a seed that a step would stumble over
    tour = Tour(Path(out).resolve(), config.seed, smoke, progress)
    make_directory("demo", tour.out)
    check(not (tour.out / LANGUAGE_MODEL).exists(), "demo", "out must be a directory without a "
          "tour", str(tour.out), "give another --out")
    figures: dict[str, dict[str, Any]] = {}
    for name, step in STEPS_BY_NAME.items():
        with _named(name, say):
            figures[name] = step(tour)
        say(f"{name}: " + ", ".join(f"{key} {_shown(value)}"
                                    for key, value in figures[name].items()))
    return figures


class Tour:
    """What the steps hand on to each other."""

    def __init__(self, out: Path, seed: int, smoke: bool, progress: Any) -> None:
        self.out, self.seed, self.smoke, self.progress = out, seed, smoke, progress
        self.record: dict[str, Any] = {}
        self.converted: Any = None  # the network, its variables, it in spikes, an input

    @property
    def key(self) -> Array:
        return jax.random.key(self.seed)


def _environment(tour: Tour) -> dict[str, Any]:
    """Versions and device."""
    known = environment()
    packages = ("python", "jax", "flax", "optax")
    device = known["device"]
    return {name: known["versions"][name] for name in packages} | {
        "device": f"{device['count']} x {device['kind']}", "git": known["git_hash"],
    }


def _forward(tour: Tour) -> dict[str, Any]:
    """A hybrid language model, once."""
    config = SNNConfig(vocab_size=256, **_MODEL[tour.smoke])
    model = build_model_from_config(config)
    tokens = jax.random.randint(tour.key, (2, 32), 0, config.vocab_size)
    variables = jax.jit(model.init)(tour.key, tokens)
    logits, activity = jax.jit(model.apply)(variables, tokens)
    wanted = (*tokens.shape, config.vocab_size)
    check(logits.shape == wanted, "language model", f"logits must be {wanted}", logits.shape)
    check(bool(jnp.isfinite(logits).all()), "language model", "logits must be finite", "NaN")
    spikes = sum(int(count.bit_plane.sum()) for count in activity.values())
    check(spikes > 0, "language model", "it must spike", spikes)
    return {"logits": list(logits.shape), "kernels that read spikes": len(activity),
            "spikes": spikes}


def _training(tour: Tour) -> dict[str, Any]:
    """Ten steps of training; the loss falls."""
    tour.record = lm.run(
        lm.preset("smoke", corpus=__file__, steps=STEPS, seed=tour.seed, batch_size=8,
                  learning_rate=1e-2, model=_MODEL[tour.smoke]),
        tour.out / LANGUAGE_MODEL, progress=tour.progress,
    )
    losses = tour.record["training_history"]["train_loss"]
    check(len(losses) == STEPS and losses[-1] < losses[0], "training",
          f"the loss must fall over {STEPS} steps", losses)
    return {"steps": len(losses), "first loss": losses[0], "last loss": losses[-1],
            "losses": losses}


def _conversion(tour: Tour) -> dict[str, Any]:
    """A network of values converted in one line: the same shapes, nearly the same values."""
    ann = TinyANN(hidden=_HIDDEN[tour.smoke], out_dim=_OUTPUTS)
    x = jax.random.normal(tour.key, (_BATCH, _TOKENS, _INPUTS))
    variables = run_needed(ann.init, tour.key, x)
    snn = convert(ann.apply, variables, x)
    y, activity = snn.apply(variables, x)
    before = jnp.asarray(ann.apply(variables, x))
    check(y.shape == before.shape, "conversion", f"the output must be {before.shape}", y.shape)
    error = _relative_error(y, before)
    check(error <= LARGEST_ERROR, "conversion", f"relative error must be <= {LARGEST_ERROR}", error)
    tour.converted = ann, variables, snn, x
    sites = [site.name for site in snn.sites if site.converted]
    check(len(sites) == 2, "conversion", "gelu and relu must be converted", sites)
    return {
        "sites": len(sites), "shape": list(before.shape), "shape in spikes": list(y.shape),
        "relative error": error,
        "spikes per token": sum(float(count.events.sum()) for count in activity.values())
        / (_BATCH * _TOKENS),
    }


def _energy(tour: Tour) -> dict[str, Any]:
    """What the converted network costs on 45 nm operations, its spikes sent as bit planes."""
    ann, variables, snn, x = tour.converted
    samples = _BATCH * _TOKENS
    _, activity = snn.expand("bitwise").apply(variables, x)
    counted = [activity[site.name] for site in snn.sites if site.converted]
    signals = [
        Signal(_per_neuron(count.events), int(count.saturated.sum())) for count in counted
    ]
    counts = count_work(
        ann, variables, signals, num_steps=PLANES, samples=samples, coding="bitwise",
        active=int(jnp.count_nonzero(x)), input_shape=(_INPUTS,),
        macs=dense_macs(ann, variables, x[0, :1]),
    )
    total = report(counts)["total"]
    low, nominal, high = total["energy_pj"]["total"]
    check(0 < low <= nominal <= high, "energy", "bounds must hold the nominal figure",
          (low, nominal, high))
    baselines = {name: joules(total["baselines_pj"][name][1])
                 for name in ("ann_float32", "ann_int8")}
    return {"per token": joules(nominal), "low": joules(low), "high": joules(high), **baselines,
            "verdict": total["verdict"]}


def _page(tour: Tour) -> dict[str, Any]:
    """SpikeScope: the run as one offline page."""
    page = scope.write(
        tour.out / LANGUAGE_MODEL, tour.out / PAGE_FILE, report=energy_report(tour.record)
    )
    return {"page": str(page), "bytes": page.stat().st_size}


STEPS_BY_NAME: dict[str, Callable[[Tour], dict[str, Any]]] = {
    "environment": _environment,
    "language model": _forward,
    "training": _training,
    "conversion": _conversion,
    "energy": _energy,
    "scope": _page,
}


@contextmanager
def _named(name: str, say: Say) -> Iterator[None]:
    """Tells which step it was that something came out of."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            say(f"{name}: FAILED")


def _per_neuron(events: Float[Array, "B L N"]) -> np.ndarray:
    """Spikes of each neuron over all tokens, as integers."""
    return np.asarray(events, np.int64).reshape(-1, events.shape[-1]).sum(0)


def _relative_error(y: Float[Array, "..."], before: Float[Array, "..."]) -> float:
    """Root mean square of the change over that of the original."""
    change = np.asarray(y, np.float64) - np.asarray(before, np.float64)
    return float(np.linalg.norm(change) / np.linalg.norm(np.asarray(before, np.float64)))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "[" + ", ".join(map(_shown, value)) + "]" if isinstance(value, list) else str(value)

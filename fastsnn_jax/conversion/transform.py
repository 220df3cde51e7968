"""ANN to SNN in one line: `convert` reads a function's jaxpr and makes it spike."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check, check_choice, check_number, fail
from fastsnn_jax._typing import Array, PyTree
from fastsnn_jax.conversion import methods, report, trains
from fastsnn_jax.conversion.converted import Converted
from fastsnn_jax.conversion.methods import Method
from fastsnn_jax.conversion.program import Program
from fastsnn_jax.conversion.report import ConversionReport
from fastsnn_jax.conversion.sites import KINDS, Site
from fastsnn_jax.conversion.temporal import MODES

Metric = Callable[[PyTree], float]

# What a search tries, from few spikes to many
STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (1.0, 0.875, 0.75, 0.625, 0.5)  # of the calibrated range: less of it is finer, and clips
FINENESS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # k of dynamic_mean


def convert(
    apply_fn: Callable, variables: PyTree, calibration_batch: PyTree, *,
    method: str = "dynamic_mean", sites: str = "activations", strict: bool = False,
    temporal: str = "layerwise", fold: bool = False, metric: Metric | None = None,
    target_drop: float | None = None, **options: Any,
) -> Converted:
    """Converts any JAX function into a spiking network.

    Args:
      apply_fn: ``apply_fn(variables, x) -> y``, from any framework or none.
      variables: its parameters, a pytree.
      calibration_batch: an ``x``, an array or a pytree of arrays, batch first.
      method: how numbers become spikes, see ``conversion.methods``.
      sites: "activations" puts spikes in place of activation functions' results, "synapses" at the
        input of every product with a parameter, so that its multiplications become additions.
      strict: refuse a function of which something stays as it is.
      temporal: of `Converted.step`: "layerwise" or "differences", see ``conversion.temporal``.
      fold: run a product and what scales its channels, such as a BatchNorm in inference, as one
        product and one bias, see ``conversion.folding``. The output is the same within rounding.
      metric: ``metric(y) -> float`` of the output for the batch, larger is better: the report says
        what it was before and after.
      target_drop: how much of the metric may be lost. Steps and thresholds (of dynamic_mean k) are
        tried from few spikes to many, those given as options apart; the first conversion that
        loses no more is returned.
      **options: of the method: ``k``, ``num_steps``, ``percentile``, ``per_channel``, ``signed``,
        ``initial``, ``smooth``.

    Returns:
      The spiking network, with a report of every site.

    Raises:
      ValueError: where nothing can be converted; for an unknown method, kind of site or option; for
        a batch that is empty, not finite or of a shape the function does not take; where no
        conversion tried keeps the metric.
      TypeError: where ``apply_fn`` is not callable or the batch holds what is not an array.

    >>> def mlp(variables, x):
    ...     return jax.nn.relu(x @ variables["hidden"]) @ variables["out"]
    >>> variables = {"hidden": jnp.eye(3), "out": jnp.ones((3, 1))}
    >>> x = jnp.array([[0.5, -1.0, 1.0], [0.25, 0.75, -0.5]])
    >>> snn = convert(mlp, variables, x, method="max", num_steps=4)
    >>> y, activity = snn.apply(variables, x)
    >>> y.tolist(), activity["site0:relu"].events.tolist()
    ([[1.5], [1.0]], [[2.0, 0.0, 4.0], [1.0, 3.0, 0.0]])

    A network of Flax, Dense-gelu-Dense-relu-Dense:

    >>> import fastsnn_jax as fs
    >>> ann = fs.models.TinyANN(hidden=256, out_dim=10)
    >>> x = jax.random.normal(jax.random.key(1), (2, 3, 128))
    >>> variables = ann.init(jax.random.key(0), x)
    >>> snn = fs.convert(ann.apply, variables, x)
    >>> y, activity = snn.apply(variables, x)
    >>> y.shape, list(activity)
    ((2, 3, 10), ['TinyANN/gelu', 'TinyANN/relu'])
    """
    if not callable(apply_fn):
        raise TypeError(f"convert: apply_fn must be callable, got {apply_fn!r}")
    check_choice("convert", "sites", sites, KINDS)
    check_choice("convert", "temporal", temporal, MODES)
    if not isinstance(fold, bool):
        raise TypeError(f"convert: fold must be a bool, got {fold!r}")
    built = methods.build(method, options)
    check(temporal == "layerwise" or method != "dynamic_mean", "convert",
          "a threshold per token is known when its whole input has come", "temporal='differences'",
          "use temporal='layerwise' or a calibrated method")
    check(sites == "synapses" or not built.smooth, "convert",
          "smooth is for synapses, whose weights take it up", f"sites={sites!r}")
    _check_batch(calibration_batch)
    program = Program.trace(apply_fn, variables, calibration_batch, sites, fold)
    _check_sites(program.sites, strict, sites)
    original = jax.jit(lambda variables, x: apply_fn(variables, x))(variables, calibration_batch)
    workshop = _Workshop(
        apply_fn, variables, calibration_batch, sites, strict, temporal, fold, metric, program,
        original,
    )
    if target_drop is None:
        (network,) = workshop.networks(built, shares=(1.0,))
        return network
    check(metric is not None, "convert", "target_drop needs a metric", None,
          "give metric=function of the output")
    check_number("convert", "target_drop", target_drop, at_least=0.0)
    return _search(workshop, method, options, target_drop)


@dataclasses.dataclass(frozen=True, eq=False)
class _Workshop:
    """What all conversions of one function have in common."""

    apply_fn: Callable
    variables: PyTree
    batch: PyTree
    kind: str
    strict: bool
    temporal: str
    fold: bool
    metric: Metric | None
    program: Program
    original: PyTree  # its output

    def networks(self, method: Method, shares: tuple[float, ...]) -> Iterator[Converted]:
        """The conversion, with thresholds at each of the shares of what was calibrated."""
        found = jax.jit(partial(self.program.calibrate, method))(self.variables, self.batch)
        _check_thresholds(found)
        program = self.program.leaving({name for name, feed in found.items() if _not_run(feed)})
        _check_sites(program.sites, self.strict, self.kind)
        thresholds = {
            site.name: _in_every_turn(found[site.name], len(site.loops))
            for site in program.converted
        }
        moved = self.temporal == "differences"  # spikes are taken back
        coding = "ternary" if moved else trains.natural_coding(method, program.sites)
        measure = partial(report.measure, method.num_steps)
        run = jax.jit(partial(program.count, method, record=measure))
        for share in shares if jax.tree.leaves(thresholds) else (1.0,):
            scaled = jax.tree.map(lambda leaf, share=share: leaf * share, thresholds)
            output, sums = run(scaled, self.variables, self.batch)
            for name, each in sums.items():
                _check_finite(name, np.sum(each["not_finite"]) == 0)
            told = self._report(program.sites, method, coding, output, sums)
            yield Converted(
                self.apply_fn, method, self.kind, coding, self.temporal, self.fold,
                program.sites, {"model": self.variables, "sites": scaled}, told,
            )

    def _report(
        self, sites: tuple[Site, ...], method: Method, coding: str, output: PyTree,
        sums: Mapping[str, Any],
    ) -> ConversionReport:
        entries = tuple(
            report.site_report(site, sums.get(site.name), coding, method.num_steps)
            for site in sites
        )
        before = after = None
        if self.metric is not None:
            before, after = (_value(self.metric, each) for each in (self.original, output))
        error = report.relative(report.output_error(self.original, output))
        folded = self.program.folded if self.fold else None
        return ConversionReport(
            method.name, method.num_steps, coding, entries, error, before, after, folded
        )


def _search(
    workshop: _Workshop, method: str, options: Mapping[str, Any], target_drop: float
) -> Converted:
    """The first conversion, from few spikes to many, that loses at most ``target_drop``."""
    least = math.inf
    name, tried = ("k", FINENESS) if method == "dynamic_mean" else ("num_steps", STEPS)
    for value in (options[name],) if name in options else tried:
        built = methods.build(method, {**options, name: value})
        found = list(workshop.networks(built, SHARES))
        drops = [_drop(network.report) for network in found]
        least = min(least, *drops)
        if min(drops) <= target_drop:
            return found[drops.index(min(drops))]
    raise fail("convert", f"the metric must drop by at most {target_drop:g}",
               f"{least:g} at best", "allow more, or try another method")


def _drop(told: ConversionReport) -> float:
    assert told.metric_before is not None and told.metric_after is not None
    return told.metric_before - told.metric_after


def _value(metric: Metric, output: PyTree) -> float:
    value = float(metric(output))
    check(math.isfinite(value), "convert", "metric must give a finite number", value)
    return value


def _check_batch(batch: PyTree) -> None:
    leaves = jax.tree.leaves(batch)
    check(bool(leaves), "convert", "calibration_batch must hold at least one array", batch)
    for leaf in leaves:
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            raise TypeError(f"convert: calibration_batch must hold arrays, got {leaf!r}")
        check(leaf.ndim > 0 and leaf.size > 0, "convert",
              "calibration_batch must have a batch axis and at least one sample",
              f"shape {leaf.shape}")
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            check(bool(jnp.all(jnp.isfinite(leaf))), "convert",
                  "calibration_batch must be finite", "NaN or infinity")


def _check_sites(found: tuple[Site, ...], strict: bool, kind: str) -> None:
    left = [f"{site.name} ({site.reason})" for site in found if not site.converted]
    seen = "; ".join(left) or "none"
    check(any(site.converted for site in found), "convert",
          f"the function must have {kind} that can spike", seen,
          "give its parameters as variables and its input as the batch")
    check(not strict or not left, "convert", "strict allows no leftovers", seen)


def _not_run(feed: Mapping[str, Array]) -> bool:
    """Whether a site was not run: a threshold is never 0, and what was not run left zeros."""
    return any(not np.any(value) for value in jax.device_get(feed).values())


def _in_every_turn(feed: Mapping[str, Array], loops: int) -> dict[str, Array]:
    """The feed of a site; a turn of its loops that was not run has the largest of the others."""
    def filled(value: Array) -> Array:
        largest = jnp.max(value, axis=tuple(range(loops)), keepdims=True)
        return jnp.where(value == 0, largest, value)

    return jax.tree.map(filled, dict(feed))


def _check_thresholds(thresholds: Mapping[str, Any]) -> None:
    for name, feed in jax.device_get(thresholds).items():
        _check_finite(name, all(np.all(np.isfinite(value)) for value in feed.values()))


def _check_finite(name: str, finite: Any) -> None:
    check(bool(finite), "convert",
          f"the values at {name} must be finite over the calibration batch", "NaN or infinity",
          "look for NaN in the variables")

"""What a conversion did at every site, and what it cost from end to end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._typing import Array, PyTree
from fastsnn_jax.codings import CODINGS
from fastsnn_jax.conversion.methods import Encoded
from fastsnn_jax.conversion.sites import Site
from fastsnn_jax.conversion.trains import num_planes, spikes_of
from fastsnn_jax.energy.products import macs
from fastsnn_jax.energy.text import number, table


@dataclass(frozen=True)
class SiteReport:
    """One site over the calibration batch; None where there is nothing to say.

    Attributes:
      name, kind, shape, loops, converted, reason: of the site, see `Site`; samples first.
      threshold: mean V over the channels, or over the tokens where each has its own; of a site in
        a scan over all turns, and so are the others.
      relative_error: root mean square of ``V s - x`` over that of ``x``.
      saturation: share of the numbers that did not fit.
      macs: multiply-adds of the product behind a synapse, before; None of an activation.
      time_steps: steps of its spike train.
      rate: spikes per neuron and time step.
      spikes_per_synapse: spikes per neuron: additions that each synapse behind it makes.
      additions: of the product behind a synapse, after: its spikes times their fan-out.
      spikes_by_coding, additions_by_coding: the same in every coding.
      folded: operations that its product, or the one before it, took up into its weight.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    loops: tuple[int, ...]
    converted: bool
    reason: str | None
    threshold: float | None = None
    relative_error: float | None = None
    saturation: float | None = None
    macs: int | None = None
    time_steps: int | None = None
    rate: float | None = None
    spikes_per_synapse: float | None = None
    additions: float | None = None
    spikes_by_coding: dict[str, float] | None = None
    additions_by_coding: dict[str, float] | None = None
    folded: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Why it stays as it is, or what was folded; empty where there is nothing to say."""
        return self.reason or (f"folded: {', '.join(self.folded)}" if self.folded else "")

    def written(self, coding: str, num_steps: int) -> "SiteReport":
        """The report with the spikes of another coding, of counts up to ``num_steps``."""
        if self.spikes_by_coding is None:
            return self
        steps, spikes = num_planes(coding, num_steps), self.spikes_by_coding[coding]
        additions = None if self.additions_by_coding is None else self.additions_by_coding[coding]
        return replace(self, time_steps=steps, rate=spikes / steps, spikes_per_synapse=spikes,
                       additions=additions)


@dataclass(frozen=True)
class ConversionReport:
    """A conversion: what was asked for, its sites in program order, and its end-to-end error.

    Attributes:
      method: its name.
      num_steps: N, the most spikes of one neuron.
      coding: of the spike trains.
      sites: a report each.
      output_error: root mean square of the change of the output over that of the output.
      metric_before, metric_after: of the original and of the conversion; None without a metric.
      folded: how many products took up what scales them; None where it was not asked for.
    """

    method: str
    num_steps: int
    coding: str
    sites: tuple[SiteReport, ...]
    output_error: float | None
    metric_before: float | None = None
    metric_after: float | None = None
    folded: int | None = None

    def written(self, coding: str) -> "ConversionReport":
        """The report of the same network in another coding."""
        sites = tuple(site.written(coding, self.num_steps) for site in self.sites)
        return replace(self, coding=coding, sites=sites)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it: dicts, lists, numbers, strings and None."""
        fields = asdict(self)
        fields["sites"] = [
            entry | {name: list(entry[name]) for name in ("shape", "loops", "folded")}
            for entry in fields["sites"]
        ]
        return fields

    def format(self) -> str:
        """The report as a table of text; what is undefined is shown as "-"."""
        converted = sum(site.converted for site in self.sites)
        title = (f"{self.method}, N = {self.num_steps}, {self.coding}: {converted} of "
                 f"{len(self.sites)} sites converted, output error "
                 f"{number(self.output_error, 100)} %")
        if self.metric_before is not None:
            title += f", metric {number(self.metric_before)} -> {number(self.metric_after)}"
        if self.folded is not None:
            title += f", products folded: {self.folded}"
        rows: list[Sequence[str]] = [
            ("site", "shape", "threshold", "error %", "rate", "saturated %", "spikes", "steps",
             "MACs", "additions", "note"),
        ]
        for site in self.sites:
            shape = "x".join(map(str, (*site.loops, *site.shape)))
            rows.append((
                site.name, shape, number(site.threshold), number(site.relative_error, 100),
                number(site.rate), number(site.saturation, 100), number(site.spikes_per_synapse),
                number(site.time_steps), number(site.macs), number(site.additions),
                site.note,
            ))
        return "\n".join([title, *(f"  {line}" for line in table(rows))])


def measure(num_steps: int, site: Site, encoded: Encoded, value: Array) -> dict[str, Any]:
    """Sums that `site_report` reads, of one run of a site."""
    value = value.astype(encoded.counts.dtype)
    spikes = {coding: spikes_of(encoded.counts, coding, num_steps) for coding in CODINGS}
    sums: dict[str, Any] = {
        "runs": jnp.ones(()),  # a turn that takes another branch leaves zeros
        "error": jnp.sum(jnp.square(encoded.value(value.dtype) - value)),
        "power": jnp.sum(jnp.square(value)),
        "threshold": jnp.mean(encoded.threshold),
        "not_finite": jnp.sum(~jnp.isfinite(value)),
        "clipped": jnp.sum(encoded.clipped) / max(value.size, 1),
        "spikes": {coding: jnp.mean(each) for coding, each in spikes.items()},
    }
    if site.side is not None:
        others = tuple(axis for axis in range(value.ndim) if axis not in site.side.axes)
        sums["spikes_by_fan_out"] = {  # whole numbers: float32 would round sums above 2^24
            coding: jnp.sum(each.astype(jnp.int32), axis=others) for coding, each in spikes.items()
        }
    return sums


def site_report(
    site: Site, sums: Mapping[str, Any] | None, coding: str, num_steps: int
) -> SiteReport:
    """The report of a site, from what `measure` gave; None of one that stays as it is."""
    shape = tuple(site.shape[axis] for axis in site.samples_first)
    fields = (site.name, site.kind, shape, site.loops, site.converted, site.reason)
    if sums is None:
        return SiteReport(*fields, folded=site.folded)
    read = jax.tree.map(lambda value: np.asarray(value, np.float64), dict(sums))
    error, runs = _ratio(read["error"].sum(), read["power"].sum()), int(read["runs"].sum())
    mean = partial(_mean, runs=runs)
    additions = work = None
    if site.side is not None:
        fans = np.asarray(site.side.fan_outs, np.float64)[site.side.group_of]
        additions = {name: (value * fans).sum().item()
                     for name, value in read["spikes_by_fan_out"].items()}
        work = runs * macs(site.side)
    return SiteReport(
        *fields, mean(read["threshold"]), error, mean(read["clipped"]), work,
        spikes_by_coding=jax.tree.map(mean, read["spikes"]), additions_by_coding=additions,
        folded=site.folded,
    ).written(coding, num_steps)


def _mean(value: np.ndarray, runs: int) -> float:
    return value.sum().item() / max(runs, 1)


def output_error(original: PyTree, converted: PyTree) -> Array:
    """Sums of squares over the floating outputs, of the change and of the original."""
    change, power = jnp.zeros(()), jnp.zeros(())
    for before, after in zip(jax.tree.leaves(original), jax.tree.leaves(converted), strict=True):
        if jnp.issubdtype(before.dtype, jnp.floating):
            before, after = before.astype(jnp.float32), after.astype(jnp.float32)
            change += jnp.sum(jnp.square(after - before))
            power += jnp.sum(jnp.square(before))
    return jnp.stack([change, power])


def relative(sums: Array) -> float | None:
    """The root of the ratio that `output_error` gave; None where the original is 0."""
    change, power = np.asarray(sums, np.float64)
    return _ratio(change, power)


def _ratio(change: float, power: float) -> float | None:
    ratio = math.sqrt(change / power) if power > 0 else None
    return ratio if ratio is None or math.isfinite(ratio) else None

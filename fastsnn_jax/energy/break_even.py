"""When spikes pay: the rate at which a spiking layer costs what the conventional one does.

The energy of a spiking layer is affine in its rate, so that the rate follows in closed form,

    rate* = (E_baseline - E_floor) / E_at_rate_one

with E_floor what it costs without spikes (neuron updates above all) and E_at_rate_one what a spike
of every input at every step adds; spikes per synapse and inference SPSI* = rate* T. Where the floor
alone is above the baseline, no rate wins.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from fastsnn_jax.energy.interval import Interval
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.mapping import Mapping
from fastsnn_jax.energy.pricing import MAC, Charge, ann_bill, energy, snn_bill, unpriced
from fastsnn_jax.energy.profiles import Profile

WINS, LOSES, UNDETERMINED = "wins", "loses", "undetermined"
NEVER = "cannot win at any rate"
VERDICTS = (WINS, LOSES, UNDETERMINED, NEVER)


class BreakEven(NamedTuple):
    """Where a layer stands against its baseline, by nominal figures; None where not defined.

    Attributes:
      rate: spikes per input and step (of a language model: per channel and token) at which both
        cost the same.
      spsi: the same as spikes per synapse and inference (or token).
      margin: measured rate over ``rate``: below 1 the spiking layer is the cheaper.
    """

    rate: float | None
    spsi: float | None
    margin: float | None


def headroom(baseline: float, floor: float, spikes: float) -> float | None:
    """Factor by which energy that goes into spikes may grow until the baseline is reached.

    None where the floor alone reaches it, or where there are no spikes to grow.

    >>> headroom(baseline=10.0, floor=4.0, spikes=2.0)
    3.0
    """
    return (baseline - floor) / spikes if spikes > 0 and baseline > floor else None


def break_even(counts: LayerCounts, profile: Profile, mapping: Mapping) -> BreakEven:
    """Break-even of one layer against the mapping's baseline.

    All three are None for a layer that no spikes drive, where the profile cannot price the
    baseline, where no rate wins, and where spikes cost nothing.
    """
    baseline = baseline_energy(counts, profile, mapping, mapping.baseline)
    if counts.drive != "spikes" or not counts.connections or baseline is None:
        return BreakEven(None, None, None)
    silent = counts.events == 0
    spiking = _at_rate_one(counts) if silent else counts
    bill = snn_bill(spiking, profile, mapping)
    factor = headroom(baseline.nominal, floor(bill).nominal, _nominal_spikes(bill))
    if factor is None:
        return BreakEven(None, None, None)
    rate, spsi = spike_rate(spiking), spikes_per_synapse(spiking)
    assert rate is not None and spsi is not None, "a layer driven by spikes has both"
    return BreakEven(factor * rate, factor * spsi, 0.0 if silent else 1 / factor)


def verdict(
    snn: Interval, ann: Interval | None, floor: Interval, complete: bool = True
) -> str:
    """What the bounds allow to say: one of `VERDICTS`.

    "wins" and "loses" need intervals that do not overlap, "cannot win at any rate" a floor whose
    lower bound is above the baseline's upper one, so that wider intervals never create a verdict.

    Args:
      complete: False where the profile leaves work of the spiking layer alone without a price:
        its energy is then a lower bound, and nothing is won.

    >>> verdict(Interval(1, 2, 3), Interval(4, 5, 6), Interval(0, 0, 0))
    'wins'
    >>> verdict(Interval(1, 2, 4), Interval(4, 5, 6), Interval(0, 0, 0))
    'undetermined'
    """
    if ann is None:
        return UNDETERMINED
    if floor.low > ann.high:
        return NEVER
    if snn.low > ann.high:
        return LOSES
    return WINS if complete and snn.high < ann.low else UNDETERMINED


def baseline_energy(
    counts: LayerCounts, profile: Profile, mapping: Mapping, baseline: str
) -> Interval | None:
    """pJ of a conventional layer over all samples; None where the profile cannot price its MACs."""
    bill = ann_bill(counts, profile, mapping, baseline)
    if counts.kind == "synapse" and MAC in unpriced(bill):
        return None
    return energy(bill)["total"]


def floor(bill: Sequence[Charge]) -> Interval:
    """pJ of a spiking layer without spikes."""
    return energy([charge for charge in bill if not charge.per_spike])["total"]


def is_complete(counts: LayerCounts, bill: Sequence[Charge]) -> bool:
    """Whether all work that the baseline does not share has a price."""
    return counts.kind != "synapse" or not unpriced(bill)


def spike_rate(counts: LayerCounts) -> float | None:
    """Spikes per input and step; None for a layer that no spikes drive."""
    places = counts.samples * counts.num_steps * counts.inputs
    return counts.events / places if counts.drive == "spikes" and places else None


def spikes_per_synapse(counts: LayerCounts) -> float | None:
    """SPSI, additions over the connections of one dense pass; None without spikes."""
    dense = counts.samples * counts.connections
    return counts.ac / dense if counts.drive == "spikes" and dense else None


def _at_rate_one(counts: LayerCounts) -> LayerCounts:
    """The layer if every input spiked at every step."""
    places = counts.samples * counts.num_steps
    return dataclasses.replace(
        counts, active=places * counts.inputs, events=places * counts.inputs,
        ac=places * counts.connections,
    )


def _nominal_spikes(bill: Sequence[Charge]) -> float:
    return energy([charge for charge in bill if charge.per_spike])["total"].nominal

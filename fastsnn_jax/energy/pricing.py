"""The energy of a layer's counts on a device: a bill of charges, and its sum with bounds.

    energy = operations * pJ                                                   compute
           + additions * weight_bits * pJ per bit, by rows of a memory word    weights, spikes
           + passes * weights * weight_bits / (reuse * batch) * pJ per bit     weights, dense
           + 2 * updates * state_words * state_bits * pJ per bit               state
           + activation and cache words * activation_bits * pJ per bit         state
           + events * pJ + events * (address + payload bits) * hops * pJ       communication

Linear in the counts, so that layers, samples and what-ifs add up. Leakage and control are left
out: they need a latency, which counts do not have.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastsnn_jax._checks import fail
from fastsnn_jax.energy.interval import Interval
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.mapping import NOWHERE, SMALLEST, Mapping
from fastsnn_jax.energy.profiles import Memory, Profile

PARTS = ("compute", "weights", "state", "communication")
FREE = Interval.exactly(0.0)
WEIGHT_BITS, STATE_BITS = "weight bits", "state bits"
MAC = "multiply-accumulate"
_FLOAT32_BITS, _INT8_BITS = 32, 8
_PAYLOAD_BITS = {"binary": 0, "none": 0}  # otherwise one: the sign


class Charge(NamedTuple):
    """One line of a bill, over all samples.

    Attributes:
      part: one of `PARTS`.
      item: what is charged for.
      amount: how many.
      price: pJ of one; None where the profile has no figure.
      per_spike: whether the amount grows with the spikes.
    """

    part: str
    item: str
    amount: float
    price: Interval | None
    per_spike: bool = False


def snn_bill(counts: LayerCounts, profile: Profile, mapping: Mapping) -> list[Charge]:
    """What a layer costs as it was counted.

    Raises ValueError when a memory that the mapping names is not there or too small.
    """
    charges = [*_synapses(counts, profile, mapping), *_neurons(counts, profile, mapping),
               *_events(counts, profile, mapping)]
    if profile.neuron_update is None or not counts.updates:  # otherwise an update includes it
        charges += _bias(counts.bias_add, profile, mapping.accumulator_bits, mapping.arithmetic)
    charges += _shared(counts, profile, mapping)
    words = counts.activation_words + _values(counts)
    charges.append(_activations(counts, words, profile, mapping, mapping.activation_bits))
    return [charge for charge in charges if charge.amount]


def ann_bill(
    counts: LayerCounts, profile: Profile, mapping: Mapping, baseline: str
) -> list[Charge]:
    """What a conventional layer of the same connections costs: one dense pass per sample.

    Its activation function is free. Work without a synapse is the same as in the spiking network.
    Where its wider numbers do not fit a memory that the mapping names, it takes the smallest they
    fit.
    """
    if counts.kind != "synapse":
        return snn_bill(counts, profile, mapping)
    arithmetic, weight_bits, activation_bits, sum_bits = _formats(counts, mapping, baseline)
    values = (counts.inputs + counts.outputs) * activation_bits * mapping.batch
    mapping = dataclasses.replace(
        mapping, accumulator_bits=sum_bits,
        weights=_roomy(profile, mapping.weights, counts.weights * weight_bits),
        state=_roomy(profile, mapping.state, values),
    )
    macs = counts.samples * counts.connections
    charges = _dense(counts, macs, profile, mapping, weight_bits, activation_bits, arithmetic)
    bias = counts.samples * counts.outputs if counts.bias_add else 0
    charges += _bias(bias, profile, sum_bits, arithmetic)
    words = counts.samples * (counts.inputs + counts.outputs)
    charges.append(_activations(counts, words, profile, mapping, activation_bits))
    return [charge for charge in charges if charge.amount]


def energy(bill: Sequence[Charge]) -> dict[str, Interval]:
    """pJ by part and in "total"; what has no price is left out, see `unpriced`."""
    parts = dict.fromkeys(PARTS, FREE)
    for charge in bill:
        if charge.price is not None:
            parts[charge.part] += charge.price * charge.amount
    return {**parts, "total": sum(parts.values(), FREE)}


def unpriced(bill: Sequence[Charge]) -> dict[str, float]:
    """How many of which item the profile has no figure for."""
    missing: dict[str, float] = {}
    for charge in bill:
        if charge.price is None:
            missing[charge.item] = missing.get(charge.item, 0) + charge.amount
    return missing


def amount(bill: Sequence[Charge], item: str) -> float:
    """How many of an item a bill charges."""
    return sum(charge.amount for charge in bill if charge.item == item)


def matched_bits(counts: LayerCounts, mapping: Mapping) -> int:
    """Bits of an activation that tells as many values apart as a train of T steps can.

        binary: ceil(log2(T + 1));  ternary: ceil(log2(2 T + 1))

    Counts that are handed over whole ("unary", "bitwise") have the activations' own width.
    """
    if counts.coding not in ("binary", "ternary"):
        return mapping.activation_bits
    levels = counts.num_steps * (2 if counts.coding == "ternary" else 1)
    return levels.bit_length()  # ceil(log2(levels + 1)), exactly


def event_bits(counts: LayerCounts) -> int:
    """Bits of one routed spike: the address of its neuron, and a sign where it may have one."""
    return max(counts.inputs - 1, 0).bit_length() + _PAYLOAD_BITS.get(counts.coding, 1)


def weight_memory(counts: LayerCounts, profile: Profile, mapping: Mapping) -> Memory | None:
    """Where a layer's weights lie; None where they are not charged."""
    stored = counts.weights * mapping.weight_bits
    return _level(profile, mapping.weights, "weights", stored)


def state_memory(counts: LayerCounts, profile: Profile, mapping: Mapping) -> Memory | None:
    """Where a layer's neurons keep their state; None where it is not charged."""
    return _level(profile, mapping.state, "state", _state_bits(counts, mapping))


def _values(counts: LayerCounts) -> int:
    """Words of a layer that turns values into spikes and back, as a conventional one moves them.

    Neurons keep what they add up; without any behind it a synapse hands its sums on as values.
    """
    hands_on = counts.kind == "synapse" and counts.drive == "spikes" and not counts.updates
    return counts.samples * (counts.inputs + counts.outputs) if hands_on else 0


def _synapses(counts: LayerCounts, profile: Profile, mapping: Mapping) -> list[Charge]:
    widths = (mapping.weight_bits, mapping.activation_bits, mapping.arithmetic)
    if counts.drive == "analog":
        return _dense(counts, counts.mac, profile, mapping, *widths)
    if not profile.skips_zeros:
        macs = counts.samples * counts.num_steps * counts.connections
        return _dense(counts, macs, profile, mapping, *widths)
    bits = counts.ac * _row_bits(counts, profile, mapping)
    price = _bit_price(weight_memory(counts, profile, mapping), counts.weights * widths[0])
    fetched = Charge("weights", WEIGHT_BITS, bits, price, True)
    if profile.synaptic_operation is not None:
        return [Charge("compute", "synaptic operation", counts.ac, profile.synaptic_operation,
                       True), fetched]
    add = profile.operation("add", mapping.accumulator_bits, mapping.arithmetic)
    return [Charge("compute", "add", counts.ac, add, True), fetched]


def _dense(
    counts: LayerCounts, macs: int, profile: Profile, mapping: Mapping, weight_bits: int,
    activation_bits: int, arithmetic: str,
) -> list[Charge]:
    """Products with values instead of spikes: every pass streams the weights."""
    stored = counts.weights * weight_bits
    passes = macs / counts.connections if counts.connections else 0
    memory = _level(profile, mapping.weights, "weights", stored)
    price = profile.multiply_accumulate(
        max(weight_bits, activation_bits), mapping.accumulator_bits, arithmetic
    )
    bits = passes * stored / (mapping.reuse * mapping.batch)
    return [Charge("compute", MAC, macs, price),
            Charge("weights", WEIGHT_BITS, bits, _bit_price(memory, stored))]


def _neurons(counts: LayerCounts, profile: Profile, mapping: Mapping) -> Iterator[Charge]:
    by_spike = mapping.update == "event" and counts.drive == "spikes" and counts.updates > 0
    updates = counts.ac if by_spike else counts.updates
    bits = 2 * updates * counts.state_words * mapping.state_bits
    memory = state_memory(counts, profile, mapping)
    yield Charge("state", STATE_BITS, bits, _bit_price(memory, _state_bits(counts, mapping)),
                 by_spike)
    if profile.neuron_update is not None:
        yield Charge("compute", "neuron update", updates, profile.neuron_update, by_spike)
        return
    for name, number in counts.update_ops:
        price = profile.operation(name, mapping.accumulator_bits, mapping.arithmetic)
        yield Charge("compute", f"neuron's {name}", updates * number, price, by_spike)


def _events(counts: LayerCounts, profile: Profile, mapping: Mapping) -> Iterator[Charge]:
    if not profile.skips_zeros:
        return
    if profile.event is not None:
        yield Charge("communication", "event", counts.events, profile.event, True)
    if profile.event_bit is not None:
        bits = counts.events * event_bits(counts) * mapping.hops
        yield Charge("communication", "event bit and hop", bits, profile.event_bit, True)


def _bias(additions: int, profile: Profile, bits: int, arithmetic: str) -> list[Charge]:
    return [Charge("compute", "bias", additions, profile.operation("add", bits, arithmetic))]


def _shared(counts: LayerCounts, profile: Profile, mapping: Mapping) -> Iterator[Charge]:
    """Work that does not depend on spikes: products of activations, other operations, caches."""
    product = profile.multiply_accumulate(
        mapping.activation_bits, mapping.accumulator_bits, mapping.arithmetic
    )
    yield Charge("compute", "product of activations", counts.product, product)
    for name, number in counts.elementwise:
        price = profile.operation(name, mapping.accumulator_bits, mapping.arithmetic)
        yield Charge("compute", name, number, price)
    yield _activations(counts, counts.kv_words, profile, mapping, mapping.activation_bits)


def _activations(
    counts: LayerCounts, words: int, profile: Profile, mapping: Mapping, bits: int
) -> Charge:
    stored = (counts.inputs + counts.outputs) * bits * mapping.batch
    memory = _level(profile, mapping.state, "state", stored)
    return Charge("state", STATE_BITS, words * bits, _bit_price(memory, stored))


def _formats(
    counts: LayerCounts, mapping: Mapping, baseline: str
) -> tuple[str, int, int, int]:
    """Arithmetic and widths of a baseline's weights, activations and sums."""
    sum_bits, matched = mapping.accumulator_bits, matched_bits(counts, mapping)
    return {
        "ann_float32": ("float", _FLOAT32_BITS, _FLOAT32_BITS, _FLOAT32_BITS),
        "ann_int8": ("integer", _INT8_BITS, _INT8_BITS, sum_bits),
        "ann_matched": ("integer", mapping.weight_bits, matched, sum_bits),
    }[baseline]


def _state_bits(counts: LayerCounts, mapping: Mapping) -> int:
    return counts.outputs * counts.state_words * mapping.state_bits * mapping.batch


def _row_bits(counts: LayerCounts, profile: Profile, mapping: Mapping) -> float:
    """Bits fetched per addition: a spike reads its row of weights in whole words of the memory."""
    memory = weight_memory(counts, profile, mapping)
    if memory is None or not counts.connections:
        return mapping.weight_bits
    row = counts.connections * mapping.weight_bits / counts.inputs
    return math.ceil(row / memory.word_bits) * memory.word_bits / row * mapping.weight_bits


def _level(profile: Profile, choice: str, holds: str, bits: int) -> Memory | None:
    """The level that a mapping chooses for so many bits; None where memory is not charged."""
    if choice == NOWHERE or not profile.memories:
        return None
    where = f"Mapping.{holds} on {profile.name}"
    if choice != SMALLEST:
        memory = profile.memories.get(choice)
        if memory is None:
            raise fail(where, f"expected one of {', '.join(profile.memories)}", repr(choice))
        if not memory.fits(bits):
            raise fail(where, f"{choice} holds {memory.capacity_bits} bits", f"{bits} bits",
                       f"use '{SMALLEST}' or a larger memory")
        return memory
    fitting = [m for m in profile.memories.values() if holds in m.holds and m.fits(bits)]
    if not fitting:
        raise fail(where, "expected a memory large enough", f"{bits} bits")
    return min(fitting, key=lambda m: math.inf if m.capacity_bits is None else m.capacity_bits)


def _roomy(profile: Profile, choice: str, bits: int) -> str:
    """The choice of a memory, or the smallest that fits where that is too small."""
    memory = profile.memories.get(choice)
    return choice if memory is None or memory.fits(bits) else SMALLEST


def _bit_price(memory: Memory | None, stored_bits: int) -> Interval:
    return FREE if memory is None else memory.bit(stored_bits)

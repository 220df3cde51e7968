"""Laws of pricing, of break-even and of the published models."""

import dataclasses
import math
from fractions import Fraction

import pytest
from energy_layers import device, exactly, layer, notebook

from fastsnn_jax.energy.break_even import break_even, floor, headroom, spike_rate, verdict
from fastsnn_jax.energy.interval import Interval
from fastsnn_jax.energy.mapping import BASELINES, Mapping
from fastsnn_jax.energy.pricing import (
    PARTS,
    ann_bill,
    energy,
    event_bits,
    matched_bits,
    snn_bill,
    unpriced,
)
from fastsnn_jax.energy.profiles import load_profile
from fastsnn_jax.energy.proxies import equation_24, proxies
from fastsnn_jax.energy.report import report

FLOAT = {"arithmetic": "float", "weight_bits": 32, "activation_bits": 32}
NOWHERE = {"weights": "none", "state": "none"}


def total(counts, profile, mapping):
    return energy(snn_bill(counts, profile, mapping))["total"]


def baseline(counts, profile, mapping):
    return energy(ann_bill(counts, profile, mapping, mapping.baseline))["total"]


PROFILES = {"horowitz45": load_profile("horowitz45"), "yan22": load_profile("yan22"),
            "routed": device(event=exactly(2.0), event_bit=exactly(0.5))}
MAPPINGS = {
    "assumed": Mapping(),
    "float": Mapping(**FLOAT, baseline="ann_float32"),
    "reuse": Mapping(reuse=16, batch=4, baseline="ann_matched"),
    "event": Mapping(update="event", state_bits=24, hops=3.0),
}
PLACES = [(profile, mapping) for profile in PROFILES for mapping in MAPPINGS]


def place(names):
    return PROFILES[names[0]], MAPPINGS[names[1]]


# Figures of the literature


def test_the_notebooks_network_has_the_published_energies_within_their_rounding():
    # The table of eight models of one network: microjoules, to the digits given there.
    figures = proxies(notebook())
    expected = {
        "horowitz_compute_only_pj": (0.157, 3), "horowitz_ann_pj": (1.461, 3),
        "horowitz_updates_pj": (0.113, 3),
        "spikingbrain_pj": (0.0052, 4), "spikingbrain_ann_int8_pj": (0.073, 3),
        "spikingbrain_int32_pj": (0.0174, 4), "spikingbrain_int32_ann_pj": (0.095, 3),
        "lemaire_pj": (25.0, 1), "lemaire_ann_pj": (39.6, 1),
        "yan_pj": (27.9, 1), "yan_ann_pj": (38.2, 1),
        "keras_spiking_loihi_pj": (6.4, 1), "keras_spiking_spinnaker2_pj": (123, 0),
        "keras_spiking_spinnaker_pj": (2847, 0), "keras_spiking_cpu_pj": (2735, 0),
        "keras_spiking_gpu_pj": (95, 0),
    }
    for name, (microjoules, digits) in expected.items():
        assert figures[name] / 1e6 == pytest.approx(microjoules, abs=0.5 * 10**-digits), name
    assert figures["notebook_event_syn"] == 173_950
    assert figures["notebook_dense"] == 15_880_000
    assert figures["notebook_ratio"] == 173_950 / 15_880_000


def test_equation_24_saves_what_its_authors_say():
    # 1.13 spikes per channel at 0.03 pJ; 1.5 pJ is their fp16 and 0.23 pJ their int8 MAC.
    assert equation_24(1.13) == pytest.approx(0.0339, abs=1e-12)
    figures = proxies(notebook())
    assert figures["spikingbrain_published_pj_per_mac"] == equation_24(1.13)
    assert round(100 * figures["spikingbrain_published_saving_fp16"], 2) == 97.74
    assert round(100 * figures["spikingbrain_published_saving_int8"], 2) == 85.26
    assert figures["spikingbrain_pj_per_mac"] == pytest.approx(0.03 * 173_950 / 317_600)


def test_most_of_lemaires_energy_is_reading_weights():
    # 81 %: each addition reads a weight of 13.2 + 1.09e-5 * 32 * weights pJ.
    reads = sum(layer.ac / 8 * (13.2 + 1.09e-5 * 32 * layer.weights)
                for layer in notebook().values())
    assert reads / proxies(notebook())["lemaire_pj"] == pytest.approx(0.81, abs=0.005)


BREAK_EVEN = {  # percent by T as printed: 1024 x 1024, weights in 1 MB, state in 8 KB, 2 pJ a spike
    "float32 arithmetic": ([511, 128, 51, 10], [0, 0, 0, 0]),
    "int8 arithmetic": ([300, 75, 30, 6], [0, 0, 0, 0]),
    "memory": ([102, 25, 10, 2.0], [0, 0, 0, 1]),
    "reuse": ([8.5, 2.1, 0.8, 0.11], [1, 1, 1, 2]),
    "dram": ([100, 25, 10, 2.0], [0, 0, 0, 1]),
}
SPSI = {"float32 arithmetic": (5.1, 5.1), "int8 arithmetic": (3.0, 3.0), "memory": (1.0, 1.0),
        "reuse": (0.085, 0.05), "dram": (1.0, 1.0)}
COLUMNS = {
    "float32 arithmetic": Mapping(**NOWHERE, **FLOAT, baseline="ann_float32"),
    "int8 arithmetic": Mapping(**NOWHERE), "memory": Mapping(), "reuse": Mapping(reuse=16),
    "dram": Mapping(weights="dram"),
}


@pytest.mark.parametrize("column", BREAK_EVEN)
def test_break_even_is_where_the_published_table_has_it(column):
    profile = PROFILES["horowitz45"] if "arithmetic" in column else device(event=exactly(2.0))
    neurons = 0 if "arithmetic" in column else 1
    found = []
    for steps in (1, 4, 10, 50):
        counts = layer(1024, 1024, steps, spikes=7)
        counts = dataclasses.replace(counts, updates=neurons * counts.updates)
        found.append(break_even(counts, profile, COLUMNS[column]))
    for even, percent, digits in zip(found, *BREAK_EVEN[column], strict=True):
        assert 100 * even.rate == pytest.approx(percent, abs=0.5 * 10**-digits)
    for even, spsi in zip((found[0], found[-1]), SPSI[column], strict=True):
        digits = len(f"{spsi}".partition(".")[2])
        assert even.spsi == pytest.approx(spsi, abs=0.5 * 10**-digits)


# Pricing


def test_one_layer_is_priced_as_by_hand():
    # 4 inputs, 3 outputs, T = 5, 2 samples, 6 spikes; int8 weights, int32 sums, 16-bit state.
    counts = layer(4, 3, 5, 6, samples=2, bias_add=30)
    found = energy(snn_bill(counts, PROFILES["routed"], Mapping(hops=2)))
    row = math.ceil(3 * 8 / 64) * 64  # a spike reads 3 weights of 8 bits: one word of 64
    assert found["weights"].nominal == pytest.approx(6 * row * 10 / 64)
    assert found["state"].nominal == pytest.approx(2 * 30 * 16 * 10 / 64)
    assert found["communication"].nominal == pytest.approx(6 * 2.0 + 6 * 2 * 2 * 0.5)
    operations = 18 * 0.1 + 30 * (3.1 + 0.1 + 0.1) + 30 * 0.1
    assert found["compute"].nominal == pytest.approx(operations)
    assert found["compute"].high == pytest.approx(operations + 30 * 0.1)  # a reset may subtract
    assert found["total"].nominal == pytest.approx(
        sum(found[part].nominal for part in PARTS))


def test_the_bill_of_lemaires_memory_is_lemaires():
    # One access of 32 bits per weight, and two per potential, of 13.2 + 1.09e-5 * capacity pJ.
    mapping = Mapping(weight_bits=32, state_bits=32, activation_bits=32, update="event")
    wide = Mapping(weight_bits=32, baseline="ann_matched")

    def access(words):
        return 13.2 + 1.09e-5 * 32 * words

    for counts in notebook().values():
        found = energy(snn_bill(counts, load_profile("lemaire22"), mapping))
        assert found["weights"].nominal == pytest.approx(counts.ac * access(counts.weights))
        assert found["state"].nominal == pytest.approx(2 * counts.ac * access(counts.outputs))
        ann = energy(ann_bill(counts, load_profile("lemaire22"), wide, "ann_matched"))
        assert ann["weights"].nominal == pytest.approx(8 * counts.weights * access(counts.weights))


def test_the_bill_of_yans_memory_is_yans():
    for counts in notebook().values():
        found = energy(snn_bill(counts, load_profile("yan22"), Mapping(state_bits=8)))
        assert found["weights"].nominal == pytest.approx(counts.ac * 8 * 20.0)
        assert found["state"].nominal == pytest.approx(2 * counts.updates * 8 * 0.25)


def test_a_conventional_layer_is_priced_as_by_hand():
    counts = layer(4, 3, 5, 6, samples=2, bias_add=30)
    mapping = Mapping(reuse=2, batch=3)
    int8 = energy(ann_bill(counts, PROFILES["horowitz45"], mapping, "ann_int8"))
    assert int8["compute"].nominal == pytest.approx(2 * 12 * 0.3 + 2 * 3 * 0.1)
    assert int8["weights"].nominal == pytest.approx(2 * 12 * 8 / 6 * 10 / 64)
    assert int8["state"].nominal == pytest.approx(2 * 7 * 8 * 10 / 64)
    float32 = energy(ann_bill(counts, PROFILES["horowitz45"], mapping, "ann_float32"))
    assert float32["compute"].nominal == pytest.approx(2 * 12 * 4.6 + 2 * 3 * 0.9)
    for bits in (16, 64):  # of the spiking network: 32-bit floats are their own sums
        other = Mapping(reuse=2, batch=3, accumulator_bits=bits)
        assert energy(ann_bill(counts, PROFILES["horowitz45"], other, "ann_float32")) == float32
    matched = energy(ann_bill(counts, PROFILES["horowitz45"], mapping, "ann_matched"))
    assert matched["state"].nominal == pytest.approx(2 * 7 * 3 * 10 / 64)  # ceil(log2 6) bits
    assert int8["communication"] == Interval.exactly(0.0)


@pytest.mark.parametrize("names", PLACES, ids=str)
def test_energy_is_linear_in_the_counts_and_adds_up_over_samples(names):
    profile, mapping = place(names)
    one, other = layer(13, 7, 5, 11, samples=2), layer(13, 7, 5, 40, samples=3)
    together = total(one + other, profile, mapping)
    apart = total(one, profile, mapping) + total(other, profile, mapping)
    for bound in ("low", "nominal", "high"):
        assert getattr(together, bound) == pytest.approx(getattr(apart, bound), rel=1e-12)
    thrice = total(one + one + one, profile, mapping)
    assert thrice.nominal == pytest.approx(3 * total(one, profile, mapping).nominal, rel=1e-12)


def test_a_dense_layer_streams_its_weights_once_a_pass():
    analog = layer(4, 3, 5, 0, samples=2, drive="analog", coding="none", mac=2 * 5 * 12,
                   update_ops=(), updates=0, activation_words=40)
    found = energy(snn_bill(analog, PROFILES["horowitz45"], Mapping()))
    assert found["compute"].nominal == pytest.approx(120 * 0.3)
    assert found["weights"].nominal == pytest.approx(10 * 12 * 8 * 10 / 64)
    assert found["state"].nominal == pytest.approx(40 * 8 * 10 / 64)


def test_a_device_that_skips_no_zeros_pays_every_step():
    found = energy(snn_bill(layer(4, 3, 5, 6, update_ops=()), load_profile("h100-peak"), Mapping()))
    assert found["total"].nominal == pytest.approx(5 * 12 * 2 * 700 / 1979)


def test_a_chips_own_figures_include_its_memory():
    bill = snn_bill(layer(4, 3, 5, 6, bias_add=15), load_profile("loihi1"), Mapping())
    assert energy(bill)["total"] == Interval(
        18 * 23.6 + 15 * 81, 18 * 23.6 + 15 * 81, 18 * 27.1 + 15 * 81
    )
    assert unpriced(bill) == {}


def test_values_that_are_handed_on_cost_what_they_cost_a_conventional_layer():
    counts = layer(13, 7, 1, 11, coding="bitwise", updates=0, update_ops=(), state_words=0)
    snn = energy(snn_bill(counts, PROFILES["horowitz45"], Mapping()))
    ann = energy(ann_bill(counts, PROFILES["horowitz45"], Mapping(), "ann_int8"))
    assert snn["state"] == ann["state"] and snn["state"].nominal == pytest.approx(20 * 8 * 10 / 64)


@pytest.mark.parametrize(("coding", "steps", "bits"), [
    ("binary", 1, 1), ("binary", 3, 2), ("binary", 4, 3), ("binary", 50, 6), ("ternary", 1, 2),
    ("ternary", 3, 3), ("ternary", 4, 4), ("bitwise", 1, 8), ("unary", 1, 8),
])
def test_matched_bits_tell_every_spike_count_apart(coding, steps, bits):
    counts = layer(4, 3, steps, 0, coding=coding)
    assert matched_bits(counts, Mapping()) == bits
    if coding == "binary":
        assert bits == math.ceil(math.log2(steps + 1))


def test_an_event_carries_its_address_and_a_sign_where_it_has_one():
    assert [event_bits(layer(n, 3, 5, 0)) for n in (1, 2, 784, 1024, 1025)] == [0, 1, 10, 10, 11]
    assert event_bits(layer(784, 3, 5, 0, coding="ternary")) == 11


def test_memories_are_chosen_by_size_or_by_name_and_refused_where_they_do_not_fit():
    counts = {"big": layer(1024, 1025, 5, 6), "small": layer(4, 3, 5, 6)}
    made = report(counts, mapping=Mapping(state="sram-1m"))
    assert made["layers"]["big"]["memories"] == {"weights": "dram", "state": "sram-1m"}
    assert made["layers"]["small"]["memories"] == {"weights": "sram-8k", "state": "sram-1m"}
    with pytest.raises(ValueError, match="weights on horowitz45: sram-1m holds 8388608 bits, got"):
        report(counts, mapping=Mapping(weights="sram-1m"))
    with pytest.raises(ValueError, match="expected one of sram-8k, .*dram, got 'l2'"):
        report(counts, mapping=Mapping(state="l2"))


def test_a_baseline_too_wide_for_a_named_memory_takes_the_smallest_that_fits():
    # 320 * 100 weights: 256,000 bits of int8 fit 32 KB, 1,024,000 of float32 need 1 MB.
    counts = layer(320, 100, 5, 6)
    mapping = Mapping(weights="sram-32k")
    for name, bits, access in (("ann_int8", 8, 20), ("ann_float32", 32, 100)):
        found = energy(ann_bill(counts, PROFILES["horowitz45"], mapping, name))["weights"]
        assert found.nominal == pytest.approx(32_000 * bits * access / 64)


# Break-even and verdict


@pytest.mark.parametrize("names", PLACES, ids=str)
def test_at_the_break_even_rate_both_networks_cost_the_same(names):
    profile, mapping = place(names)
    counts = layer(512, 48, 5, 11, samples=2)
    even = break_even(counts, profile, mapping)
    # So many samples that a whole number of spikes meets the rate to 1e-12.
    samples = 10**12
    spikes = round(Fraction(even.rate) * samples * 5 * 512)
    at_even = layer(512, 48, 5, spikes, samples=samples)
    snn, ann = total(at_even, profile, mapping), baseline(at_even, profile, mapping)
    assert snn.nominal == pytest.approx(ann.nominal, rel=1e-9)
    assert even.spsi == pytest.approx(even.rate * 5, rel=1e-12)
    assert even.margin == pytest.approx(spike_rate(counts) / even.rate, rel=1e-12)


def test_the_margin_says_which_network_costs_less():
    profile, mapping = PROFILES["horowitz45"], Mapping()
    for spikes in (0, 1, 50, 100, 200, 4000):
        counts = layer(64, 48, 5, spikes)
        even = break_even(counts, profile, mapping)
        cheaper = total(counts, profile, mapping).nominal < baseline(counts, profile,
                                                                     mapping).nominal
        assert (even.margin < 1) == cheaper
        said = report({"a": counts}, profile, mapping)["layers"]["a"]["verdict"]
        assert said == ("wins" if cheaper else "loses")
    assert break_even(layer(64, 48, 5, 0), profile, mapping).margin == 0.0


def test_a_silent_layer_has_the_break_even_of_a_busy_one():
    profile, mapping = PROFILES["routed"], Mapping()
    silent, busy = (break_even(layer(64, 48, 5, n), profile, mapping) for n in (0, 60))
    assert silent.rate == pytest.approx(busy.rate) and silent.spsi == pytest.approx(busy.spsi)


def test_where_the_floor_alone_costs_more_no_rate_wins():
    # One input: 5 updates of 48 neurons cost more than 48 products.
    counts = {"thin": layer(1, 48, 5, 0)}
    made = report(counts)["layers"]["thin"]
    assert made["verdict"] == "cannot win at any rate"
    assert made["break_even_rate"] is None and made["margin"] is None
    assert headroom(baseline=1.0, floor=1.0, spikes=1.0) is None


def test_event_driven_updates_leave_no_floor():
    bill = snn_bill(layer(1, 48, 5, 3), PROFILES["horowitz45"], Mapping(update="event"))
    assert floor(bill) == Interval.exactly(0.0)
    assert energy(bill)["state"].nominal == pytest.approx(3 * 48 * 2 * 16 * 10 / 64)


def test_a_wider_interval_never_makes_a_verdict_of_an_undetermined_one():
    points = [(1, 2, 3), (2, 3, 5), (3, 3, 3), (4, 6, 9), (0, 0, 0), (7, 8, 8)]
    for snn in points:
        for ann in points:
            for base in [p for p in points if all(a <= b for a, b in zip(p, snn, strict=True))]:
                before = verdict(Interval(*snn), Interval(*ann), Interval(*base))
                wide_snn = Interval(snn[0] / 2, snn[1], snn[2] + 1)
                wide_ann = Interval(ann[0] / 2, ann[1], ann[2] + 1)
                after = verdict(wide_snn, wide_ann, Interval(base[0] / 2, base[1], base[2] + 1))
                assert before != "undetermined" or after == "undetermined"


def test_nothing_is_won_where_work_has_no_price():
    unsure = device(operations={
        name: formats for name, formats in load_profile("horowitz45").fields["operations"].items()
        if name != "div"
    })
    counts = layer(64, 48, 5, 1, elementwise=(("div", 1),))
    assert report({"a": counts}, PROFILES["horowitz45"])["total"]["verdict"] == "wins"
    made = report({"a": counts}, unsure)
    assert made["total"]["verdict"] == made["layers"]["a"]["verdict"] == "undetermined"
    assert "horowitz45 has no price for, and the total leaves out: div (1)" in made["warnings"]


def test_work_without_a_synapse_costs_both_networks_the_same():
    work = layer(8, 8, 1, 0, kind="other", drive="analog", coding="none", weights=0, connections=0,
                 updates=0, update_ops=(), state_words=0, product=100, kv_words=30,
                 elementwise=(("exp", 5), ("add", 9)))
    made = report({"attention": work})["layers"]["attention"]
    hand = 100 * 0.3 + 9 * 0.1 + 30 * 8 * 10 / 64
    assert made["energy_pj"]["total"] == pytest.approx([hand] * 3)
    assert all(made["baselines_pj"][name] == made["energy_pj"]["total"] for name in BASELINES)
    assert made["verdict"] == "undetermined" and made["rate"] is None

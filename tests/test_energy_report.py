"""Laws of the energy report: its schema, its bytes and its text."""

import json
import re

import jax
import jax.numpy as jnp
import pytest
from energy_layers import layer, notebook

from fastsnn_jax.energy.break_even import floor
from fastsnn_jax.energy.counts import count_layers
from fastsnn_jax.energy.layer_counts import LayerCounts
from fastsnn_jax.energy.mapping import Mapping
from fastsnn_jax.energy.pricing import PARTS, snn_bill
from fastsnn_jax.energy.profiles import load_profile
from fastsnn_jax.energy.report import SCHEMA_FILE, report, to_bytes, validate_report
from fastsnn_jax.energy.text import compare_reports, format_report, joules
from fastsnn_jax.models import MLP


def test_the_report_follows_its_schema_on_every_device():
    for name in ("horowitz45", "yan22", "lemaire22", "truenorth", "tpu-v4-peak"):
        validate_report(json.loads(to_bytes(report(notebook(), name))))


def test_what_a_network_counted_becomes_a_report():
    model, x = MLP((3, 2)), jnp.ones((5, 1, 4))
    variables = model.init(jax.random.key(0), x)
    _, activity = model.apply(variables, x)
    counts = count_layers(model, variables, activity, num_steps=5, input_shape=(4,))
    made = report(counts)
    # 4 inputs that fire at each of 5 steps, 3 synapses each: 60 additions on 12 connections.
    entry = made["layers"]["dense0/kernel"]
    assert (entry["ac"], entry["rate"], entry["spsi"], entry["updates"]) == (60, 1, 5, 15)
    assert made["answers"]["weight_bytes"] == 4 * 3 + 3 * 2
    assert made["answers"]["state_bytes"] == (3 + 2) * 2


def test_totals_are_sums_of_layers_and_shares_add_up_to_one():
    made = report(notebook(), "yan22")
    layers = made["layers"].values()
    for part in (*PARTS, "total"):
        for bound in range(3):
            assert made["total"]["energy_pj"][part][bound] == pytest.approx(
                sum(entry["energy_pj"][part][bound] for entry in layers))
    for name in ("ac", "mac", "updates", "weight_bits", "state_bits", "event_bits"):
        assert made["total"][name] == pytest.approx(sum(entry[name] for entry in layers))
    assert sum(entry["share"] for entry in layers) == pytest.approx(1)
    assert made["total"]["spsi"] == pytest.approx(173_950 / 317_600)


def test_the_totals_margin_is_how_far_all_spikes_are_from_break_even():
    made = report(notebook())["total"]
    snn, ann = made["energy_pj"]["total"][1], made["baselines_pj"]["ann_int8"][1]
    horowitz = load_profile("horowitz45")
    bills = [snn_bill(counts, horowitz, Mapping()) for counts in notebook().values()]
    still = sum(floor(bill).nominal for bill in bills) / 8
    assert made["margin"] == pytest.approx((snn - still) / (ann - still))
    assert made["break_even_spsi"] == pytest.approx(made["spsi"] / made["margin"])


def test_the_same_report_is_the_same_bytes_and_the_same_text():
    one = report(notebook(), health={"dead": {"dense0": 3}})
    turned = json.loads(to_bytes(one))
    assert to_bytes(one) == to_bytes(turned) == to_bytes(dict(reversed(one.items())))
    assert to_bytes(one).endswith(b"}\n") and b"NaN" not in to_bytes(one)
    assert format_report(one) == format_report(report(notebook(), health={"dead": {"dense0": 3}}))


def test_the_profile_and_the_mapping_stand_in_the_report_whole():
    mapping = Mapping(reuse=3, state="dram")
    made = report(notebook(), "yan22", Mapping(reuse=3))
    assert made["profile"] == load_profile("yan22").to_json()
    assert report(notebook(), mapping=mapping)["mapping"] == mapping.to_json()
    counts = {name: LayerCounts.from_json(fields) for name, fields in made["counts"].items()}
    assert counts == notebook()


def test_a_report_below_95_percent_coverage_is_partial_and_says_so():
    for coverage, partial in ((None, False), (0.95, False), (0.9499, True)):
        made = report(notebook(), coverage=coverage)
        text = format_report(made)
        assert made["partial"] is partial and made["coverage"] == coverage
        assert ("PARTIAL" in text.splitlines()[0]) is partial
        assert any(line.startswith("PARTIAL") for line in made["warnings"]) is partial


def test_the_text_answers_before_it_tabulates_and_names_every_assumption():
    made = report(notebook(), "keras-spiking-gpu",
                  health={"dead": {"dense0": 12}, "saturated": {"dense1": 2},
                          "peak_events_per_step": 77})
    lines = format_report(made).splitlines()
    order = ["verdict", "dominant layer", "is the input too dense", "dead neurons", "saturated",
             "peak events per step", "memory", "work per inference",
             "energy per inference, nominal", "beside it, always", "assumptions", "mapping"]
    places = [next(i for i, line in enumerate(lines) if line.strip().startswith(word))
              for word in order]
    assert places == sorted(places) and places[0] == 1
    text = "\n".join(lines)
    for shown in ("ESTIMATE", "OBSOLETE", "dense0 12", "dense1 2", "77", "317,600 bytes",
                  "820 bytes", "scope chip", made["profile"]["sha256"], "173,950", "0.0339 pJ",
                  "97.74 %", "85.26 %", "weight_bits 8", "baseline ann_int8",
                  "cannot win at any rate"):
        assert shown in text, shown
    assert not re.search(r"\b(None|nan|inf)\b", text)


def test_the_comparison_has_a_row_per_run():
    reports = {"a": report(notebook()), "bb": report(notebook(), "loihi1")}
    head, *rows = compare_reports(reports).splitlines()
    assert [row.split()[0] for row in rows] == ["a", "bb"]
    assert "5.766 uJ" in rows[1] and rows[1].endswith("undetermined") and "energy" in head


def test_the_input_is_too_dense_above_its_break_even_rate():
    sparse, dense = (report({"in": layer(64, 48, 5, n)}) for n in (10, 300))
    for made, expected in ((sparse, False), (dense, True)):
        entry = made["layers"]["in"]
        assert made["answers"]["input_too_dense"] is expected is (
            entry["rate"] > entry["break_even_rate"])
        assert made["answers"]["input_layer"] == made["answers"]["dominant_layer"] == "in"


def test_a_network_that_does_nothing_still_has_a_report():
    idle = layer(4, 3, 5, 0, updates=0, update_ops=(), connections=0, weights=0, state_words=0)
    made = report({"idle": idle}, mapping=Mapping(weights="none", state="none"))
    assert made["total"]["energy_pj"]["total"] == [0, 0, 0] and made["total"]["share"] is None
    format_report(made)


@pytest.mark.parametrize(("arguments", "message"), [
    (({},), "counts must hold a layer"),
    (({"a": layer(4, 3, 5, 6), "b": layer(3, 2, 5, 6, samples=2)},), "over the same samples, got"),
    ((notebook(), "nowhere"), "expected one of h100-peak"),
])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        report(*arguments)


@pytest.mark.parametrize(("options", "error"), [
    ({"unit": "joule"}, ValueError), ({"coverage": float("nan")}, ValueError),
    ({"coverage": -0.1}, ValueError), ({"coverage": "all"}, TypeError),
    ({"health": {"dead": {"dense0": 1.5}}}, ValueError),
    ({"health": {"peak_events_per_step": float("inf")}}, ValueError),
])
def test_bad_options_are_refused(options, error):
    with pytest.raises(error):
        report(notebook(), **options)


def test_every_field_of_a_report_is_required_by_its_schema():
    made = json.loads(to_bytes(report(notebook())))
    schema = json.loads(SCHEMA_FILE.read_text())
    assert set(schema["required"]) == set(made) == set(schema["properties"])
    for path in [(), ("total",), ("layers", "dense0"), ("answers",), ("mapping",)]:
        inner = made
        for key in path:
            inner = inner[key]
        for key in list(inner):
            value = inner.pop(key)
            with pytest.raises(ValueError, match=f"expected a field '{key}'"):
                validate_report(made)
            inner[key] = value
    made["total"]["energy_pj"]["total"][0] = float("nan")
    with pytest.raises(ValueError, match=r"total.energy_pj.total\[0\]: expected a finite number"):
        validate_report(made)


@pytest.mark.parametrize(("picojoules", "text"), [
    (0.0, "0 pJ"), (0.0339, "0.0339 pJ"), (999.0, "999 pJ"), (1e3, "1 nJ"), (2.5e6, "2.5 uJ"),
    (1.2345678e9, "1.235 mJ"), (4e13, "40 J"), (None, "-"),
])
def test_an_energy_is_shown_in_the_unit_that_suits_it(picojoules, text):
    assert joules(picojoules) == text

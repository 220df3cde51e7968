"""Laws of device profiles, of the schemas that guard them, and of mappings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fastsnn_jax.cli import energy as energy_command
from fastsnn_jax.energy.interval import Interval
from fastsnn_jax.energy.mapping import Mapping
from fastsnn_jax.energy.profiles import DEVICES, Profile, load_profile, profile_names
from fastsnn_jax.energy.schema import check_schema

ADD = {"low": 1.0, "nominal": 2.0, "high": 4.0, "source": "a paper", "table": "its table 1",
       "basis": "measured", "date": "2020-02"}
CHIP = {
    "schema": "snn-device/1", "name": "chip", "title": "A chip", "scope": "core",
    "obsolete": False, "skips_zeros": True, "notes": [],
    "operations": {"add": {"int8": ADD, "int32": {**ADD, "nominal": 3.0}}, "mul": {"int8": ADD}},
    "memories": {"sram": {"capacity_bits": 1024, "word_bits": 8, "access": ADD}},
    "event": ADD,
}
REQUIRED = {
    "horowitz45", "lemaire22", "yan22", "loihi1", "truenorth", "spinnaker-core",
    "spinnaker-system", "spinnaker2-core", "spinnaker2-system", "seneca", "h100-peak",
    "tpu-v4-peak", "keras-spiking-cpu", "keras-spiking-gpu",
}


def constants(value):
    """Every constant below ``value``."""
    if isinstance(value, dict):
        if "nominal" in value:
            yield value
        else:
            for item in value.values():
                yield from constants(item)


def changed(path, value):
    fields = json.loads(json.dumps(CHIP))  # no part shared
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return fields


# What comes with the package


def test_every_device_of_the_list_is_there_and_nothing_but_profiles():
    assert set(profile_names()) == REQUIRED
    assert "schema" not in profile_names()


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_every_shipped_constant_names_source_table_basis_and_date(name):
    profile = load_profile(name)
    figures = list(constants(profile.fields))
    assert profile.name == name and figures
    for figure in figures:
        assert figure["source"].strip() and figure["table"].strip() and figure["date"]
        assert 0 <= figure["low"] <= figure["nominal"] <= figure["high"]
        assert "recall" not in figure["source"]


def test_shipped_figures_are_those_of_their_sources():
    # Horowitz 2014; PMC10326429, table 3; KerasSpiking, model_energy.py; H100 data sheet.
    horowitz = load_profile("horowitz45")
    assert horowitz.operation("add", 8, "integer") == Interval.exactly(0.03)
    assert horowitz.multiply_accumulate(32, 32, "float").nominal == pytest.approx(4.6, abs=1e-12)
    assert horowitz.memories["dram"].access == Interval(1300.0, 1950.0, 2600.0)
    expected = {"loihi1": 23.6, "truenorth": 2.5, "seneca": 2.8, "spinnaker-core": 45,
                "spinnaker-system": 13_300, "spinnaker2-core": 10, "spinnaker2-system": 450}
    for name, pj in expected.items():
        assert load_profile(name).synaptic_operation.nominal == pj
    h100, tpu = load_profile("h100-peak"), load_profile("tpu-v4-peak")
    per_flop = h100.operation("mac", 16, "float").nominal / 2
    assert per_flop == pytest.approx(700 / 989, rel=1e-12)
    for bound, watts in (("low", 90), ("nominal", 170), ("high", 192)):
        pj = getattr(tpu.operation("mac", 16, "float"), bound)
        assert pj == pytest.approx(2 * watts / 275, rel=1e-12)


def test_only_the_old_processors_are_obsolete_and_core_and_system_are_told_apart():
    profiles = {name: load_profile(name) for name in profile_names()}
    assert {name for name, profile in profiles.items() if profile.obsolete} == {
        "keras-spiking-cpu", "keras-spiking-gpu"}
    for name in ("spinnaker", "spinnaker2"):
        assert profiles[f"{name}-core"].scope == "core"
        assert profiles[f"{name}-system"].scope == "system"


# A profile of one's own


def test_a_file_works_as_a_name_does(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes((DEVICES / "yan22.json").read_bytes())
    assert load_profile(str(path)) == load_profile(path) == load_profile("yan22")
    assert load_profile(load_profile("yan22")) == load_profile("yan22")


def test_the_hash_is_of_what_a_profile_says_and_not_of_how_it_is_written():
    turned = dict(reversed(CHIP.items()))
    assert Profile.from_json(turned).sha256 == Profile.from_json(CHIP).sha256
    other = changed(("event", "high"), 4.5)
    assert Profile.from_json(other).sha256 != Profile.from_json(CHIP).sha256
    assert Profile.from_json(CHIP).to_json() == CHIP | {"sha256": Profile.from_json(CHIP).sha256}


def test_an_unknown_device_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(ValueError, match="horowitz45.*yan22.*got 'loihi9'") as error:
        load_profile("loihi9")
    assert "\n" not in str(error.value)


BAD_FIELDS = [
    (("event", "source"), "", "event.source: expected text that is not empty"),
    (("event", "table"), None, "event.table: expected text, got None"),
    (("event", "low"), -1.0, "event.low: expected a number >= 0, got -1.0"),
    (("event", "low"), 3.0, "event: expected low <= nominal <= high, got 3.0, 2.0, 4.0"),
    (("event", "nominal"), 5.0, "event: expected low <= nominal <= high"),
    (("event", "high"), float("nan"), "event.high: expected a finite number, got nan"),
    (("event", "high"), float("inf"), "event.high: expected a finite number, got inf"),
    (("event", "high"), 1e300, "event.high: expected a number <= 1e+15"),
    (("event", "nominal"), True, "event.nominal: expected a finite number, got True"),
    (("event", "nominal"), "2", "event.nominal: expected a finite number, got '2'"),
    (("event", "basis"), "guessed", "event.basis: expected one of measured, simulated, derived"),
    (("event", "date"), "lately", "event.date: expected text of the form"),
    (("event", "comment"), "x", "event: expected fields among low, nominal"),
    (("price",), 1.0, "expected fields among schema, name"),
    (("operations", "add", "int8"), 2.0, "operations.add.int8: expected an object, got 2.0"),
    (("operations", "add", "uint8"), ADD, "operations.add, name of a field: expected text of the"),
    (("operations", "fma"), {}, "operations: expected fields among add, mul"),
    (("memories", "sram", "word_bits"), 0, "memories.sram.word_bits: expected a number >= 1"),
    (("memories", "sram", "word_bits"), 8.0, "memories.sram.word_bits: expected an integer"),
    (("memories", "sram", "capacity_bits"), "1k", "capacity_bits: expected an integer, got '1k'"),
    (("memories", "sram", "holds"), ["spikes"], "holds[0]: expected one of weights, state"),
    (("memories", "sram", "holds"), [], "memories.sram.holds: expected 1 to inf items, got 0"),
    (("scope",), "planet", "scope: expected one of operation, core"),
    (("obsolete",), 0, "obsolete: expected true or false, got 0"),
    (("notes",), "none", "notes: expected a list, got 'none'"),
    (("schema",), "snn-device/2", "schema: expected 'snn-device/1', got 'snn-device/2'"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_FIELDS, ids=str)
def test_a_bad_figure_is_refused_in_one_line_that_names_file_and_field(
    tmp_path, path, value, message
):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(ValueError) as error:
        load_profile(file)
    text = str(error.value)
    assert text.startswith("profile mine.json") and message in text and "\n" not in text


@pytest.mark.parametrize("path", [
    ("name",), ("notes",), ("event", "source"), ("event", "date"), ("memories", "sram", "access"),
    ("operations", "mul", "int8", "basis"),
])
def test_a_missing_field_is_named(path):
    fields = json.loads(json.dumps(CHIP))  # no part shared
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(ValueError, match=f"expected a field '{path[-1]}'"):
        Profile.from_json(fields)


@pytest.mark.parametrize(("content", "message"), [
    (json.dumps(CHIP)[:-40], "expected a readable JSON file"),
    ("", "expected a readable JSON file"),
    ('{"name": "a", "name": "b"}', "the field 'name' twice"),
    ("[" * 100_000, "expected a readable JSON file"),
    ("[1, 2]", "expected an object, got [1, 2]"),
    ("null", "expected an object, got None"),
])
def test_a_file_that_is_no_profile_is_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(ValueError) as error:
        load_profile(file)
    assert message in str(error.value) and "mine.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a readable JSON file"):
        load_profile(tmp_path / "absent.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected a readable JSON file"):
        load_profile(binary)


# Prices


def test_an_operation_costs_what_the_narrowest_format_that_holds_it_costs():
    chip = Profile.from_json(CHIP)
    prices = [chip.operation("add", bits, "integer") for bits in (1, 8, 9, 32, 33)]
    assert [price and price.nominal for price in prices] == [2.0, 2.0, 3.0, 3.0, None]
    assert chip.operation("add", 8, "float") is None and chip.operation("exp", 8, "integer") is None


def test_a_format_of_its_own_goes_before_any():
    fields = changed(("operations", "add", "any"), {**ADD, "high": 9.0})
    chip = Profile.from_json(fields)
    assert chip.operation("add", 8, "integer").high == 4.0
    assert chip.operation("add", 64, "integer").high == chip.operation("add", 8, "float").high == 9


def test_comparing_and_reducing_cost_an_addition_and_a_reset_at_most_one():
    chip = Profile.from_json(CHIP)
    add = chip.operation("add", 32, "integer")
    assert chip.operation("compare", 32, "integer") == add == chip.operation("reduce", 32,
                                                                             "integer")
    assert chip.operation("reset", 32, "integer") == Interval(0.0, 0.0, add.high)


def test_a_multiply_accumulate_is_a_product_and_a_sum_unless_it_has_its_own_price():
    chip = Profile.from_json(CHIP)
    assert chip.multiply_accumulate(8, 32, "integer") == Interval(2.0, 5.0, 8.0)
    assert chip.multiply_accumulate(16, 32, "integer") is None
    fused = Profile.from_json(changed(("operations", "mac"), {"int8": ADD}))
    assert fused.multiply_accumulate(8, 32, "integer") == Interval(1.0, 2.0, 4.0)


def test_a_bit_costs_its_share_of_an_access():
    assert Profile.from_json(CHIP).memories["sram"].bit(5) == Interval(1 / 8, 2 / 8, 4 / 8)


def test_an_affine_memory_costs_more_the_more_it_holds():
    # 13.2 + 1.09e-5 * n * bits pJ per access of 32 bits, for 784 * 400 weights of 32 bits.
    sram = load_profile("lemaire22").memories["sram"]
    access = 13.2 + 1.09e-5 * 784 * 400 * 32
    assert access == pytest.approx(122.58, abs=0.01)
    assert 32 * sram.bit(784 * 400 * 32).nominal == pytest.approx(access, rel=1e-12)
    assert sram.fits(10**15)


# The schema's checker and the mapping


SCHEMA = {
    "type": "object", "required": ["a"], "additionalProperties": False,
    "properties": {
        "a": {"anyOf": [{"$ref": "#/$defs/pair"}, {"type": "null"}]},
        "b": {"const": True},
    },
    "$defs": {"pair": {"type": "array", "minItems": 2, "maxItems": 2,
                       "items": {"type": "integer", "minimum": -1}}},
}


@pytest.mark.parametrize("value", [{"a": [1, 2]}, {"a": None}, {"a": [-1, 0], "b": True}])
def test_the_checker_lets_pass_what_follows_the_schema(value):
    check_schema("file", value, SCHEMA)


@pytest.mark.parametrize(("value", "message"), [
    ({}, "file: expected a field 'a', got []"),
    ({"a": None, "c": 1}, "file: expected fields among a, b, got 'c'"),
    ({"a": [1]}, "file.a: expected 2 to 2 items, got 1"),
    ({"a": [1, -2]}, r"file.a[1]: expected a number >= -1, got -2"),
    ({"a": [1, True]}, r"file.a[1]: expected an integer, got True"),
    ({"a": 3}, "file.a: expected a list, got 3"),
    ({"a": None, "b": False}, "file.b: expected True, got False"),
])
def test_the_checker_names_the_field_and_what_it_expected(value, message):
    with pytest.raises(ValueError) as error:
        check_schema("file", value, SCHEMA)
    assert str(error.value) == message


@pytest.mark.parametrize(("changes", "error"), [
    ({"weights": ""}, ValueError), ({"state": 3}, ValueError), ({"reuse": 0.5}, ValueError),
    ({"reuse": float("nan")}, ValueError), ({"reuse": "2"}, TypeError),
    ({"update": "never"}, ValueError), ({"arithmetic": "fixed"}, ValueError),
    ({"baseline": "cnn"}, ValueError), ({"weight_bits": 0}, ValueError),
    ({"weight_bits": 8.0}, TypeError), ({"state_bits": 65}, ValueError), ({"batch": 0}, ValueError),
    ({"batch": True}, TypeError), ({"hops": -1}, ValueError), ({"hops": float("inf")}, ValueError),
])
def test_a_mapping_is_validated(changes, error):
    with pytest.raises(error, match=f"^Mapping: {next(iter(changes))} must be"):
        Mapping(**changes)


def test_a_mapping_survives_json():
    mapping = Mapping(reuse=np.float32(2.5), weights="dram", update="event", batch=np.int64(3))
    assert Mapping(**json.loads(json.dumps(mapping.to_json()))) == mapping


def test_the_profile_of_the_documentation_prices_the_readme_network(tmp_path):
    text = (Path(__file__).resolve().parent.parent / "docs" / "energy.md").read_text("utf-8")
    (block,) = (block for block in re.findall(r"^```json\n(.*?)^```", text, re.M | re.S)
                if "snn-device/1" in block)
    (tmp_path / "my_chip.json").write_text(block)
    report = energy_command.example_report(load_profile(tmp_path / "my_chip.json"))
    assert report["total"]["energy_pj"]["total"][1] > 0

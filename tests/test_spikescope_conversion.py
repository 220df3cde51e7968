"""SpikeScope's page of a conversion: of a whole run, and of a report alone."""

import pytest
from scope_pages import EVIL, Page
from test_convert_recipe import build
from test_record import build as mnist_record

from fastsnn_jax import scope
from fastsnn_jax.conversion import ConversionReport, SiteReport
from fastsnn_jax.record import RecordError, energy_report

CONVERTED = SiteReport(
    "head/dot_general", "dot_general", (2, 5), (3,), True, None, 0.5, 0.25, 0.125, 200, 7, 0.4, 2.8,
    90.0, {"binary": 2.8}, {"binary": 90.0}, ("sub", "mul"),
)
KEPT = SiteReport(EVIL, "sin", (2, 5), (), False, "sin ends no activation that is known")
REPORT = ConversionReport("max", 7, "binary", (CONVERTED, KEPT), 0.0625, 90.0, 89.5, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The page of a conversion run, with its energy."""
    record = build(report=REPORT.as_dict())
    out = tmp_path_factory.mktemp("run") / "scope.html"
    return Page(scope.write(record, out, energy_report(record)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The page of a report."""
    return Page(scope.write(REPORT, tmp_path_factory.mktemp("alone") / "scope.html"))


def test_a_conversion_run_shows_its_sites_and_its_steps_before_all_else(run):
    parts = run.parts()
    assert list(parts)[:3] == ["overview", "steps", "sites"] and "energy" in parts
    for key in ("steps", "sites", "energy", "pareto", "training"):
        assert '<div class="figure"></div>' in parts[key]
    assert "<details open>" in parts["sites"] and "<details open>" not in parts["steps"]


def test_the_overview_of_a_run_says_what_was_lost_and_what_became_of_the_work(run):
    overview = run.parts()["overview"]
    for words in ("before conversion", "90 %", "-2.5 points are lost", "qcfs", "N = 2",
                  "5.3", "19 multiply-adds before", "1 of 2", "6.25 %", "89.5",
                  "90 before conversion",
                  "200 multiply-adds before, calibration batch", "products folded",
                  "is not converted: sin ends no activation that is known."):
        assert words in overview, words


def test_every_conversion_of_a_run_is_a_point_of_accuracy_against_cost(run):
    own, *others = run.data["points"]
    assert (own["name"], own["accuracy"], own["events"]) == ("this run", 92.5, 5.3)
    assert others == [
        {"name": "max, N = 4", "accuracy": 70.0, "events": 12.5, "energy_pj": 2e6},
        {"name": "max, N = 2", "accuracy": 60.0, "events": 9.5, "energy_pj": 2e5},
    ]


def test_a_report_alone_is_a_page_of_its_sites(alone):
    parts = alone.parts()
    assert list(parts) == ["overview", "sites"]
    assert "Conversion by max, N = 7" in parts["overview"]
    assert "<title>SpikeScope: Conversion by max, N = 7</title>" in alone.source
    assert "1 of 2" in parts["overview"] and "binary spikes" in parts["overview"]
    assert EVIL not in alone.source and "<b>" not in alone.source


def test_a_page_holds_of_every_site_what_the_report_says(run, alone):
    for page in (run, alone):
        assert page.data["conversion"]["folded"] == 1
        first, second = page.data["conversion"]["sites"]
        assert first == {
            "name": "head/dot_general", "kind": "dot_general", "shape": [2, 5], "loops": [3],
            "converted": True, "reason": None, "folded": ["sub", "mul"], "threshold": 0.5,
            "relative_error": 0.25, "rate": 0.4, "saturation": 0.125, "spikes_per_synapse": 2.8,
            "time_steps": 7, "macs": 200, "additions": 90.0,
        }
        assert (second["name"], second["rate"], second["reason"]) == (EVIL, None, KEPT.reason)


def test_the_same_report_makes_the_same_bytes(tmp_path):
    one, two = (scope.write(REPORT, tmp_path / name) for name in ("a.html", "b.html"))
    assert one.read_bytes() == two.read_bytes()


def test_a_run_without_a_report_of_its_sites_says_so(tmp_path):
    parts = Page(scope.write(build(), tmp_path / "scope.html")).parts()
    assert "no report of its sites" in parts["missing"] and "sites" not in parts
    assert "sites in spikes" not in parts["overview"]


def test_other_runs_have_no_panels_of_a_conversion(tmp_path):
    parts = Page(scope.write(mnist_record(), tmp_path / "scope.html")).parts()
    assert not {"steps", "sites"} & set(parts)


def damaged(**fields):
    made = REPORT.as_dict()
    return build(report=made | {"sites": [made["sites"][0] | fields]})


BAD = {
    "a site without a name": (damaged(name=None), RecordError, r"sites\[0\].name: expected text"),
    "a rate of text": (damaged(rate="0.5"), RecordError, r"sites\[0\].rate: expected a finite"),
    "a site that is none": (
        build(report=REPORT.as_dict() | {"sites": [3]}), RecordError, "report.sites: expected"),
    "a report without a method": (
        build(report={"sites": REPORT.as_dict()["sites"]}), RecordError, "method: expected text"),
    "a conversion of nothing": (
        ConversionReport("max", 7, "binary", (), None), ValueError, "must hold a site"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_report_is_one_error_and_no_page(what, tmp_path):
    given, kind, reason = BAD[what]
    with pytest.raises(kind, match=reason):
        scope.write(given, tmp_path / "scope.html")
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_goes_on_the_page_of_a_report(tmp_path):
    for beside in ({"runs": [("a", 1.0, 2.0)]}, {"traces": {}}, {"report": {}}):
        with pytest.raises(ValueError, match="stands alone"):
            scope.write(REPORT, tmp_path / "scope.html", **beside)

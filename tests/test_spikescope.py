"""SpikeScope's page: whole, offline, the same bytes, its data the run's, nothing written if bad."""

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scope_pages import COUNTS, EVIL, LM_COUNTS, RUNS, SPIKES, TEXT, TRACES, Page
from test_record import build as mnist_record
from test_record_lm import build as lm_record

from fastsnn_jax import scope
from fastsnn_jax.energy.profiles import load_profile, profile_names
from fastsnn_jax.energy.report import report
from fastsnn_jax.record import RecordError
from fastsnn_jax.scope import studio
from fastsnn_jax.scope.studio.panels import PANELS


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The page of an MNIST run with everything."""
    health = {"dead": {"dense0/kernel": 2}, "peak_events_per_step": 61}
    out = tmp_path_factory.mktemp("full") / "scope.html"
    made = report(COUNTS, health=health)
    return Page(scope.write(mnist_record(), out, made, TRACES, RUNS))


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """The page of a language model with a partial report."""
    out = tmp_path_factory.mktemp("lm") / "scope.html"
    made = report(LM_COUNTS, unit="token", coverage=0.5)
    return Page(scope.write(lm_record(), out, made, TEXT))


# The page


def test_a_page_asks_nothing_of_the_network(full):
    for tag, attributes in full.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "srcset", "action", "style", "onclick", "onload"):
            assert name not in attributes, (tag, attributes)
        assert attributes.get("href", "#").startswith("#")
    for text, kind in full.texts.values():
        if kind != "application/json":
            assert set(re.findall(r"\w+://[^\"'\s]*", text)) <= {"http://www.w3.org/2000/svg"}
            assert not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(|eval\(", text)


def test_the_content_policy_allows_this_script_and_this_style_alone(full):
    policy = next(a["content"] for tag, a in full.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    inline = [text for text, kind in full.texts.values() if kind is None]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in inline]
    assert len(digests) == 2
    for digest, source in zip(digests, ("style-src", "script-src"), strict=True):
        assert f"{source} 'sha256-{digest.decode()}';" in policy


def test_the_same_run_makes_the_same_bytes(tmp_path):
    first, second = (
        scope.write(mnist_record(), tmp_path / name, report(COUNTS), TRACES, RUNS)
        for name in ("a.html", "b.html")
    )
    assert first.read_bytes() == second.read_bytes()


def test_no_text_of_the_data_becomes_markup(full, lm):
    for page in (full, lm):
        assert EVIL not in page.source and "<b>" not in page.source
        assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert EVIL in full.data["raster"] and EVIL in lm.data["text"]["tokens"]


def test_a_name_of_a_layer_is_escaped_in_the_overview_too(tmp_path):
    made = report({EVIL: COUNTS["dense0/kernel"]})
    page = Page(scope.write(mnist_record(), tmp_path / "scope.html", made))
    assert "&lt;/script&gt;&lt;b&gt;&amp;amp;" in page.parts()["overview"]


def test_the_page_holds_the_record_and_the_report_as_they_are(full):
    health = {"dead": {"dense0/kernel": 2}, "peak_events_per_step": 61}
    assert full.data["record"] == mnist_record()
    assert full.data["report"] == report(COUNTS, health=health)
    assert full.data["profiles"] == {
        name: load_profile(name).to_json() for name in profile_names()
    }


def test_a_run_with_everything_has_every_panel_drawn(full):
    parts = full.parts()
    assert list(parts) == ["overview", *(panel.key for panel in PANELS)]
    assert not any("reason" in part for part in parts.values())
    for key in set(parts) - {"overview"}:
        assert '<div class="figure"></div>' in parts[key] and "<summary>Table" in parts[key]


EXPECTED_REASONS = {
    "energy": "No energy report", "whatif": "No energy report",
    "rates": "no rates", "raster": "no spikes of single", "membrane": "recorded no membranes",
    "map": "no spikes by layer",
}


def test_a_panel_without_data_says_why(tmp_path):
    parts = Page(scope.write(mnist_record(), tmp_path / "scope.html")).parts()
    assert "No energy report" in parts["overview"]
    assert set(parts) == {"overview", "pareto", "training", "missing"}
    lines = parts["missing"].split("<li>")[1:]
    titles = {panel.key: panel.title for panel in PANELS}
    assert len(lines) == len(EXPECTED_REASONS)
    for line, (key, reason) in zip(lines, EXPECTED_REASONS.items(), strict=True):
        assert line.startswith(titles[key]) and reason in line


def test_the_overview_says_estimate_verdict_and_what_dominates(full):
    overview = full.parts()["overview"]
    assert '<span class="stamp">ESTIMATE</span>' in overview and "PARTIAL" not in overview
    assert "wins" in overview and "dense0/kernel dominates" in overview
    assert "Dead neurons: 2 in dense0/kernel." in overview
    assert "At most 61 events in one step." in overview


def test_a_report_of_little_coverage_is_stamped_partial(lm):
    overview = lm.parts()["overview"]
    assert '<span class="stamp">PARTIAL</span>' in overview and "50 %" in overview


# Its data


def test_spikes_unpack_to_the_spikes_that_were_traced(full):
    for name, spikes in TRACES["raster"].items():
        packed = full.data["raster"][name]
        (plane,) = (np.frombuffer(base64.b64decode(text), np.uint8) for text in packed["planes"])
        assert (packed["steps"], packed["neurons"]) == spikes.shape
        np.testing.assert_array_equal(np.unpackbits(plane)[: spikes.size], spikes.ravel())
        assert packed["total"] == spikes.sum(0).tolist()


def test_counts_of_spikes_keep_two_bits(tmp_path):
    page = Page(scope.write(lm_record(), tmp_path / "scope.html",
                            traces={"raster": {"q": [[0, 1, 2], [3, 4, 255]]}}))
    packed = page.data["raster"]["q"]
    low, high = (np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:6]
                 for text in packed["planes"])
    assert (low + 2 * high).tolist() == [0, 1, 2, 3, 3, 3] and packed["most"] == 255


def test_membranes_unpack_to_within_half_a_step_of_their_range(full):
    packed = full.data["membrane"][EVIL]
    codes = np.frombuffer(base64.b64decode(packed["values"]), "<u2")
    values = packed["low"] + (packed["high"] - packed["low"]) * codes / 65535
    np.testing.assert_allclose(values, TRACES["membrane"][EVIL].ravel(), atol=3 / 65535 / 2 * 1.01)
    assert full.data["threshold"] == {EVIL: 1.0}


def test_rates_fall_into_bars_that_double(full):
    bars = full.data["rates"]["layers"]["hidden"]
    assert (bars["neurons"], bars["dead"], bars["saturated"]) == (5, 2, 1)
    filled = {2.0 ** (full.data["rates"]["first"] + i): n for i, n in enumerate(bars["bars"]) if n}
    assert filled == {1 / 4: 1, 1 / 2: 1, 1.0: 1}  # a rate on an edge belongs below it


def test_without_rates_those_of_the_raster_stand_in_and_say_so(tmp_path):
    traces = {"raster": {"hidden": [[0, 1, 1], [0, 1, 0]]}}
    page = Page(scope.write(mnist_record(), tmp_path / "scope.html", traces=traces))
    rates = page.data["rates"]
    assert rates["source"] == "the neurons of the raster"
    assert (rates["layers"]["hidden"]["dead"], rates["layers"]["hidden"]["saturated"]) == (1, 1)


def test_the_map_of_tokens_divides_by_the_channels(lm):
    assert lm.data["map"] == {
        "axis": "token", "measure": "spikes per channel",
        "rows": {"block_0/q": [2, 1, 3], "block_0/k": [2, 1, 3], "block_0/up": [0.5, 0, 2]},
    }


def test_the_map_of_steps_is_the_share_of_neurons_that_spike(full):
    assert full.data["map"]["axis"] == "step"
    assert full.data["map"]["rows"]["input"] == [
        float(f"{row.mean():.6g}") for row in SPIKES
    ]


def test_the_points_are_this_run_and_the_others(full):
    own, *others = full.data["points"]
    total = report(COUNTS)["total"]["energy_pj"]["total"][1]
    assert own == {"name": "this run", "accuracy": 95.0, "events": 166500.0, "energy_pj": total}
    assert others == [
        {"name": "others", "accuracy": 91.5, "events": 2e5, "energy_pj": None},
        {"name": "thrifty", "accuracy": 80.0, "events": None, "energy_pj": 3e4},
    ]


def test_the_largest_traces_stay_below_two_megabytes(tmp_path):
    random = np.random.default_rng(0)
    layers = [f"blocks_{i}/attention/query/kernel" for i in range(8)]
    traces = {
        "raster": {name: random.integers(0, 4, (512, 64)) for name in layers},
        "membrane": {name: random.normal(size=(512, 64)) for name in layers},
        "tokens": ["token"] * 512,
        "token_spikes": {name: random.integers(0, 999, 512) for name in layers},
    }
    page = scope.write(lm_record(), tmp_path / "scope.html", report(LM_COUNTS), traces)
    assert 900_000 < page.stat().st_size < 2_000_000
    traces["membrane"] = {str(i): random.normal(size=(512, 64)) for i in range(25)}
    with pytest.raises(ValueError, match="must stay below 2000000 bytes, got 2.*; trace fewer"):
        scope.write(lm_record(), tmp_path / "large.html", report(LM_COUNTS), traces)
    assert not (tmp_path / "large.html").exists()


# Its colours


def colours():
    """{theme: {name: sRGB}} of the style sheet."""
    css = (Path(studio.__file__).parent / "page/page.css").read_text()
    light, dark = (block for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL))
    return {
        theme: {name: [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
                for name, code in re.findall(r"--(\w+): #(\w{6})", block)}
        for theme, block in (("light", light), ("dark", dark))
    }


def contrast(one, two):
    """WCAG 2: (lighter + 0.05) / (darker + 0.05) of the relative luminances."""
    low, high = sorted(
        np.dot([0.2126, 0.7152, 0.0722],
               [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour])
        for colour in (one, two)
    )
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(theme):
    has = colours()[theme]
    for text in ("ink", "soft", "good", "bad"):
        for ground in ("card", "paper"):
            assert contrast(has[text], has[ground]) >= 4.5, (text, ground)
    for tint in ("t1", "t2", "t3", "t4"):
        assert contrast(has["ink"], has[tint]) >= 4.5, tint
    for mark in ("c1", "c2", "c3", "c4", "control", "focus"):
        assert contrast(has[mark], has["card"]) >= 3, mark
    ramp = [contrast(has[f"m{i}"], has["card"]) for i in range(9)]
    assert ramp == sorted(ramp) and ramp[-1] > 10


# Bad input


def with_report(**changes):
    return lambda out: scope.write(mnist_record(), out, report(COUNTS) | changes)


def nan_report(out):
    made = report(COUNTS)
    made["total"]["energy_pj"]["total"][1] = float("nan")
    scope.write(mnist_record(), out, made)


def infinite_counts(out):
    made = report(COUNTS)
    made["counts"]["dense0/kernel"]["ac"] = float("inf")
    scope.write(mnist_record(), out, made)


def sourceless(out):
    made = report(COUNTS)
    profile = json.loads(json.dumps(made["profile"]))
    del profile["operations"]["add"]["int32"]["source"]
    scope.write(mnist_record(), out, made | {"profile": profile})


BAD = {
    "no run": (lambda out: scope.write(out.parent, out), RecordError, "record.json"),
    "another page": (
        lambda out: scope.write(mnist_record(), out.with_suffix(".txt")), ValueError, "in .html"
    ),
    "a newer record": (
        lambda out: scope.write(mnist_record() | {"schema": "fastsnn-run/2"}, out), RecordError,
        "schema",
    ),
    "a record of NaN": (
        lambda out: scope.write(mnist_record() | {"test_accuracy": float("nan")}, out),
        RecordError, "test_accuracy",
    ),
    "a newer report": (with_report(schema="snn-energy/2"), ValueError, "snn-energy/1"),
    "no report": (lambda out: scope.write(mnist_record(), out, {}), ValueError, "report"),
    "a report of NaN": (nan_report, ValueError, "total.energy_pj.*nan"),
    "infinite counts": (infinite_counts, ValueError, "ac.*inf"),
    "layers of another network": (with_report(counts={}), ValueError, "layers must be those"),
    "a profile without a source": (sourceless, ValueError, "source"),
    "a run of two figures": (
        lambda out: scope.write(mnist_record(), out, runs=[("a", 1.0)]), ValueError, "a run must be"
    ),
    "a run without a cost": (
        lambda out: scope.write(mnist_record(), out, runs=[("a", 1.0, None)]), ValueError,
        "must have events or energy_pj",
    ),
    "more than all right": (
        lambda out: scope.write(mnist_record(), out, runs=[("a", 101.0, 5)]), ValueError,
        "accuracy of a must be >= 0 and <= 100",
    ),
    "an infinite cost": (
        lambda out: scope.write(mnist_record(), out, runs=[("a", 1.0, float("inf"))]), ValueError,
        "events of a",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_error_and_no_page(what, tmp_path):
    act, kind, reason = BAD[what]
    with pytest.raises(kind, match=reason):
        act(tmp_path / "scope.html")
    assert list(tmp_path.iterdir()) == []

"""SpikeScope's page in headless Chromium: drawn, clicked through, and no wider than a phone."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from scope_pages import COUNTS, LM_COUNTS, RUNS, TEXT, TRACES
from test_convert_recipe import build as convert_record
from test_record import build as mnist_record
from test_record_lm import build as lm_record
from test_spikescope_conversion import KEPT, REPORT

from fastsnn_jax import scope
from fastsnn_jax.energy.mapping import Mapping
from fastsnn_jax.energy.report import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent: no page is opened")

PAGES = {
    "mnist": lambda out: scope.write(mnist_record(), out, report(COUNTS), TRACES, RUNS),
    "lm": lambda out: scope.write(lm_record(), out, report(LM_COUNTS, unit="token"), TEXT),
    "bare": lambda out: scope.write(mnist_record(), out),
    "convert": lambda out: scope.write(convert_record(report=REPORT.as_dict()), out),
    "sites": lambda out: scope.write(REPORT, out),
}

DRAWN = {"mnist": 8, "lm": 6, "bare": 2, "convert": 4, "sites": 1}  # panels

# A page around the page, in a frame of a phone's width: what it finds there it writes down.
PROBE = """<!doctype html><meta charset="utf-8">
<iframe id="frame" width="360" height="640"></iframe>
<pre id="found"></pre><script>
const steps = %s, found = {}, frame = document.getElementById("frame");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
frame.onload = async () => {
  const page = frame.contentDocument, at = (one) => page.querySelector(one);
  try {
    await wait(200);
    await steps(page, at, found);
  } catch (error) { found.error = String(error); }
  document.getElementById("found").textContent = JSON.stringify(found);
};
frame.src = "page.html%s";
</script>"""

LOOK = """async (page, at, found) => {
  const root = page.documentElement;
  found.hidden = root.scrollWidth - root.clientWidth;
  found.sections = {};
  for (const section of page.querySelectorAll("section.card")) {
    const figure = section.querySelector(".figure");
    found.sections[section.id] = figure && {
      marks: figure.querySelectorAll("svg path, svg rect, svg circle, span").length,
      rows: section.querySelectorAll("tbody tr").length,
      outside: [...figure.querySelectorAll("svg text")].filter((text) => {
        const box = text.getBoundingClientRect(), card = section.getBoundingClientRect();
        return box.left < card.left - 0.5 || box.right > card.right + 0.5;
      }).map((text) => text.textContent),
    };
  }
}"""


def probe(folder, write, steps, fragment=""):
    """What ``steps``, a JavaScript function, finds in the page; fails on an error in the console.
    """
    write(folder / "page.html")
    around = folder / "probe.html"
    around.write_text(PROBE % (steps, fragment), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=8000", "--enable-logging=stderr", "--dump-dom", around.as_uri()],
        capture_output=True, text=True, timeout=120,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    found = json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout)[1]))
    assert "error" not in found, found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_panel_is_drawn_with_its_table_and_fits_a_phone(name, tmp_path):
    found = probe(tmp_path, PAGES[name], LOOK, "#tables=open")
    assert found["hidden"] == 0
    drawn = {key: one for key, one in found["sections"].items() if one}
    assert len(drawn) == DRAWN[name]
    for key, one in drawn.items():
        assert one["marks"] > 0 and one["rows"] > 0, (key, one)
        assert one["outside"] == [], (key, one)


USE = """async (page, at, found) => {
  const total = () => page.getElementById("whatif-result").dataset.total;
  const change = (one, value) => {
    one.value = value;
    one.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const label = (words) => [...page.querySelectorAll("#whatif label")]
    .find((one) => one.textContent.startsWith(words)).querySelector("input, select");
  found.own = total();
  change(label("Weight bits"), 4);
  change(label("Device"), "yan22");
  found.other = total();
  found.hash = frame.contentWindow.location.hash;
  change(label("Batch"), 0);
  found.refused = at("#whatif [role=status]").textContent;
  found.unchanged = total() === found.other;
  at("#whatif button").click();
  found.reset = total();
  const pictures = () => at("#raster .figure").innerHTML;
  const before = pictures();
  at("#raster input[name=layer]:not(:checked)").click();
  found.layer = pictures() !== before;
  const given = pictures();
  at("#raster input[value=first]").click();
  found.order = pictures() !== given;
  found.focus = page.activeElement === page.body || page.activeElement.isConnected;
  at("#energy input[value=layers]").click();
  found.layers = at("#energy .figure").textContent.includes("dense0");
}"""


@pytest.mark.slow
def test_the_controls_change_what_is_shown(tmp_path):
    found = probe(tmp_path, PAGES["mnist"], USE)
    own = report(COUNTS)["total"]["energy_pj"]["total"]
    other = report(COUNTS, "yan22", Mapping(weight_bits=4))["total"]["energy_pj"]["total"]
    for shown, expected in (("own", own), ("other", other), ("reset", own)):
        assert [float(value) for value in found[shown].split()] == pytest.approx(expected, rel=1e-9)
    assert "device=yan22" in found["hash"] and "bits=4" in found["hash"]
    assert found["refused"] == "Batch: expected a whole number from 1 to 65536."
    assert all(found[key] for key in ("unchanged", "layer", "order", "focus", "layers"))


@pytest.mark.slow
def test_the_sites_of_a_conversion_are_drawn_by_every_measure(tmp_path):
    steps = """async (page, at, found) => {
      found.names = [...page.querySelectorAll("#sites .figure svg text")]
        .map((text) => text.textContent);
      at("#sites input[value=additions]").click();
      found.work = at("#sites .figure").textContent;
      found.cells = [...page.querySelectorAll("#sites td")].map((cell) => cell.textContent);
    }"""
    found = probe(tmp_path, PAGES["sites"], steps)
    assert "25 %" in found["names"] and "not converted" in found["names"]
    assert "200 → 90" in found["work"]
    assert {"3 × 2 × 5", "12.5 %", "2.8", "folded: sub, mul", KEPT.reason} <= set(found["cells"])


@pytest.mark.slow
def test_a_shared_address_restores_the_view(tmp_path):
    steps = """async (page, at, found) => {
      found.total = page.getElementById("whatif-result").dataset.total;
      found.bits = at("#whatif input").value;
      found.notes = at("#whatif .figure").textContent;
    }"""
    found = probe(tmp_path, PAGES["mnist"], steps, "#device=loihi1&bits=2")
    expected = report(COUNTS, "loihi1", Mapping(weight_bits=2))["total"]["energy_pj"]["total"]
    assert [float(value) for value in found["total"].split()] == pytest.approx(expected, rel=1e-9)
    assert found["bits"] == "2"
    assert "no price for their products" in found["notes"]

"""The page prices counts as the report does: every device, mapping and step count, by Node.js."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scope_pages import COUNTS, LIF, LM_COUNTS, T, dense, layer

from fastsnn_jax.energy.mapping import BASELINES, Mapping
from fastsnn_jax.energy.profiles import profile_names
from fastsnn_jax.energy.report import report
from fastsnn_jax.scope import studio
from fastsnn_jax.scope.studio.report_file import device_profiles

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is absent: no script is run")


def run(function, cases):
    """What a function of the page's script makes of each list of arguments."""
    files = ("prices.js", "whatif.js", "text.js")
    folder = Path(studio.__file__).parent / "page"
    script = "\n".join([
        '"use strict"; const panels = {};', *((folder / name).read_text() for name in files),
        "const cases = JSON.parse(require('fs').readFileSync(0));",
        f"console.log(JSON.stringify(cases.map((one) => {function}(...one))));",
    ])
    done = subprocess.run([NODE, "-e", script], input=json.dumps(cases), capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def what_if(cases):
    """What the page prices each (report, profiles, settings) at."""
    return run("whatIf", cases)


def settings_of(made, **changes):
    mapping = made["mapping"]
    steps = max(int(layer["num_steps"]) for layer in made["counts"].values())
    return {"device": made["profile"]["name"], "bits": mapping["weight_bits"], "steps": steps,
            "reuse": mapping["reuse"], "batch": mapping["batch"]} | changes


def assert_priced_alike(priced, made):
    for name, entry in {**priced["layers"], "total": priced["total"]}.items():
        expected = made["total"] if name == "total" else made["layers"][name]
        for part, bounds in expected["energy_pj"].items():
            np.testing.assert_allclose(entry["energy_pj"][part], bounds, rtol=1e-9, err_msg=part)
        for baseline in BASELINES:
            bounds = expected["baselines_pj"][baseline]
            assert (entry["baselines_pj"][baseline] is None) == (bounds is None)
            if bounds is not None:
                np.testing.assert_allclose(entry["baselines_pj"][baseline], bounds, rtol=1e-9)
    assert priced["total"]["verdict"] == made["total"]["verdict"]
    margins = (priced["total"]["margin"], made["total"]["margin"])
    assert (margins[0] is None) == (margins[1] is None)
    if margins[0] is not None:
        np.testing.assert_allclose(*margins, rtol=1e-9)


def random_counts(random):
    """A network of layers of every kind, with counts that need not be possible together."""
    def some(most=10_000):
        return int(random.integers(0, most))

    made = {}
    for i in range(6):
        inputs, outputs = some(1000) + 1, some(1000) + 1
        coding = str(random.choice(["binary", "ternary", "unary", "bitwise", "none"]))
        drive = "analog" if coding == "none" else "spikes"
        neurons = bool(random.integers(2))
        made[f"layer {i}"] = layer(
            kind="other" if i == 5 else "synapse", drive=drive, coding=coding, num_steps=T,
            inputs=inputs, outputs=outputs, weights=some(inputs * outputs) + 1,
            connections=some(inputs * outputs) + 1, active=some(), events=some(), ac=some(10**7),
            mac=some() * (drive == "analog"), product=some(), bias_add=some() * (i % 2),
            updates=some() * neurons, update_ops=LIF[: some(5)] if neurons else (),
            state_words=some(3) * neurons, emitted=some(), activation_words=some() * (i % 2),
            kv_words=some(), elementwise=(("add", some()), ("exp", some()), ("sqrt", some())),
        )
    return made


def test_the_page_prices_every_device_and_mapping_as_the_report_does():
    random = np.random.default_rng(0)
    mappings = [
        Mapping(),
        Mapping(weights="none", state="none", arithmetic="float", baseline="ann_float32"),
        Mapping(reuse=16, batch=8, weight_bits=4, state_bits=32, hops=2.5, baseline="ann_matched"),
        Mapping(update="event", accumulator_bits=16, activation_bits=5, weight_bits=3),
    ]
    made = [report(random_counts(random), device, mapping)
            for device in profile_names() for mapping in mappings]
    assert len({one["total"]["verdict"] for one in made}) > 1
    cases = [(one, {one["profile"]["name"]: one["profile"]}, settings_of(one)) for one in made]
    for one, priced in zip(made, what_if(cases), strict=True):
        assert_priced_alike(priced, one)


def test_at_its_own_settings_a_page_prices_as_its_report():
    made = [report(COUNTS), report(LM_COUNTS, unit="token")]
    cases = [(one, device_profiles(one), settings_of(one)) for one in made]
    for one, priced in zip(made, what_if(cases), strict=True):
        assert_priced_alike(priced, one)


def test_what_if_is_the_report_of_that_device_precision_reuse_and_batch():
    made = report(COUNTS)
    changes = [("yan22", Mapping(weight_bits=4)), ("loihi1", Mapping(batch=64)),
               ("horowitz45", Mapping(reuse=100, weight_bits=32)), ("h100-peak", Mapping())]
    cases = [
        (made, device_profiles(made), settings_of(
            made, device=device, bits=mapping.weight_bits, reuse=mapping.reuse,
            batch=mapping.batch))
        for device, mapping in changes
    ]
    for (device, mapping), priced in zip(changes, what_if(cases), strict=True):
        assert_priced_alike(priced, report(COUNTS, device, mapping))


def test_a_memory_that_the_float_twin_outgrows_gives_way_in_the_page_too():
    made = report(COUNTS, mapping=Mapping(weights="sram-1m", state="sram-8k"))
    (priced,) = what_if([(made, {"horowitz45": made["profile"]}, settings_of(made))])
    assert_priced_alike(priced, made)


def test_twice_the_steps_are_the_counts_of_twice_the_steps():
    made = report(COUNTS)
    doubled = {
        name: dense(one.inputs, one.outputs, 2 * one.events, num_steps=2 * T, emitted=14)
        for name, one in COUNTS.items()
    }
    (priced,) = what_if([(made, device_profiles(made), settings_of(made, steps=2 * T))])
    assert_priced_alike(priced, report(doubled))


def test_tokens_of_the_mean_spikes_cost_the_mean_energy():
    made = report(LM_COUNTS, unit="token")
    spikes = {"block_0/q": [6, 2, 10], "block_0/k": [6, 2, 10], "block_0/up": [10, 0, 20]}
    (picojoules,) = run("tokenEnergy", [(made, spikes)])
    total = made["total"]["energy_pj"]["total"][1]
    np.testing.assert_allclose([picojoules[0], np.mean(picojoules)], total, rtol=1e-9)
    assert picojoules[1] < picojoules[0] < picojoules[2]


def test_tokens_have_no_energy_where_a_layers_spikes_are_unknown():
    made = report(LM_COUNTS, unit="token")
    assert run("tokenEnergy", [(made, {"block_0/q": [6]})]) == [None]

"""Traces beside a run: read back as saved, bounded, refused with a reason where they are bad."""

import json
import zipfile

import numpy as np
import pytest
from scope_pages import EVIL, SPIKES, TEXT, TRACES
from test_record import build as mnist_record

from fastsnn_jax import scope
from fastsnn_jax.record import write_record


def assert_traces_equal(one, two):
    assert list(one) == list(two)
    for kind, layers in one.items():
        if kind == "tokens":
            assert layers == two[kind]
            continue
        assert list(layers) == list(two[kind])
        for name in layers:
            np.testing.assert_array_equal(layers[name], two[kind][name])


def test_traces_are_read_back_as_they_were_saved(tmp_path):
    exact = {**TRACES, **TEXT, "membrane": {EVIL: np.float32([[0.1, -2.0]])},
             "rates": {"hidden": np.float32([0.1])}}
    path = scope.save_traces(tmp_path, exact)
    assert path == tmp_path / "traces.npz"
    loaded = scope.load_traces(tmp_path)
    assert_traces_equal(loaded, {kind: exact[kind] for kind in loaded})
    assert set(loaded) == set(exact)
    again = scope.save_traces(tmp_path / "again.npz", loaded)
    assert again.read_bytes() == path.read_bytes()


def test_a_run_directory_brings_its_traces(tmp_path):
    write_record(tmp_path, mnist_record())
    scope.save_traces(tmp_path, TRACES)
    scope.write(tmp_path, tmp_path / "a.html")
    scope.write(mnist_record(), tmp_path / "b.html", traces=scope.load_traces(tmp_path))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def pickled(path):
    np.savez(path, index=np.array([{}], dtype=object))


def huge(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.npy", bytes(33 << 20))


def half(path):
    scope.save_traces(path, TRACES)
    path.write_bytes(path.read_bytes()[:-200])


def listed(path):
    np.savez(path, index=np.frombuffer(b"[1]", np.uint8))


def without_array(path):
    text = json.dumps({"tokens": None, "raster": ["input"]}).encode()
    np.savez(path, index=np.frombuffer(text, np.uint8))


@pytest.mark.parametrize("spoil", [
    pickled, huge, half, listed, without_array, lambda path: path.write_text("no archive"),
    lambda path: None,
])
def test_a_spoiled_file_of_traces_is_one_error_that_names_it(tmp_path, spoil):
    path = tmp_path / "traces.npz"
    spoil(path)
    with pytest.raises(ValueError, match="traces.npz: expected readable traces of a run") as caught:
        scope.load_traces(path)
    assert "\n" not in str(caught.value)


BAD_TRACES = {
    "no dict": ([], "traces must be a dict"),
    "an unknown entry": ({"spike": {}}, "got ..spike"),
    "no layer": ({"raster": {}}, "1 to 64 layers, got 0"),
    "many layers": ({"raster": {str(i): SPIKES for i in range(65)}}, "1 to 64 layers, got 65"),
    "many neurons": ({"raster": {"a": np.zeros((4, 65))}}, r"at most 512 x 64.*\(4, 65\)"),
    "many steps": ({"membrane": {"a": np.zeros((513, 1))}}, r"keep a few of the neurons"),
    "half a spike": ({"raster": {"a": [[0.5]]}}, "whole numbers in 0..255"),
    "less than no spike": ({"raster": {"a": [[-1]]}}, "whole numbers in 0..255"),
    "NaN spikes": ({"raster": {"a": [[np.nan]]}}, "must be finite"),
    "NaN membranes": ({"membrane": {"a": [[np.nan]]}}, "membrane of a must be finite"),
    "membranes beyond float32": ({"membrane": {"a": [[1e39]]}}, "must be finite"),
    "text for numbers": ({"rates": {"a": ["b"]}}, "must be numbers"),
    "a rate below zero": ({"rates": {"a": [-0.5]}}, ">= 0, got -0.5"),
    "a threshold of nothing": ({"threshold": {"a": 1.0}}, "of a layer with a membrane, got a"),
    "a threshold of NaN": (
        {"membrane": {"a": [[0]]}, "threshold": {"a": float("nan")}}, "threshold of a must be"
    ),
    "lengths that differ": ({"raster": {"a": [[1]], "b": [[1], [0]]}}, "must have one length"),
    "spikes without tokens": ({"token_spikes": {"a": [1]}}, "need the tokens"),
    "more tokens than spikes": (
        {"tokens": ["a", "b"], "token_spikes": {"a": [1]}}, "2 entries, one per token, got 1"
    ),
    "a long token": ({"tokens": ["a" * 65]}, "at most 64 letters"),
    "a number as a token": ({"tokens": [1]}, "at most 64 letters, got 1"),
}


@pytest.mark.parametrize("what", BAD_TRACES)
def test_bad_traces_are_refused_before_anything_is_written(what, tmp_path):
    traces, reason = BAD_TRACES[what]
    for save in (scope.save_traces, lambda out, bad: scope.write(mnist_record(), out, traces=bad)):
        with pytest.raises(ValueError, match=reason):
            save(tmp_path / "x.html", traces)
    assert list(tmp_path.iterdir()) == []

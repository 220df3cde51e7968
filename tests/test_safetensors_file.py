"""Arrays in safetensors files: exact from good ones, one error from bad ones."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_models import content

from fastsnn_jax.pretrained import PretrainedError
from fastsnn_jax.pretrained.safetensors_file import read_header, write_arrays

ARRAYS = {
    "half": np.array([[1.5, -2.0, 0.25]], np.float16),
    "brain": np.array([1.0, -3.0], jnp.bfloat16),
    "single": np.arange(6, dtype=np.float32).reshape(3, 2, 1),
    "double": np.array(2.5),
    "whole": np.array([-1, 7], np.int32),
    "none": np.zeros((0, 4), np.float32),
}


def saved(path, data):
    path.write_bytes(data)
    return path


def assert_same(found, arrays):
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        read = found[name].read()
        assert read.dtype == array.dtype and read.shape == array.shape
        np.testing.assert_array_equal(read, array)


def test_every_dtype_and_shape_comes_back(tmp_path):
    assert_same(read_header(saved(tmp_path / "f", content(ARRAYS))), ARRAYS)


def test_the_order_in_the_header_is_free(tmp_path):
    def turn(header):
        entries = list(header.items())
        header.clear()
        header.update({"__metadata__": {"format": "pt"}}, **dict(reversed(entries)))

    assert_same(read_header(saved(tmp_path / "f", content(ARRAYS, turn))), ARRAYS)


def test_what_is_written_is_read_back_transposed_where_asked(tmp_path):
    arrays = {name: ARRAYS[name] for name in ("brain", "single")}
    write_arrays(tmp_path / "f", arrays, transposed={"single"})
    expected = arrays | {"single": arrays["single"].T}
    assert_same(read_header(tmp_path / "f"), expected)


def test_one_array_of_a_huge_file_is_read_alone(tmp_path):
    huge = 2**40  # bytes: a file full of holes
    header = {"huge": {"dtype": "U8", "shape": [huge], "data_offsets": [0, huge]},
              "last": {"dtype": "F32", "shape": [2], "data_offsets": [huge, huge + 8]}}
    text = json.dumps(header).encode()
    with open(tmp_path / "f", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.seek(huge, os.SEEK_CUR)
        file.write(np.array([3, 4], np.float32).tobytes())
    found = read_header(tmp_path / "f")
    assert found["last"].read().tolist() == [3, 4]
    assert found["huge"].shape == (huge,)


SMALL = {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)}  # 24 and 16 bytes


def changed(name, **entry):
    def change(header):
        header[name] |= entry

    return content(SMALL, change)


def with_header(text):
    return len(text).to_bytes(8, "little") + text


GOOD = content(SMALL)
BAD = {
    "empty": b"",
    "seven_bytes": GOOD[:7],
    "cut_in_the_header": GOOD[:40],
    "cut_in_the_arrays": GOOD[:-1],
    "added_to": GOOD + b"\0",
    "huge_header": b"\xff" * 8 + b"{}",
    "pickle": b"\x80\x04\x95" + b"\0" * 30,
    "no_json": with_header(b"{]"),
    "no_text": with_header(b"\xff\xfe"),
    "no_object": with_header(b"[1]"),
    "deep": with_header(b"[" * 100_000),
    "no_entry": with_header(b'{"a": 3}'),
    "dtype": changed("a", dtype="F31"),
    "negative": changed("a", shape=[-2, -3]),
    "fraction": changed("a", shape=[2.5, 3]),
    "overflow": changed("a", shape=[2**40, 2**40]),
    "too_long": changed("a", shape=[2, 4]),
    "backwards": changed("a", data_offsets=[24, 0]),
    "negative_offset": changed("a", data_offsets=[-8, 16]),
    "overlap": changed("b", data_offsets=[20, 36]),
    "hole": changed("b", data_offsets=[28, 44]),
    "past_the_end": changed("b", data_offsets=[2**50, 2**50 + 16]),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, data):
    with pytest.raises(PretrainedError) as caught:
        read_header(saved(tmp_path / "model.safetensors", data))
    assert str(caught.value).startswith(str(tmp_path / "model.safetensors"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_file_with_a_few_bytes_changed_is_read_or_refused_and_nothing_else(tmp_path):
    random = np.random.default_rng(0)
    path, read, refused = tmp_path / "f", 0, 0
    for _ in range(500):
        data = bytearray(GOOD)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.choice(list(b'0123456789{}[]",:-.etn \x00\xff'))
        path.write_bytes(data)
        try:
            for stored in read_header(path).values():
                stored.read()
            read += 1
        except PretrainedError:
            refused += 1
    assert read > 10 and refused > 100


def test_the_good_file_among_the_bad_ones_is_read(tmp_path):
    assert_same(read_header(saved(tmp_path / "f", GOOD)), SMALL)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(PretrainedError, match="it must be a file"):
            read_header(path)

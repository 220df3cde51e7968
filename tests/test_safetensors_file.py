"""The safetensors reader: exact arrays from good files, one error from bad ones."""

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


def test_the_package_of_the_format_reads_and_writes_the_same(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {name: ARRAYS[name] for name in ("single", "half", "whole")}
    safetensors.save_file(arrays, str(tmp_path / "theirs"))
    assert_same(read_header(tmp_path / "theirs"), arrays)
    write_arrays(tmp_path / "ours", arrays)
    ours = safetensors.load_file(str(tmp_path / "ours"))
    assert ours.keys() == arrays.keys()
    assert all((ours[name] == arrays[name]).all() for name in arrays)


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
    assert found["huge"].read().shape == (huge,)


SMALL = {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)}  # 24 and 16 bytes


def changed(name, **entry):
    def change(header):
        header[name] |= entry

    return content(SMALL, change)


def with_header(text):
    return len(text).to_bytes(8, "little") + text


def entry(**fields):
    whole = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields
    return json.dumps(whole)


GOOD = content(SMALL)
BAD = {
    "empty": (b"", "cut short or no safetensors file"),
    "seven_bytes": (GOOD[:7], "cut short or no safetensors file"),
    "cut_in_the_header": (GOOD[:40], "header must be 2 to 32 bytes long"),
    "cut_in_the_arrays": (GOOD[:-1], "arrays must take 40 bytes, as its header says, got 39"),
    "added_to": (GOOD + b"\0", "arrays must take 40 bytes, as its header says, got 41"),
    "huge_header": (b"\xff" * 8 + b"{}", "must be 2 to 2 bytes long, got 18446744073709551615"),
    "pickle": (b"\x80\x04\x95" + b"\0" * 30, "cut short or no safetensors file"),
    "no_json": (with_header(b"{]"), "Expecting property name"),
    "no_text": (with_header(b"\xff\xfe"), "can't decode"),
    "no_object": (with_header(b"[1]"), "header must be an object, got list"),
    "deep": (with_header(b"[" * 100_000), "recursion|too many nested|Too many|depth"),
    "no_entry": (with_header(b'{"a": 3}'), "fields data_offsets, dtype, shape, got 3"),
    "field_missing": (with_header(b'{"a": {"dtype": "F32"}}'), "a must have the fields"),
    "field_added": (with_header(b'{"a": ' + entry(code="x").encode() + b"}"), "must have the"),
    "twice": (with_header(b'{"a": %s, "a": %s}' % (entry().encode(), entry().encode())) + b"\0" * 4,
              "'a' must stand in the header once"),
    "dtype": (changed("a", dtype="F31"), "dtype of a must be one of F64, .*, got 'F31'"),
    "dtype_list": (changed("a", dtype=["F32"]), "dtype of a must be one of"),
    "negative": (changed("a", shape=[-2, -3]), r"shape of a must be .* counts, got \[-2, -3\]"),
    "boolean": (changed("a", shape=[True, 6]), "shape of a must be"),
    "fraction": (changed("a", shape=[2.0, 3]), "shape of a must be"),
    "many_axes": (changed("a", shape=[1] * 9), "shape of a must be at most 8 counts"),
    "overflow": (changed("a", shape=[2**40, 2**40]), "a must be 4835703278458516698824704 bytes"),
    "too_long": (changed("a", shape=[2, 4]), "a must be 32 bytes long, .*, got 24"),
    "backwards": (changed("a", data_offsets=[24, 0]), "a must be 24 bytes long, .*, got -24"),
    "three_offsets": (changed("a", data_offsets=[0, 24, 24]), "data_offsets of a must be two"),
    "negative_offset": (changed("a", data_offsets=[-8, 16]), "data_offsets of a must be two"),
    "overlap": (changed("b", data_offsets=[20, 36]), "b must begin at byte 24"),
    "hole": (changed("b", data_offsets=[28, 44]), "b must begin at byte 24"),
    "past_the_end": (changed("b", data_offsets=[2**50, 2**50 + 16]), "b must begin at byte 24"),
    "long_number": (with_header(b'{"a": ' + b"9" * 5000 + b"}"), "integer string conversion"),
}


@pytest.mark.parametrize("data, message", BAD.values(), ids=BAD)
def test_a_bad_file_is_one_error_that_names_it(tmp_path, data, message):
    with pytest.raises(PretrainedError, match=message) as caught:
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

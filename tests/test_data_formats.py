"""Laws of the file formats: every value arrives, and every bad file is one clear error."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest

from fastsnn_jax.data import DataError, read_idx
from fastsnn_jax.data.png import decode_grey_pngs


def idx_bytes(values, dtype_code=8):
    values = np.asarray(values, np.uint8)
    head = bytes([0, 0, dtype_code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.tobytes()


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and "expected" in message and "got" in message
    return message


# IDX files


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_values_arrive_in_row_major_order(tmp_path, pack):
    path = tmp_path / "values"
    path.write_bytes(pack(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])))
    np.testing.assert_array_equal(read_idx(path, num_axes=2), [[1, 2, 3], [4, 5, 255]])


GOOD = idx_bytes(np.arange(24).reshape(4, 3, 2))
ZIPPED = gzip.compress(GOOD)
BAD_IDX = {
    "empty file": (b"", "an empty file"),
    "another type": (idx_bytes(np.zeros((4, 3, 2)), dtype_code=13), "00 00 0d 03"),
    "another number of axes": (idx_bytes(np.zeros((4, 3))), "00 00 08 02"),
    "text": (b"<html>not found</html>", "3c 68 74 6d"),
    "cut in the axis lengths": (GOOD[:9], "5 bytes; truncated"),
    "cut in the values": (GOOD[:-1], "only 23; truncated"),
    "trailing byte": (GOOD + b"\0", "trailing bytes"),
    "no values": (idx_bytes(np.zeros((0, 3, 2))), "shape [0, 3, 2]"),
    "lengths beyond memory": (b"\0\0\x08\x03" + b"\xff" * 12, "only 0; truncated"),
    "truncated gzip": (ZIPPED[:-12], "ended before"),
    "gzip without its checksum": (ZIPPED[:-8], "ended before"),
    "wrong gzip checksum": (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "CRC"),
    "corrupt gzip data": (ZIPPED[:10] + b"\xff" + ZIPPED[11:], "invalid block type"),
    "trailing byte in gzip": (gzip.compress(GOOD + b"\0"), "trailing bytes"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_a_bad_idx_file_is_one_line_naming_the_file(tmp_path, case):
    content, got = BAD_IDX[case]
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_idx(path, num_axes=3)
    assert str(path) in one_line(error) and got in str(error.value)


def test_a_missing_idx_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "nothing", num_axes=3)


# PNG


def chunk(name, data):
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png_with(lines, width, height, colour=0):
    """A PNG of filtered lines, its data cut in two chunks."""
    packed = zlib.compress(lines)
    head = struct.pack(">II5B", width, height, 8, colour, 0, 0, 0)
    middle = chunk(b"tEXt", b"a note") + chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IEND", b"")


def png_of(pixels, filters):
    """A grey PNG whose line r is written with filters[r], straight from the specification."""
    height, width = pixels.shape
    padded = np.zeros((height + 1, width + 1), int)
    padded[1:, 1:] = pixels
    lines = b""
    for row, kind in enumerate(filters):
        line = [kind]
        for column in range(width):
            left, above = padded[row + 1, column], padded[row, column + 1]
            corner = padded[row, column]
            nearest = min((left, above, corner), key=lambda n: abs(left + above - corner - n))
            guess = (0, left, above, (left + above) // 2, nearest)[kind]
            line.append((padded[row + 1, column + 1] - guess) % 256)
        lines += bytes(int(value) for value in line)
    return png_with(lines, width, height)


def test_bulk_decoding_equals_pillow_for_every_line_filter():
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(1)
    pngs, expected = [], []
    for _ in range(40):
        pixels = draw.integers(0, 256, (6, 5))
        png = png_of(pixels, draw.integers(0, 5, 6))
        expected.append(np.asarray(image.open(io.BytesIO(png))))
        np.testing.assert_array_equal(expected[-1], pixels)
        pngs.append(png)
    np.testing.assert_array_equal(decode_grey_pngs(pngs, "here"), expected)


PIXELS = np.arange(12).reshape(3, 4)
PNG = png_of(PIXELS, [0, 1, 2])
BAD_PNGS = {
    "not a PNG": [PNG, b"JFIF"],
    "nothing": [b""],
    "cut": [PNG[:50]],
    "no header": [PNG[:8]],
    "colour": [png_with(bytes(15), 4, 3, colour=2)],
    "corrupt data": [PNG[:-30] + bytes(10) + PNG[-20:]],
    "data that cannot be inflated": [PNG[:33] + chunk(b"IDAT", b"no zlib") + PNG[-12:]],
    "two sizes": [PNG, png_of(PIXELS.T, [0, 1, 2, 3])],
    "fewer lines than announced": [png_with(bytes(15), 4, 5)],
    "no images": [],
}


@pytest.mark.parametrize("case", BAD_PNGS)
def test_a_bad_png_is_one_line_naming_the_place(case):
    with pytest.raises(DataError) as error:
        decode_grey_pngs(BAD_PNGS[case], "somewhere")
    assert one_line(error).startswith("somewhere")


def test_an_unknown_line_filter_is_an_error():
    with pytest.raises(DataError, match="line filters 0..4, got 5"):
        decode_grey_pngs([png_with(bytes([5, 1, 2, 3]), 3, 1)], "somewhere")


@pytest.mark.parametrize("position", [20, 45, len(PNG) - 1])
def test_a_chunk_that_does_not_match_its_checksum_is_refused(position):
    damaged = PNG[:position] + bytes([PNG[position] ^ 1]) + PNG[position + 1 :]
    with pytest.raises(DataError, match="to match its checksum"):
        decode_grey_pngs([damaged], "somewhere")

"""Many small grey PNGs at once: the filters are undone for all images together."""

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from fastsnn_jax.data.dataset import DataError, data_error

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY_8_BIT = (8, 0, 0, 0, 0)  # bit depth, colour type, compression, filter method, interlace
SUB, UP, AVERAGE, PAETH = 1, 2, 3, 4


def decode_grey_pngs(pngs: Sequence[bytes], where: str) -> np.ndarray:
    """Decodes 8-bit grey PNGs of one size to ``uint8[n, H, W]``.

    Equal to decoding them one by one with an image library, at a fraction of the time: per image
    only the inflation is left, the rest is one pass over all. Raises DataError, beginning with
    ``where``, on anything else.

    Source: PNG specification, W3C, third edition, sections 9 (filtering) and 11 (chunks).
    """
    sizes = set()
    inflated = []
    for index, png in enumerate(pngs):
        try:
            size, data = _inflate(png)
        except (DataError, struct.error, zlib.error) as error:
            raise data_error(f"{where}, image {index}", "an 8-bit grey PNG", error) from error
        sizes.add(size)
        inflated.append(data)
    if len(sizes) != 1:
        raise data_error(where, "images of one size", f"(width, height) {sorted(sizes)}")
    width, height = sizes.pop()
    if any(len(data) != height * (1 + width) for data in inflated):
        raise data_error(where, f"{height} rows of {width} pixels", "images of another length")
    lines = np.frombuffer(b"".join(inflated), np.uint8)
    return _unfilter(lines.reshape(len(pngs), height, 1 + width), where)


def _inflate(png: bytes) -> tuple[tuple[int, int], bytes]:
    """(width, height) and the filtered lines of one PNG."""
    if not png.startswith(SIGNATURE):
        raise data_error("png", "the PNG signature", png[:8].hex(" ") or "nothing")
    chunks = list(_chunks(png))
    width, height, *layout = struct.unpack(">II5B", b"".join(d for k, d in chunks if k == b"IHDR"))
    if tuple(layout) != GREY_8_BIT:
        raise data_error("png", f"layout {GREY_8_BIT}", tuple(layout))
    return (width, height), zlib.decompress(b"".join(d for k, d in chunks if k == b"IDAT"))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of every chunk, each held against its checksum."""
    position = len(SIGNATURE)
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        end = position + 8 + length
        (checksum,) = struct.unpack_from(">I", png, end)
        if checksum != zlib.crc32(png[position + 4 : end]):
            raise data_error("png", f"chunk {kind!r} to match its checksum", f"{checksum:08x}")
        yield kind, png[position + 8 : end]
        position = end + 4


def _unfilter(lines: np.ndarray, where: str) -> np.ndarray:
    """Undoes the per-line filters. lines: [n, H, 1 + W], the filter's number first."""
    if lines[:, :, 0].max() > PAETH:
        raise data_error(where, f"line filters 0..{PAETH}", lines[:, :, 0].max())
    pixels = lines[:, :, 1:].copy()
    above = np.zeros_like(pixels[:, 0])
    for row in range(pixels.shape[1]):
        kind, line = lines[:, row, 0], pixels[:, row]  # line is a view: edits land in pixels
        line[kind == SUB] = np.cumsum(line[kind == SUB], axis=1, dtype=np.uint8)
        line[kind == UP] += above[kind == UP]
        for filter_kind, predict in ((AVERAGE, _average), (PAETH, _paeth)):
            chosen = kind == filter_kind
            line[chosen] = _unpredict(line[chosen], above[chosen], predict)
        above = line
    return pixels


def _unpredict(line: np.ndarray, above: np.ndarray, predict) -> np.ndarray:
    """Adds to each pixel its prediction from left, above and above left; int16 holds the sums."""
    line, above = line.astype(np.int16), above.astype(np.int16)
    left = above_left = np.zeros(len(line), np.int16)
    for column in range(line.shape[1]):
        left = (line[:, column] + predict(left, above[:, column], above_left)) % 256
        line[:, column] = left
        above_left = above[:, column]
    return line.astype(np.uint8)


def _average(left: np.ndarray, above: np.ndarray, above_left: np.ndarray) -> np.ndarray:
    return (left + above) // 2


def _paeth(left: np.ndarray, above: np.ndarray, above_left: np.ndarray) -> np.ndarray:
    """The neighbour nearest to left + above - above_left; ties in that order."""
    guess = left + above - above_left
    to_left, to_above, to_above_left = (abs(guess - n) for n in (left, above, above_left))
    nearest_above = np.where(to_above <= to_above_left, above, above_left)
    return np.where((to_left <= to_above) & (to_left <= to_above_left), left, nearest_above)

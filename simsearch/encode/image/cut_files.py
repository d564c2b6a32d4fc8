"""Cut files: pictures whose last bytes are missing, made whole as far as viewers show them.

What is missing is filled up, so that the decoder finds a whole file. Which rows are really there
follows from filling it up in two ways: rows that differ depend on what was made up.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsearch.encode.image.containers.file_headers import png_chunk
from simsearch.encode.image.containers.header_walk import FileHeaders
from simsearch.errors import BadContent

ROWS_MIN: Final = 0.25
"""The share of its rows that a file needs to be looked at."""

_FILL_BYTES: Final = 4_096
_NOISES: Final = 4
"""Ways in which a WebP is filled up, at most."""

_PIECE_BYTES: Final = 1 << 20

_NOISE: Final = random.Random(0).randbytes(_FILL_BYTES).replace(b"\xff", b"\x7f")
"""No byte of it begins a marker of JPEG."""


def made_whole(file: FileHeaders) -> tuple[FileHeaders, float]:
    """A file that decodes, and the share of its rows that are those of the file given. Raises
    BadContent where too few are, and what Pillow raises where it is broken otherwise."""
    fill = _FILLS.get(file.format)
    if fill is None:
        raise BadContent(f"the {file.format} image ends too early")
    whole, share = fill(file)
    if share < ROWS_MIN:
        raise BadContent(f"less than a quarter of the {file.format} image is there")
    return replace(file, drawing=whole, cut=True, short=0), share


def _jpeg(file: FileHeaders) -> tuple[bytes, float]:
    data = file.drawing
    end = b"\xff\xd9"
    if data.count(b"\xff\xda") > 1:  # of several scans the first one has every row
        return data + end, 1.0
    return data + end, _same_rows(file, data + end, data + _NOISE + end)


def _webp(file: FileHeaders) -> tuple[bytes, float]:
    """Its header walk has filled it up with zeros."""
    there = file.drawing[: len(file.drawing) - file.short]
    for noise in _noises(file.short):
        try:
            return file.drawing, _same_rows(file, file.drawing, there + noise)
        except OSError:  # noise that is no picture: the next may be one
            continue
    return file.drawing, len(there) / len(file.drawing)


def _noises(size: int) -> Iterator[bytes]:
    for seed in range(_NOISES):
        yield random.Random(seed).randbytes(size)


def _gif(file: FileHeaders) -> tuple[bytes, float]:
    """Filled up with codes of colour 0, of 12 bits at most. Rows of that colour alone count as
    missing, and the last that has others as one that is there in part."""
    assert file.size is not None
    blocks = 3 * file.size[0] * file.size[1] // 2 // 255 + 2
    whole = file.drawing[:-2] + (b"\xff" + bytes(255)) * blocks + b"\0;"
    with Image.open(BytesIO(whole), formats=("GIF",)) as image:
        shown = np.asarray(image).reshape(image.size[1], -1)
    there = np.count_nonzero(shown.any(axis=1))
    return whole, max(int(there) - 1, 0) / len(shown)


def _png(file: FileHeaders) -> tuple[bytes, float]:
    """The pixels that can be unpacked, then zeros."""
    assert file.size is not None
    chunks = list(_chunks(file.drawing))
    header = next(body for kind, body in chunks if kind == b"IHDR")
    wanted = _png_bytes(file.size, header[8], header[9], header[12])
    packed = b"".join(body for kind, body in chunks if kind == b"IDAT")
    pixels, there = _repacked(packed, wanted)
    kept = [(kind, body) for kind, body in chunks if kind not in (b"IDAT", b"IEND")]
    kept += [(b"IDAT", pixels), (b"IEND", b"")]
    return file.drawing[:8] + b"".join(png_chunk(*each) for each in kept), there / wanted


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


# Adam7: where each pass begins and how far its pixels lie apart, across and down.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _png_bytes(size: tuple[int, int], depth: int, colour: int, interlaced: int) -> int:
    """Of all rows, unpacked, each with the byte of its filter. Raises KeyError."""
    bits = depth * _CHANNELS[colour]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        width, height = -((left - size[0]) // across), -((top - size[1]) // down)
        if width > 0:
            total += max(height, 0) * (1 + (width * bits + 7) // 8)
    return total


def _repacked(packed: bytes, wanted: int) -> tuple[bytes, int]:
    """`wanted` bytes, of which so many come from the file. Piece by piece: a file may unpack to
    more than there are pixels."""
    unpacker, packer = zlib.decompressobj(), zlib.compressobj(1)
    done, there, rest = [], 0, packed
    while rest and there < wanted:
        try:
            piece = unpacker.decompress(rest, min(_PIECE_BYTES, wanted - there))
        except zlib.error:
            break
        done.append(packer.compress(piece))
        there += len(piece)
        rest = unpacker.unconsumed_tail
        if not piece:
            break
    for _ in range(there, wanted, _PIECE_BYTES):
        done.append(packer.compress(bytes(_PIECE_BYTES)))
    return b"".join((*done, packer.flush())), there


def _same_rows(file: FileHeaders, one: bytes, other: bytes) -> float:
    """The share of rows, from the top, before the first in which two files differ."""
    shown = [_rows(file.format, data) for data in (one, other)]
    if shown[0].shape != shown[1].shape:
        raise BadContent(f"the {file.format} image is not what its headers say")
    differing = np.flatnonzero((shown[0] != shown[1]).any(axis=1))
    return float(differing[0]) / len(shown[0]) if len(differing) else 1.0


def _rows(name: str, data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data), formats=(name,)) as image:
        return np.asarray(image).reshape(image.size[1], -1)


_FILLS: Final[Mapping[str, Callable[[FileHeaders], tuple[bytes, float]]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
}

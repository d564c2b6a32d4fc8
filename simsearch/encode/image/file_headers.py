"""File headers: format, size, frames and orientation of an image, read before any decoder.

Decoders were written to show files, not to survive them: Pillow alone can be made to keep
hundreds of megabytes of EXIF, to walk millions of empty chunks, or to unpack text nobody reads.
So the containers are walked here with bounds, and the decoder is handed nothing but what draws
its frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from simsearch.errors import BadContent, ContentTooLarge

PIECES_MAX = 200_000
"""Segments, chunks or blocks of one file; a 20 MiB GIF has 82,000 by its format."""

SCANS_MAX = 128
"""Passes over a progressive JPEG: each costs a walk over the whole picture, and encoders use 10."""

_RE_ENCODE = "re-encode it with an ordinary image tool and send it again"


@dataclass(frozen=True)
class FileHeaders:
    """`format` as Pillow names it; `size` is (width, height) as stored, before `orientation`
    (EXIF, 1 to 8); `drawing` is a smaller file of that format with what draws its frames, of a GIF
    the first `frames_max` (WebP: as it came, its decoder is bounded)."""

    format: str
    size: tuple[int, int]
    frames: int
    orientation: int
    drawing: bytes = field(repr=False)


def read_file_headers(data: bytes, frames_max: int) -> FileHeaders:
    """Read the headers. Raises BadContent for what is no JPEG, PNG, WebP or GIF or ends too early,
    and ContentTooLarge for too many pieces."""
    name, walk = _recognise(data)
    try:
        return walk(data, _Budget(name, frames_max))
    except (IndexError, struct.error):
        raise BadContent(f"the {name} file ends too early: send the whole file") from None


@dataclass
class _Budget:
    """How much of one file may still be walked."""

    name: str
    frames_max: int
    pieces_left: int = PIECES_MAX

    def piece(self) -> None:
        self.pieces_left -= 1
        if self.pieces_left < 0:
            raise ContentTooLarge(
                f"the {self.name} file is cut into more than {PIECES_MAX} pieces: {_RE_ENCODE}"
            )

    def bad(self, what: str) -> BadContent:
        return BadContent(f"the {self.name} file {what}: {_RE_ENCODE}")


_Walk = Callable[[bytes, _Budget], FileHeaders]


def _recognise(data: bytes) -> tuple[str, _Walk]:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", _walk_jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _walk_png
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", _walk_gif
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", _walk_webp
    raise BadContent("not a JPEG, PNG, WebP or GIF file: convert it to one of these")


def _walk_jpeg(data: bytes, budget: _Budget) -> FileHeaders:
    kept, size, orientation = [data[:2]], None, 0
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        budget.piece()
        marker = data[at + 1]
        if marker == 0xDA:
            return _jpeg(data, at, kept, size, orientation, budget)
        if marker in _JPEG_LONE:
            at += 1 if marker == 0xFF else 2
            continue
        segment = data[at : at + 2 + _u16(data, at + 2)]
        if marker in _JPEG_FRAMES:
            size = _u16(segment, 7), _u16(segment, 5)
        if marker == 0xE1 and not orientation and segment[4:10] == b"Exif\0\0":
            orientation = _orientation(segment[4:])
        if _draws_jpeg(marker, segment):
            kept.append(segment)
        at += max(len(segment), 2)
    raise BadContent("the JPEG file ends too early: send the whole file")


# Padding, escaped 0xFF, TEM, RST0-7 and a second SOI: markers without a length.
_JPEG_LONE = frozenset({0x00, 0xFF, 0x01, 0xD8, *range(0xD0, 0xD8)})
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _draws_jpeg(marker: int, segment: bytes) -> bool:
    """Of the application data only what names the colour model; all tables and frame headers."""
    if 0xE0 <= marker <= 0xEF or marker == 0xFE:
        return segment[4:9] in (b"JFIF\0", b"Adobe")
    return True


def _jpeg(
    data: bytes,
    scan: int,
    kept: list[bytes],
    size: tuple[int, int] | None,
    orientation: int,
    budget: _Budget,
) -> FileHeaders:
    if size is None:
        raise budget.bad("has no frame header")
    if data.count(b"\xff\xda", scan) > SCANS_MAX:
        raise ContentTooLarge(f"the JPEG file has more than {SCANS_MAX} scans: {_RE_ENCODE}")
    return FileHeaders("JPEG", size, 1, orientation or 1, b"".join(kept) + data[scan:])


def _walk_png(data: bytes, budget: _Budget) -> FileHeaders:
    if data[12:16] != b"IHDR":
        raise budget.bad("does not begin with its header chunk")
    size, depth = (_u32be(data, 16), _u32be(data, 20)), data[24]
    kept, orientation, frames, default = [data[:8]], 1, 0, False
    at, kind = 8, b""
    while kind != b"IEND":
        budget.piece()
        kind, end = data[at + 4 : at + 8], at + 12 + _u32be(data, at)
        data[end - 1]  # a chunk that is cut off raises here
        if kind == b"fcTL":
            frames += 1
        elif kind == b"IDAT":
            default = default or not frames  # a picture of its own, before the animation
        elif kind == b"eXIf":
            orientation = _orientation(data[at + 8 : end - 4])
        if _draws_png(kind, depth):
            kept.append(data[at:end])
        at = end
    count = frames + default if frames else 1
    return FileHeaders("PNG", size, count, orientation, b"".join(kept))


def _draws_png(kind: bytes, depth: int) -> bool:
    """Pillow compares a 16-bit transparent colour with pixels it has cut to 8 bits: without it
    the colour shows, which is what other decoders do with a key that matches no pixel."""
    return kind in _PNG_KEPT or (kind == b"tRNS" and depth != 16)


_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})


def _walk_gif(data: bytes, budget: _Budget) -> FileHeaders:
    head = 13 + _gif_palette(data[10])
    size = _u16le(data, 6), _u16le(data, 8)
    kept, frames, control = [data[:head]], 0, b""
    at = head
    while at < len(data) or not frames:
        kind = data[at]
        if kind == 0x2C:
            end = _gif_blocks(data, at + 11 + _gif_palette(data[at + 9]), budget)
            frames += 1
            if frames <= budget.frames_max:
                kept += (control, data[at:end])
                size = _gif_extent(data, at, size)
            control = b""
        elif kind == 0x21:
            end = _gif_blocks(data, at + 2, budget)
            if data[at + 1] == 0xF9:
                control = data[at:end]
        elif frames:  # the trailer, or what is left of one
            break
        else:
            raise budget.bad("has no picture in it")
        at = end
    return FileHeaders("GIF", size, frames, 1, b"".join((*kept, b";")))


def _gif_palette(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks(data: bytes, at: int, budget: _Budget) -> int:
    """Where the run of length-prefixed blocks at `at` ends."""
    while length := data[at]:
        budget.piece()
        at += length + 1
    return at + 1


def _gif_extent(data: bytes, at: int, screen: tuple[int, int]) -> tuple[int, int]:
    """The screen, grown to hold the frame at `at`, as Pillow grows it."""
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    return max(screen[0], left + width), max(screen[1], top + height)


def _walk_webp(data: bytes, budget: _Budget) -> FileHeaders:
    total = 8 + _u32le(data, 4)
    data[total - 1]  # a file that is cut off raises here
    size, orientation, frames = _webp_size(data, budget), 1, 0
    at = 12
    while at + 8 <= total:
        budget.piece()
        kind, length = data[at : at + 4], _u32le(data, at + 4)
        if kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            orientation = _orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return FileHeaders("WEBP", size, max(frames, 1), orientation, data[:total])


def _webp_size(data: bytes, budget: _Budget) -> tuple[int, int]:
    """From the first chunk: extended (24 bits), lossless (14 bits) or lossy (14 bits)."""
    kind = data[12:16]
    if kind == b"VP8X":
        sides = _u32le(data, 23) >> 8, _u32le(data, 26) >> 8
        return sides[0] + 1, sides[1] + 1
    if kind == b"VP8L":
        packed = _u32le(data, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _u16le(data, 26) & 0x3FFF, _u16le(data, 28) & 0x3FFF
    raise budget.bad("does not begin with a picture chunk")


def _orientation(exif: bytes) -> int:
    """EXIF tag 0x0112, or 1 (upright) where it is absent or broken: viewers do the same."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        at = struct.unpack_from(order + "I", tiff, 4)[0]
        for entry in range(struct.unpack_from(order + "H", tiff, at)[0]):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * entry)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _u16(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", data, at)[0])


def _u32be(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _u16le(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", data, at)[0])


def _u32le(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])

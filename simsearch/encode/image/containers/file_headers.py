"""File headers: format, size, frames, orientation and profile of an image, read before any decoder.

Decoders were written to show files, not to survive them: Pillow alone can be made to keep
hundreds of megabytes of EXIF, to walk millions of empty chunks, or to unpack text nobody reads.
So the containers are walked here with bounds, and the decoder is handed nothing but what draws
its frames.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from simsearch.encode.image.containers.header_walk import (
    PROFILE_BYTES_MAX,
    RE_ENCODE,
    FileHeaders,
    WalkBudget,
    large_profile,
    orientation_of,
)
from simsearch.encode.image.containers.raster_headers import (
    box_format,
    walk_bmp,
    walk_boxes,
    walk_tiff,
)
from simsearch.errors import BadContent, ContentTooLarge

SHORT_TIMES_MAX = 4
"""Of a WebP file that is cut off, how much may be missing, in times what is there."""

SCANS_MAX = 128
"""Passes over a progressive JPEG: each costs a walk over the whole picture, and encoders use 10."""


def read_file_headers(data: bytes, frames_max: int) -> FileHeaders:
    """Read the headers. Raises BadContent for what is no picture file or ends before its pixels,
    and ContentTooLarge for too many pieces."""
    name, walk = _recognise(data)
    try:
        return walk(data, WalkBudget(name, frames_max))
    except (IndexError, struct.error):
        raise BadContent(f"the {name} file ends too early: send the whole file") from None


_Walk = Callable[[bytes, WalkBudget], FileHeaders]


def _recognise(data: bytes) -> tuple[str, _Walk]:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", _walk_jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _walk_png
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", _walk_gif
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", _walk_webp
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF", walk_tiff
    if data.startswith(b"BM"):
        return "BMP", walk_bmp
    if boxes := box_format(data):
        return boxes, walk_boxes
    raise BadContent(f"not a file of {FORMATS}: convert it to one of these")


FORMATS = "JPEG, PNG, WebP, GIF, AVIF, BMP, TIFF or HEIF"


def _walk_jpeg(data: bytes, budget: WalkBudget) -> FileHeaders:
    kept, size, orientation = [data[:2]], None, 0
    profile: list[bytes] = []
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        budget.piece()
        marker = data[at + 1]
        if marker == 0xDA:
            drawing = b"".join(kept) + data[at:]
            headers = FileHeaders("JPEG", size, 1, orientation or 1, drawing)
            return _jpeg(data, at, headers, profile, budget)
        if marker in _JPEG_LONE:
            at += 1 if marker == 0xFF else 2
            continue
        segment = data[at : at + 2 + _u16(data, at + 2)]
        if marker in _JPEG_FRAMES:
            size = _u16(segment, 7), _u16(segment, 5)
        if marker == 0xE1 and not orientation and segment[4:10] == b"Exif\0\0":
            orientation = orientation_of(segment[4:])
        if marker == 0xE2 and segment[4:16] == b"ICC_PROFILE\0":
            profile.append(segment[16:])
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
    data: bytes, scan: int, headers: FileHeaders, profile: list[bytes], budget: WalkBudget
) -> FileHeaders:
    if headers.size is None:
        raise budget.bad("has no frame header")
    if data.count(b"\xff\xda", scan) > SCANS_MAX:
        raise ContentTooLarge(f"the JPEG file has more than {SCANS_MAX} scans: {RE_ENCODE}")
    size = sum(len(piece) - 2 for piece in profile)
    if size > PROFILE_BYTES_MAX:
        return replace(headers, unseen=(large_profile(size),))
    # Each piece has its number, from 1, and how many there are.
    return replace(headers, profile=b"".join(piece[2:] for piece in sorted(profile)))


def _walk_png(data: bytes, budget: WalkBudget) -> FileHeaders:
    if data[12:16] != b"IHDR":
        raise budget.bad("does not begin with its header chunk")
    size, depth = (_u32be(data, 16), _u32be(data, 20)), data[24]
    kept, orientation, frames, default = [data[:8]], 1, 0, False
    profile, kind = b"", b""
    for kind, chunk in _png_chunks(data, budget):
        if kind == b"fcTL":
            frames += 1
        elif kind == b"IDAT":
            default = default or not frames  # a picture of its own, before the animation
        elif kind == b"eXIf":
            orientation = orientation_of(chunk[8:-4])
        elif kind == b"iCCP" and not profile:
            profile = _png_profile(chunk[8:-4])
        if _draws_png(kind, depth):
            kept.append(chunk)
    if not default and not frames:
        raise BadContent("the PNG file ends too early: send the whole file")
    if cut := kind != b"IEND":
        kept.append(png_chunk(b"IEND", b""))
    count = frames + default if frames else 1
    headers = FileHeaders("PNG", size, count, orientation, b"".join(kept), cut=cut)
    if len(profile) > PROFILE_BYTES_MAX:
        return replace(headers, unseen=(large_profile(PROFILE_BYTES_MAX),))
    return replace(headers, profile=profile)


def _png_chunks(data: bytes, budget: WalkBudget) -> Iterator[tuple[bytes, bytes]]:
    """Kind and chunk, to the last; of one that is cut off what is there, if it is of pixels."""
    at, kind = 8, b""
    while kind != b"IEND" and at + 8 <= len(data):
        budget.piece()
        kind, end = data[at + 4 : at + 8], at + 12 + _u32be(data, at)
        if end > len(data):
            if kind == b"IDAT":
                yield kind, png_chunk(kind, data[at + 8 : end - 4])
            return
        yield kind, data[at:end]
        at = end


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_profile(body: bytes) -> bytes:
    """One byte more than PROFILE_BYTES_MAX at most; of a broken one what can be unpacked."""
    packed = body.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(packed, PROFILE_BYTES_MAX + 1)
    except zlib.error:
        return b"broken"


def _draws_png(kind: bytes, depth: int) -> bool:
    """Pillow compares a 16-bit transparent colour with pixels it has cut to 8 bits: without it
    the colour shows, which is what other decoders do with a key that matches no pixel."""
    return kind in _PNG_KEPT or (kind == b"tRNS" and depth != 16)


_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})


def _walk_gif(data: bytes, budget: WalkBudget) -> FileHeaders:
    head = 13 + _gif_palette(data[10])
    size = _u16le(data, 6), _u16le(data, 8)
    kept, frames, cut, whole = [data[:head]], 0, False, True
    for control, frame, whole in _gif_frames(data, head, budget):
        cut = not whole
        if cut and frames:  # what is there of a later frame shows nobody anything
            whole = True
            break
        frames += 1
        if frames <= budget.frames_max:
            kept += (control, frame)
            size = _gif_extent(frame, 0, size)
    if not frames:
        raise budget.bad("has no picture in it")
    short = int(cut and frames == 1 and not whole)
    return FileHeaders("GIF", size, frames, 1, b"".join((*kept, b";")), cut=cut, short=short)


def _gif_frames(data: bytes, at: int, budget: WalkBudget) -> Iterator[tuple[bytes, bytes, bool]]:
    """Of each frame its control block, its picture, and whether that is whole."""
    control = b""
    while at < len(data):
        kind = data[at]
        begin = at
        if kind == 0x2C:
            at, whole = _gif_blocks(data, at + 11 + _gif_palette(data[at + 9]), budget)
            yield control, data[begin:at] if whole else _gif_ended(data, begin), whole
            control = b""
        elif kind == 0x21 and at + 2 < len(data):
            at, whole = _gif_blocks(data, at + 2, budget)
            if data[begin + 1] == 0xF9 and whole:
                control = data[begin:at]
        else:  # the trailer, or what is left of one
            return


def _gif_ended(data: bytes, at: int) -> bytes:
    """A frame that is cut off, with its last block made to end where the file does."""
    head = at + 11 + _gif_palette(data[at + 9])
    blocks, last = [data[at:head]], head
    while last < len(data):
        block = data[last + 1 : last + 1 + data[last]]
        blocks.append(bytes([len(block)]) + block if block else b"")
        last += 1 + data[last]
    return b"".join((*blocks, b"\0"))


def _gif_palette(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks(data: bytes, at: int, budget: WalkBudget) -> tuple[int, bool]:
    """Where the run of length-prefixed blocks at `at` ends, and whether it is whole."""
    while at < len(data) and (length := data[at]):
        budget.piece()
        at += length + 1
    return at + 1, at < len(data)


def _gif_extent(data: bytes, at: int, screen: tuple[int, int]) -> tuple[int, int]:
    """The screen, grown to hold the frame at `at`, as Pillow grows it."""
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    return max(screen[0], left + width), max(screen[1], top + height)


def _walk_webp(data: bytes, budget: WalkBudget) -> FileHeaders:
    total = min(8 + _u32le(data, 4), len(data))
    size, orientation, frames = _webp_size(data, budget), 1, 0
    at = 12
    while at + 8 <= total:
        budget.piece()
        kind, length = data[at : at + 4], _u32le(data, at + 4)
        if kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            orientation = orientation_of(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    short = 8 + _u32le(data, 4) - total
    if short > SHORT_TIMES_MAX * total:
        raise BadContent("the WebP file ends too early: send the whole file")
    drawing = data[:total] + bytes(short)
    return FileHeaders(
        "WEBP", size, max(frames, 1), orientation, drawing, cut=short > 0, short=short
    )


def _webp_size(data: bytes, budget: WalkBudget) -> tuple[int, int]:
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


def _u16(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", data, at)[0])


def _u32be(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _u16le(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", data, at)[0])


def _u32le(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])

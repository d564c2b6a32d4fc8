"""Image files that were made to do harm or that few decoders have met, each with what it must come
to: the reason that it is refused for, or ANSWERED."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Final

import numpy as np
from PIL import Image

from tests.encode.pictures import chunk, copies, landscape, png, saved

ANSWERED: Final = ""
BAD: Final = "BAD_CONTENT"
TOO_LARGE: Final = "CONTENT_TOO_LARGE"

SMALL: Final = landscape(9, (48, 32))
FRAMES: Final = [landscape(seed, (24, 16)) for seed in range(20, 25)]


def hostile_images() -> dict[str, tuple[bytes, str]]:
    """By what they are."""
    return {**_bombs(), **_polyglots(), **_animations(), **_modes(), **_cut_off()}


def _bombs() -> dict[str, tuple[bytes, str]]:
    flat = Image.new("P", (2_000, 1_999))
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000), 9))
    high, wide = Image.new("L", (1, 60_000), 1), Image.new("L", (60_000, 1), 1)
    return {
        "a PNG that claims 2.5 billion pixels": (png((50_000, 50_000), 8, 2, b""), TOO_LARGE),
        "a PNG of 100 million pixels in 12 KB": (_zeros((10_000, 10_000)), TOO_LARGE),
        "a PNG of all the pixels that may be": (saved(flat, "PNG", optimize=True), ANSWERED),
        "a PNG with 50 MB for 64 pixels": (png((8, 8), 8, 0, bytes(50_000_000)), ANSWERED),
        "a PNG with texts of 20 MB": (png((8, 8), 8, 0, bytes(72), *[text] * 10), ANSWERED),
        "a PNG of negative width": (png((0xFFFFFFF0, 2), 8, 0, b""), TOO_LARGE),
        "a GIF that claims 4 billion pixels": (_gif_of(0xFFFF, 0xFFFF), TOO_LARGE),
        "a JPEG that claims 4 billion pixels": (_jpeg_of(0xFFFF, 0xFFFF), TOO_LARGE),
        "a WebP that claims 270 million pixels": (_webp_of(0x3FFF, 0x3FFF), TOO_LARGE),
        "a PNG one pixel wide": (saved(high, "PNG"), ANSWERED),
        "a JPEG one pixel high": (saved(wide, "JPEG"), ANSWERED),
    }  # fmt: skip


def _zeros(size: tuple[int, int]) -> bytes:
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + size[0] // 8)) for _ in range(size[1])]
    data = b"".join([*rows, packer.flush()])
    header = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts])


def _gif_of(width: int, height: int) -> bytes:
    data = saved(SMALL, "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def _jpeg_of(width: int, height: int) -> bytes:
    data = saved(SMALL, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _webp_of(width: int, height: int) -> bytes:
    data = saved(SMALL, "WEBP")
    assert data[12:16] == b"VP8 "
    return data[:26] + struct.pack("<HH", width, height) + data[30:]


def _polyglots() -> dict[str, tuple[bytes, str]]:
    jpeg, gif, picture = (saved(SMALL, form) for form in ("JPEG", "GIF", "PNG"))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("run.sh", "#!/bin/sh\n" * 1_000)
    html = b"<html><script>alert(1)</script></html>"
    return {
        "a JPEG that is a ZIP, too": (jpeg + archive.getvalue(), ANSWERED),
        "a PNG that is a ZIP, too": (picture + archive.getvalue(), ANSWERED),
        "a GIF that is a page, too": (gif + html, ANSWERED),
        "a GIF that is a script, too": (b"GIF89a/*" + gif[8:] + b"*/=1;", ANSWERED),
        "a ZIP that is a JPEG, too": (archive.getvalue() + jpeg, BAD),
        "a page that is a GIF, too": (html + gif, BAD),
        "a JPEG in a PNG's clothes": (picture[:8] + jpeg, BAD),
        "a WebP of nothing but metadata": (_webp_of_metadata(), BAD),
        "a PDF": (saved(SMALL, "PDF"), BAD),
        "a PostScript": (saved(SMALL, "EPS"), BAD),
        "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///'/></svg>", BAD),
    }


def _webp_of_metadata() -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0]) + b"\x10\0\0\x10\0\0"
    body += b"EXIF" + struct.pack("<I", 4) + b"II*\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _animations() -> dict[str, tuple[bytes, str]]:
    first, *rest = FRAMES
    moving = {
        f"a {form} of five frames": (
            saved(first, form, save_all=True, append_images=rest),
            ANSWERED,
        )
        for form in ("GIF", "WEBP", "PNG")
    }
    dots = [Image.new("1", (1, 1), shade % 2) for shade in range(301)]
    many = saved(dots[0], "GIF", save_all=True, append_images=dots[1:])
    return {**moving, "a GIF of 301 frames": (many, ANSWERED)}


def _modes() -> dict[str, tuple[bytes, str]]:
    names = {f"{name}": (data, ANSWERED) for name, data in copies(SMALL).items()}
    dithered = Image.fromarray(np.eye(64, dtype=bool))
    return {**names, "a 1-bit PNG by itself": (saved(dithered, "PNG"), ANSWERED)}


def _cut_off() -> dict[str, tuple[bytes, str]]:
    whole = {form: saved(SMALL, form) for form in ("JPEG", "PNG", "WEBP", "GIF")}
    ends = {"JPEG": BAD, "PNG": ANSWERED, "WEBP": BAD, "GIF": ANSWERED}  # with few rows, or some
    cut = {f"half a {form}": (data[: len(data) // 2], ends[form]) for form, data in whole.items()}
    start = {f"the start of a {form}": (data[:12], BAD) for form, data in whole.items()}
    return {"nothing": (b"", "EMPTY_CONTENT"), "one byte": (b"\xff", BAD), **cut, **start}

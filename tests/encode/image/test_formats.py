"""Formats beyond the four of the web, each with its bounds, here and in a confined worker."""

from __future__ import annotations

import base64
import importlib.util
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsearch.encode.image.decoder import ImageDecoder, ImageRequest, PdqRows, decode_image
from simsearch.encode.image.picture import ImageLimits, has_decoder
from simsearch.encode.sandbox.sandboxed_decoder import Sandbox, SandboxOptions
from simsearch.errors import BadContent, ContentTooLarge, SimsearchError
from tests.encode.image.test_colour_profiles import large
from tests.encode.pictures import landscape, opened, pixels, png, saved

PHOTO = landscape(1, (200, 150))
ASK = ImageRequest(PdqRows.DIHEDRAL, (), 0, 16)
HAS_HEIF = importlib.util.find_spec("pi_heif") is not None

HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAA"
    "AAAAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAAcgAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34"
    "+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoDCBBZbqSSmu"
    "bgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABgAAAA"
    "QAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAdBtZGF0AAABxCgBrxmA5hKBTYeVD0es"
    "3vGesqWDx3AthL61PgTkPh466g04QpCDhDXmxV4pEs+x+GASzD5tn7GTqLBLEbD1n/jef4eefhSG2rs50oaly5HU"
    "moXts48guoxO0eoU1kf0PNzfzxtsqxWGTyLLEL1PUAOVbJtrIt19Gu664bQyFb1Ww76DMQWLWrVyEwTZgiCMmbsn"
    "ZV7uoViJhY15WEzI3G4Ubs4JorCobDCKG5p6Tk0nD8W64havYGS9T2cRoop1Xqqk4DfyOY/LCL4wWW0vo+NZpVpX"
    "zpmJGbUkdCf6PlZZH00aOhXyM0t/aLM6LKfJQoZJXRjelO6mQdPfyhnsbD9LGFwfSA+fx2p43zlWpHLCxYs27wlD"
    "yFlkMBAWLja0mLV4UjUa+mBlyDWaHphhQ1TJoILWWlSYRjg7asfIauXAgT3Zm1Et6C3SUfkwexuaJ9/LOSwpX3iB"
    "WVMqCOFgTBwEahT322ZONmSwCAmAdUPx7zml7wRspmQbitjphD0ncYAtrTpMi/phgv3w5HdHJpWNj1fUYB6xESHZ"
    "R/fpz1YaC+h7WKYVWYrN8q+1oKOTqy20axAg4Wq8x9uNSsZLEiHqlwag"
)
"""96 × 64: redder to the right, greener downwards, and a chequer of blue."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    worker = Sandbox(ImageLimits(), SandboxOptions(workers=1))
    worker.open()
    yield worker
    worker.close()


# ---------------------------------------------------------------- what they show


@pytest.mark.parametrize(
    ("format", "mode", "options", "loss"),
    [
        ("BMP", "RGB", {}, 0),
        ("BMP", "L", {}, 30),
        ("BMP", "P", {}, 20),
        ("AVIF", "RGB", {"quality": 90}, 6),
        ("AVIF", "RGB", {"quality": 90, "subsampling": "4:4:4"}, 6),
        ("TIFF", "RGB", {}, 0),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 0),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}, 0),
        ("TIFF", "RGB", {"compression": "jpeg"}, 8),
        ("TIFF", "CMYK", {}, 6),
        ("TIFF", "I;16", {}, 30),
        ("TIFF", "L", {"big_tiff": True}, 30),
    ],
)
def test_a_picture_is_the_same_in_every_format(
    sandbox: Sandbox, format: str, mode: str, options: dict[str, Any], loss: float
) -> None:
    """Its colours do not depend on what it was saved as, and a worker says what this process
    does."""
    image = _deep(PHOTO) if mode == "I;16" else PHOTO.convert(mode)
    data = saved(image, format, **options)
    picture = opened(data)
    assert (picture.format, picture.size, picture.frames) == (format, PHOTO.size, 1)
    assert np.abs(pixels(picture) - np.asarray(PHOTO).astype(np.int16)).mean() <= loss
    here, there = decode_image(data, ASK, ImageLimits()), sandbox.decode(data, ASK)
    assert here.pdq is not None
    assert there.pdq is not None
    assert np.array_equal(here.pdq, there.pdq)


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tiff_is_turned_upright(orientation: int) -> None:
    turned = {
        1: PHOTO,
        3: PHOTO.transpose(Image.Transpose.ROTATE_180),
        6: PHOTO.transpose(Image.Transpose.ROTATE_90),
    }[orientation]
    picture = opened(saved(turned, "TIFF", tiffinfo={274: orientation}))
    assert picture.size == PHOTO.size
    assert np.array_equal(pixels(picture), np.asarray(PHOTO))


@pytest.mark.skipif(not HAS_HEIF, reason="the extra heif is not installed")
def test_heif_is_read_with_its_extra(sandbox: Sandbox) -> None:
    """As telephones save it; in a worker too, which can load nothing any more."""
    shown = pixels(opened(HEIC))
    assert shown.shape == (64, 96, 3)
    assert shown[5, 5, 0] < 40 < 200 < shown[5, 90, 0]
    assert shown[5, 5, 1] < 40 < 200 < shown[60, 5, 1]
    there, here = sandbox.decode(HEIC, ASK).pdq, decode_image(HEIC, ASK, ImageLimits()).pdq
    assert there is not None
    assert here is not None
    assert np.array_equal(there, here)


def test_heif_without_its_extra_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    has_decoder.cache_clear()
    try:
        with pytest.raises(BadContent, match="its extra `heif` is not installed"):
            opened(HEIC)
    finally:
        has_decoder.cache_clear()


def test_what_is_no_picture_is_told_what_would_be() -> None:
    with pytest.raises(BadContent) as refused:
        opened(b"%PDF-1.7 and so on")
    for name in ("JPEG", "PNG", "WebP", "GIF", "AVIF", "BMP", "TIFF", "HEIF"):
        assert name in refused.value.message


# ---------------------------------------------------------------- cut off


def _rows(kind: str, share: float) -> bytes:
    options: dict[str, Any] = {"JPEG": {"quality": 90}, "progressive": {"quality": 90}}.get(
        kind, {}
    )
    if kind == "progressive":
        options["progressive"] = True
    name = "JPEG" if kind == "progressive" else kind
    data = saved(PHOTO, name, **options)
    return data[: int(share * len(data))]


def test_a_jpeg_without_its_last_bytes_is_the_same_picture(sandbox: Sandbox) -> None:
    """Every viewer shows it: the end marker alone is missing."""
    whole = saved(PHOTO, "JPEG", quality=90)
    for decoder in (None, sandbox):
        one, other = (_decoded(decoder, data) for data in (whole, whole[:-2]))
        assert np.array_equal(one.pdq, other.pdq)
        assert (other.unseen, other.remarks) == ((), ("cut off: all of its rows are there",))


def _decoded(decoder: ImageDecoder | None, data: bytes) -> Any:
    return decoder.decode(data, ASK) if decoder else decode_image(data, ASK, ImageLimits())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_lacks_a_tenth_is_known_again(kind: str) -> None:
    """Its rows that are there are those of the picture, and the answer says how many they are."""
    picture = opened(_rows(kind, 0.9))
    shown = pixels(picture)
    [said] = picture.unseen
    share = int(said.removeprefix("cut off: ").partition(" %")[0])
    assert 80 <= share <= 99
    whole = pixels(opened(_rows(kind, 1)))
    rows = len(whole) * share // 100 - 16
    assert np.array_equal(shown[:rows], whole[:rows])
    assert not np.array_equal(shown[-1], whole[-1])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_less_than_a_quarter_is_refused(kind: str) -> None:
    with pytest.raises(BadContent):
        opened(_rows(kind, 0.15)).rgb()


def test_a_progressive_jpeg_has_every_row_early() -> None:
    """Coarser ones: what is missing is detail."""
    picture = opened(_rows("progressive", 0.7))
    assert picture.rgb().size == PHOTO.size
    assert picture.unseen == ()
    difference = np.abs(pixels(picture) - np.asarray(PHOTO).astype(np.int16)).mean()
    assert difference < 15


def test_a_png_without_its_end_is_whole() -> None:
    data = saved(PHOTO, "PNG")
    picture = opened(data[:-12])
    assert np.array_equal(pixels(picture), np.asarray(PHOTO))
    assert picture.remarks == ("cut off: all of its rows are there",)


def test_an_interlaced_png_is_shown_as_far_as_its_passes_go() -> None:
    """Seven passes over the picture, of which the last has half of all rows."""
    pixels_of = np.asarray(PHOTO.convert("L"))
    rows = b"".join(
        b"\0" + line.tobytes()
        for left, top, across, down in (
            (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
            (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
        )
        for line in pixels_of[top::down, left::across]
    )  # fmt: skip
    whole = bytearray(png(PHOTO.size, 8, 0, rows))
    whole[28] = 1
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    assert np.array_equal(pixels(opened(bytes(whole)))[:, :, 0], pixels_of)
    cut = opened(bytes(whole[: int(0.8 * len(whole))]))
    assert np.array_equal(pixels(cut)[::2, :, 0], pixels_of[::2])
    assert "% of its rows" in cut.unseen[0]


def test_a_cut_animation_is_what_came() -> None:
    """Frames before the cut are whole; that more may be missing is said."""
    file = BytesIO()
    frames = [landscape(n, (100, 80)) for n in range(3)]
    frames[0].copy().save(file, "GIF", save_all=True, append_images=[f.copy() for f in frames[1:]])
    data = file.getvalue()
    decoded = decode_image(data[: int(0.9 * len(data))], ASK, ImageLimits())
    assert [part.frame for part, _ in decoded.parts] == [1]
    assert decoded.unseen == ("cut off: later frames may be missing",)


# ---------------------------------------------------------------- bombs


def _bmp_claiming(width: int, height: int) -> bytes:
    data = saved(PHOTO, "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def _tiff(*tags: tuple[int, int, int, int], next_at: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", next_at)


def _avif_claiming(width: int, height: int) -> bytes:
    data = saved(PHOTO, "AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def _heic_claiming(width: int, height: int) -> bytes:
    at = HEIC.index(b"ispe") + 8
    return HEIC[:at] + struct.pack(">II", width, height) + HEIC[at + 8 :]


TIFF_SIZE = ((256, 4, 1, 20_000), (257, 4, 1, 20_000))
BOMBS = {
    "BMP": (_bmp_claiming(20_000, 20_000), "20000 × 20000"),
    "BMP upside down": (_bmp_claiming(20_000, -20_000), "20000 × 20000"),
    "TIFF": (_tiff(*TIFF_SIZE), "20000 × 20000"),
    "TIFF with greedy entries": (
        _tiff((256, 4, 1, 8), (257, 4, 1, 8), *[(n, 7, 1 << 30, 8) for n in range(300, 400)]),
        "claim more than it holds",
    ),
    "TIFF with many entries": (_tiff(*[(n, 3, 1, 0) for n in range(2_000)]), "entries"),
    "AVIF": (_avif_claiming(12_000, 12_000), "12000 × 12000"),
    "profile of 10 MB": (large("TIFF"), ""),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_bounded_by_name_and_the_worker_lives(sandbox: Sandbox, name: str) -> None:
    """Refused before a pixel is decoded, in little time; the same worker decodes what is next."""
    data, words = BOMBS[name]
    pids = sandbox.pids
    begun = time.monotonic()
    if words:
        with pytest.raises(ContentTooLarge, match=words):
            sandbox.decode(data, ASK)
    else:
        assert sandbox.decode(data, ASK).unseen != ()
    assert time.monotonic() - begun < 5
    assert sandbox.decode(saved(PHOTO, "PNG"), ASK).pdq is not None
    assert sandbox.pids == pids


@pytest.mark.skipif(not HAS_HEIF, reason="the extra heif is not installed")
def test_heif_bombs_are_bounded_by_name(sandbox: Sandbox) -> None:
    pids = sandbox.pids
    with pytest.raises((ContentTooLarge, BadContent)):
        sandbox.decode(_heic_claiming(20_000, 20_000), ASK)
    assert sandbox.pids == pids


def test_a_tiff_whose_pages_go_round_ends() -> None:
    """Its second page is its first one again."""
    sized = _tiff((256, 4, 1, 8), (257, 4, 1, 8), next_at=8)
    with pytest.raises(SimsearchError):
        opened(sized).rgb()


def test_many_pages_are_bounded(sandbox: Sandbox) -> None:
    """As many as the limit are decoded, and the answer says of how many."""
    file = BytesIO()
    pages = [landscape(n % 7, (60, 40)) for n in range(400)]
    pages[0].copy().save(file, "TIFF", save_all=True, append_images=[p.copy() for p in pages[1:]])
    limits = ImageLimits(frames_max=300)
    decoded = decode_image(file.getvalue(), ASK, limits)
    assert "300 of 400 frames could be decoded within the limits" in decoded.unseen


@pytest.mark.parametrize("format", ["BMP", "TIFF", "AVIF"])
def test_damaged_files_are_decoded_or_refused_by_name(format: str) -> None:
    """Whatever is done to a file: half a thousand times each."""
    rng = np.random.default_rng(0)
    data = saved(landscape(3, (64, 48)), format)
    decoded = 0
    for _ in range(500):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 400), 3):
            broken[at] = rng.integers(0, 256)
        try:
            decode_image(bytes(broken), ASK, ImageLimits(pixels_max=1_000_000))
        except SimsearchError:
            continue
        decoded += 1
    assert 0 < decoded < 500

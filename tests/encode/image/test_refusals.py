"""What is refused, by which name, and that nothing else ever comes out."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from simsearch.encode.image.containers.file_headers import SCANS_MAX, read_file_headers
from simsearch.encode.image.containers.header_walk import PIECES_MAX
from simsearch.encode.image.picture import CUT_WHOLE, ImageLimits, open_picture
from simsearch.errors import (
    BadConfig,
    BadContent,
    ContentTooLarge,
    EmptyContent,
    SimsearchError,
)
from tests.encode.pictures import chunk, copies, exif, landscape, opened, png, saved

SMALL = landscape(3, (64, 48))


def test_empty_is_refused() -> None:
    """No bytes, no picture."""
    with pytest.raises(EmptyContent):
        opened(b"")


def test_bytes_are_bounded() -> None:
    """The file's size is checked before anything in it is read."""
    data = saved(SMALL, "PNG")
    assert open_picture(data, ImageLimits(bytes_max=len(data))).size == (64, 48)
    with pytest.raises(ContentTooLarge, match=str(len(data))):
        open_picture(data, ImageLimits(bytes_max=len(data) - 1))


@pytest.mark.parametrize("format", ["EPS", "PPM", "ICO", "TGA", "PDF", "JPEG2000"])
def test_other_formats_are_refused(format: str) -> None:
    """Only what people share pictures in is read, however well Pillow knows the others."""
    with pytest.raises(BadContent, match="convert it"):
        opened(saved(SMALL, format))


def _gif_claiming(width: int, height: int) -> bytes:
    data = saved(SMALL, "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = saved(SMALL, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _webp_claiming(width: int, height: int) -> bytes:
    """The extended header may claim sides of 24 bits."""
    data = saved(SMALL.convert("RGBA"), "WEBP", exif=exif(1))
    assert data[12:16] == b"VP8X"
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return data[:24] + sides + data[30:]


BOMBS = {
    "PNG": png((20_000, 20_000), 1, 0, b""),
    "GIF": _gif_claiming(20_000, 20_000),
    "JPEG": _jpeg_claiming(20_000, 20_000),
    "WebP": _webp_claiming(20_000, 20_000),
}


@pytest.mark.parametrize("format", BOMBS)
def test_bombs_are_refused_before_decoding(format: str) -> None:
    """A few hundred bytes that claim 400 million pixels cost neither memory nor time."""
    tracemalloc.start()
    try:
        with pytest.raises(ContentTooLarge, match="20000 × 20000"):
            opened(BOMBS[format])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_pixels_are_bounded_exactly() -> None:
    """The limit itself is allowed, one pixel more is not."""
    data = saved(SMALL, "PNG")
    assert open_picture(data, ImageLimits(pixels_max=64 * 48)).rgb().size == (64, 48)
    with pytest.raises(ContentTooLarge, match="64 × 48"):
        open_picture(data, ImageLimits(pixels_max=64 * 48 - 1))


def test_a_gif_frame_counts_with_the_screen() -> None:
    """A frame that sticks out of a small screen is measured too: Pillow would grow to it."""
    data = bytearray(_gif_claiming(1, 1))
    at = data.index(b",\0\0\0\0\x40\0")
    data[at + 1 : at + 5] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ContentTooLarge, match="60064 × 60048"):
        opened(bytes(data))


@pytest.mark.parametrize("data", [png((0, 5), 8, 0, b""), _jpeg_claiming(64, 0)])
def test_no_pixels_is_refused(data: bytes) -> None:
    """A side of zero is no picture."""
    with pytest.raises(BadContent, match="0 pixels"):
        opened(data)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_frames_are_bounded(format: str) -> None:
    """Frames are counted without decoding one, and no more are decoded than the limit allows."""
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 200, 20)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    picture = open_picture(data, ImageLimits(frames_max=9))
    assert picture.frames == 10
    assert len(list(picture.frames_drawn())) == 9


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "alpha PNG", "GIF", "WebP"])
def test_cut_off_files_are_decoded_or_refused(kind: str) -> None:
    """A file that ends early is BadContent or has its size, wherever it was cut; and where it says
    that all of its rows are there, they are."""
    data = copies(SMALL)[kind]
    whole = np.asarray(opened(data).rgb())
    shown = 0
    for length in range(1, len(data), 7):
        try:
            picture = opened(data[:length])
            found = np.asarray(picture.rgb())
        except BadContent:
            continue
        shown += 1
        assert found.shape == whole.shape
        assert any("cut off" in said for said in (*picture.unseen, *picture.remarks))
        if CUT_WHOLE in picture.remarks and kind != "progressive JPEG":
            assert np.array_equal(found, whole)
    assert shown > 0.25 * len(data) / 7


def test_limits_must_make_sense() -> None:
    """A limit of nothing, or above what the decoder allows at all, is a configuration error."""
    with pytest.raises(BadConfig, match="1 or more"):
        ImageLimits(frames_max=0)
    with pytest.raises(BadConfig, match="or less"):
        ImageLimits(pixels_max=10**9)


# ---------------------------------------------------------------- what Pillow would do at length


def _seconds(data: bytes) -> float:
    """Of this thread's own computing: a busy machine does not count."""
    begun = time.thread_time()
    with suppress(SimsearchError):
        opened(data).rgb()
    return time.thread_time() - begun


def test_metadata_never_reaches_the_decoder() -> None:
    """Comments, texts, profiles and EXIF are dropped; what draws the picture is not."""
    marker = b"not for the decoder"
    text = chunk(b"tEXt", b"Comment\0" + marker)
    hidden = {
        "PNG": png((1, 1), 8, 0, b"\0\x07", text, chunk(b"iCCP", b"x\0\0" + marker)),
        "JPEG": saved(SMALL, "JPEG", comment=marker, icc_profile=marker, exif=exif(3)),
        "GIF": saved(SMALL, "GIF", comment=marker),
    }
    for format, data in hidden.items():
        drawing = read_file_headers(data, frames_max=1).drawing
        assert marker in data
        assert marker not in drawing
        assert len(drawing) < len(data), format
        with Image.open(BytesIO(drawing)) as image:
            image.load()


def test_text_bombs_are_not_unpacked() -> None:
    """Compressed PNG text that unpacks to gigabytes is not unpacked at all."""
    packed = zlib.compress(bytes(900_000), 9)
    texts = [chunk(b"zTXt", b"key\0\0" + packed)] * 500
    data = png((1, 1), 8, 0, b"\0\x07", *texts)
    assert opened(data).rgb().getpixel((0, 0)) == (7, 7, 7)
    assert _seconds(data) < 1.0


def test_exif_bombs_are_not_read() -> None:
    """EXIF whose tags each claim the whole segment would make Pillow keep 300 MB of copies."""
    tags = b"".join(struct.pack("<HHII", 1000 + n, 7, 60_000, 8) for n in range(5_000))
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 5_000) + tags
    data = saved(SMALL, "JPEG", exif=b"Exif\0\0" + tiff)
    tracemalloc.start()
    try:
        opened(data).rgb()
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


PIECES = PIECES_MAX + 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8" + b"\xff\xfe\0\2" * PIECES, id="JPEG comments"),
        pytest.param(png((1, 1), 8, 0, b"\0\0", chunk(b"teSt", b"") * PIECES), id="PNG chunks"),
        pytest.param(b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1x" * PIECES, id="GIF comment"),
    ],
)
def test_pieces_are_bounded(data: bytes) -> None:
    """A file of nothing but tiny pieces is refused in the time it takes to count them."""
    with pytest.raises(ContentTooLarge, match="pieces"):
        opened(data)
    assert _seconds(data) < 2.0


def test_jpeg_scans_are_bounded() -> None:
    """Each scan of a progressive JPEG walks over the whole picture: hundreds are refused."""
    data = saved(SMALL, "JPEG", progressive=True)
    scan = b"\xff\xda\0\x08\x01\x01\0\0\0\0"
    with pytest.raises(ContentTooLarge, match="scans"):
        opened(data[:-2] + scan * (SCANS_MAX + 1) + data[-2:])


def test_palette_picture_without_palette_is_refused() -> None:
    """Numbers of colours that the file does not give are no picture."""
    with pytest.raises(BadContent):
        opened(png((1, 1), 8, 3, b"\0\x07")).rgb()


# ---------------------------------------------------------------- mutations

SEEDS = (*copies(SMALL).values(), _webp_claiming(64, 48))
LIMITS = ImageLimits(pixels_max=1_000_000)


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Files with bytes flipped, runs zeroed, pieces cut out, doubled or swapped with others'."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(SEEDS))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            _mutate(data, rng)
        yield _with_checksums(bytes(data)) if data.startswith(b"\x89PNG") else bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks are believed again; without it nearly every change stops at a CRC."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : end]))
        at = end + 4
    return b"".join((*parts, data[at:]))


def _mutate(data: bytearray, rng: random.Random) -> None:
    # Half of the changes go to the first 200 bytes, where headers are.
    end = len(data) if rng.random() < 0.5 else min(len(data), 200)
    at = rng.randrange(max(end, 1))
    length = rng.choice((1, 2, 4, 64))
    match rng.randrange(6):
        case 0:
            data[at : at + length] = rng.randbytes(length)
        case 1:
            data[at : at + length] = bytes(length)
        case 2:
            data[at : at + length] = b"\xff" * length
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length]
        case _:
            other = rng.choice(SEEDS)
            data[at:] = other[at:]


def survives(data: bytes) -> bool:
    """Whether it decodes; anything but a refusal by name fails the test that asks."""
    try:
        picture = open_picture(data, LIMITS)
        assert picture.rgb((32, 32)).mode == "RGB"
        assert picture.rgb().size == picture.size
    except (BadContent, ContentTooLarge, EmptyContent):
        return False
    return True


def test_mutated_files_are_refused_by_name() -> None:
    """Whatever is done to a file, it is decoded or refused by name; both happen often."""
    decoded = sum(survives(data) for data in mutations(20_000, seed=0))
    assert 2_000 < decoded < 18_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_mutated_files_at_length(seed: int) -> None:
    """The same, 200,000 times for each of eight seeds."""
    decoded = sum(survives(data) for data in mutations(200_000, seed))
    assert 20_000 < decoded < 180_000


def test_refusals_hold_no_content() -> None:
    """A message never repeats what the file says, not even its text or its broken header."""
    secret = b"secret words"
    for data in (secret, saved(SMALL, "JPEG", comment=secret)[:300], b"GIF89a" + secret * 9):
        with pytest.raises(BadContent) as refused:
            opened(data).rgb()
        assert "secret" not in str(refused.value)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None

"""What an image file becomes: upright RGB with the right colours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from simsearch.encode.image.picture import to_rgb
from tests.encode.pictures import (
    chunk,
    copies,
    exif,
    landscape,
    opened,
    pixels,
    png,
    saved,
)

KINDS = list(copies(landscape(0, (16, 16))))

# Mean difference allowed, of 255: none for exact formats, little for lossy ones, and the
# six-by-six-by-six web palette as coarse as it is.
COLOUR = {
    "palette PNG": 6.0,
    "web palette PNG": 20.0,
    "alpha PNG": 0.0,
    "16-bit colour PNG": 0.0,
    "lossless WebP": 0.0,
    "JPEG": 6.0,
    "progressive JPEG": 6.0,
    "CMYK JPEG": 6.0,
    "YCCK JPEG": 6.0,
    "JPEG turned by EXIF": 6.0,
    "WebP": 6.0,
    "WebP with alpha": 6.0,
    "GIF": 6.0,
}
GREY = {
    "grey PNG": 0.0,
    "grey and alpha PNG": 0.0,
    "16-bit grey PNG": 0.0,
    "grey JPEG": 4.0,
}


@pytest.mark.parametrize("kind", COLOUR)
def test_every_colour_file_gives_its_colours(
    kind: str, picture_image: Image.Image, picture_copies: dict[str, bytes]
) -> None:
    """A file's colours do not depend on the mode it was saved in."""
    difference = pixels(opened(picture_copies[kind])) - np.asarray(picture_image).astype(np.int16)
    assert np.abs(difference).mean() <= COLOUR[kind]


@pytest.mark.parametrize("kind", GREY)
def test_every_grey_file_gives_its_brightness(
    kind: str, picture_image: Image.Image, picture_copies: dict[str, bytes]
) -> None:
    """Grey files keep their brightness; 16 bits are scaled to 8, never clipped."""
    grey = np.asarray(picture_image.convert("L").convert("RGB")).astype(np.int16)
    assert np.abs(pixels(opened(picture_copies[kind])) - grey).mean() <= GREY[kind]


def test_every_kind_is_covered() -> None:
    """A kind of file added to `copies` needs a colour rule; 1-bit has none but black and white."""
    assert {*COLOUR, *GREY, "1-bit PNG"} == set(KINDS)


def test_one_bit_gives_black_and_white(picture_copies: dict[str, bytes]) -> None:
    """1-bit pixels become 0 and 255, not 0 and 1."""
    assert set(np.unique(pixels(opened(picture_copies["1-bit PNG"])))) == {0, 255}


ORANGE = (250, 120, 10)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 120, (120, 120, 120)),
        ("LA", (120, 255), (120, 120, 120)),
        ("La", (120, 255), (120, 120, 120)),
        ("P", ORANGE, ORANGE),
        ("RGB", ORANGE, ORANGE),
        ("RGBX", (*ORANGE, 0), ORANGE),
        ("RGBA", (*ORANGE, 255), ORANGE),
        ("RGBa", (*ORANGE, 255), ORANGE),
        ("CMYK", (5, 135, 245, 0), ORANGE),
        ("YCbCr", (120, 128, 128), (120, 120, 120)),
        ("HSV", (0, 0, 120), (120, 120, 120)),
        ("I", 120 * 257, (120, 120, 120)),
        ("I;16", 120 * 257, (120, 120, 120)),
        ("I;16B", 120 * 257, (120, 120, 120)),
    ],
)
def test_every_mode_becomes_rgb(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    """Every mode of Pillow that stands for colours converts to the same 8-bit RGB."""
    rgb = to_rgb(Image.new(mode, (4, 3), colour))
    assert rgb.mode == "RGB"
    assert rgb.size == (4, 3)
    assert rgb.getpixel((2, 1)) == expected


def test_palette_with_alpha_becomes_rgb() -> None:
    """PA, which only programs make, is read like a palette with transparency."""
    image = Image.new("RGBA", (4, 3), (*ORANGE, 255)).convert("PA")
    assert to_rgb(image).getpixel((2, 1)) == ORANGE


def _half_transparent(mode: str) -> Image.Image:
    """Black, opaque on the left and transparent on the right."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    return image.convert(mode)


def _keyed_palette() -> bytes:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.paste(1, (4, 0, 8, 8))
    return saved(image, "PNG", transparency=1)


def _keyed(mode: str, ink: int | tuple[int, ...], key: int | tuple[int, ...]) -> bytes:
    image = Image.new(mode, (8, 8), ink)
    image.paste(key, (4, 0, 8, 8))
    return saved(image, "PNG", transparency=key)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(_half_transparent("RGBA"), "PNG"), id="RGBA PNG"),
        pytest.param(saved(_half_transparent("LA"), "PNG"), id="LA PNG"),
        pytest.param(saved(_half_transparent("RGBA"), "WEBP", lossless=True), id="WebP"),
        pytest.param(saved(_half_transparent("RGBA"), "GIF"), id="GIF"),
        pytest.param(_keyed_palette(), id="palette PNG with one transparent entry"),
        pytest.param(_keyed("RGB", (0, 0, 0), (9, 9, 9)), id="RGB PNG with a transparent colour"),
        pytest.param(_keyed("L", 0, 9), id="grey PNG with a transparent grey"),
    ],
)
def test_transparent_is_white(data: bytes) -> None:
    """What is transparent shows white, whatever colour the file keeps underneath."""
    rgb = opened(data).rgb()
    assert rgb.getpixel((1, 4)) == (0, 0, 0)
    assert rgb.getpixel((6, 4)) == (255, 255, 255)


def test_half_opaque_is_mixed_with_white() -> None:
    """Partly transparent colours mix with white in proportion."""
    rgb = opened(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 51)), "PNG")).rgb()
    assert rgb.getpixel((0, 0)) == (204, 204, 204)


def test_sixteen_bit_transparent_colour_shows() -> None:
    """A 16-bit transparent colour is not compared with 8-bit pixels: nothing vanishes."""
    key = chunk(b"tRNS", (0x0A0A).to_bytes(2) * 3)
    data = png((2, 1), 16, 2, b"\0" + (0x0A0A).to_bytes(2) * 6, key)
    assert opened(data).rgb().getpixel((0, 0)) == (10, 10, 10)


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera that writes each orientation did to the upright picture."""


@pytest.mark.parametrize(("format", "loss"), [("JPEG", 6), ("PNG", 0), ("WEBP", 6)])
@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_applied(orientation: int, format: str, loss: int) -> None:
    """All 8 EXIF orientations come out upright, in every format that carries EXIF."""
    upright = landscape(1, (160, 96))
    turn = TURNS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    picture = opened(saved(stored, format, quality=95, exif=exif(orientation)))
    assert picture.size == picture.rgb().size == (160, 96)
    assert np.abs(pixels(picture) - np.asarray(upright).astype(np.int16)).mean() <= loss


@pytest.mark.parametrize(
    "broken", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"XX*\0\0\0\0\x08"]
)
def test_broken_exif_is_upright(broken: bytes) -> None:
    """EXIF that cannot be read is no reason to refuse a picture that can."""
    data = saved(landscape(1, (64, 48)), "JPEG", exif=b"Exif\0\0" + broken)
    assert opened(data).size == (64, 48)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("at_least", "size"),
    [
        (None, (800, 480)),
        ((800, 480), (800, 480)),
        ((401, 240), (800, 480)),
        ((400, 240), (400, 240)),
        ((200, 100), (200, 120)),
        ((50, 50), (100, 60)),
        ((1, 1), (100, 60)),
        ((2000, 10), (800, 480)),
    ],
)
def test_draft_keeps_at_least(
    orientation: int, at_least: tuple[int, int] | None, size: tuple[int, int]
) -> None:
    """A JPEG is decoded at the smallest eighth, quarter or half that is still large enough,
    measured upright."""
    image = landscape(2, (800, 480))
    if turn := TURNS[orientation]:
        image = image.transpose(turn)
    picture = opened(saved(image, "JPEG", exif=exif(orientation)))
    assert picture.rgb(at_least).size == size


def test_draft_is_the_same_picture() -> None:
    """Decoding at a quarter gives what shrinking to a quarter gives, almost."""
    picture = opened(saved(landscape(2, (800, 480)), "JPEG", quality=90))
    small = np.asarray(picture.rgb((200, 120))).astype(np.int16)
    shrunk = np.asarray(picture.rgb().reduce(4)).astype(np.int16)
    assert np.abs(small - shrunk).mean() < 1.0


def test_draft_is_for_jpeg_only() -> None:
    """Other formats have no smaller decode: they come whole, and only once."""
    picture = opened(saved(landscape(2, (80, 48)), "PNG"))
    assert picture.rgb((10, 10)) is picture.rgb()


def test_order_of_asking_changes_nothing() -> None:
    """The pixels of one question do not depend on what was asked before."""
    data = saved(landscape(2, (800, 480)), "JPEG")
    first, second = opened(data), opened(data)
    first.rgb()
    small, same = (np.asarray(picture.rgb((200, 120))) for picture in (first, second))
    assert np.array_equal(small, same)


def test_first_frame_counts() -> None:
    """Of an animation the first frame is taken, in GIF, WebP and PNG."""
    frames = [Image.new("RGB", (20, 10), c) for c in ("red", "lime", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
        picture = opened(data)
        assert (picture.format, picture.frames) == (format, 3)
        assert picture.rgb().getpixel((3, 3)) == (255, 0, 0)


def test_threads_may_share_a_picture() -> None:
    """One Picture asked by many threads gives each the same pixels."""
    picture = opened(saved(landscape(2, (320, 200)), "JPEG"))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: np.asarray(picture.rgb()), range(32)))
    assert all(np.array_equal(found[0], other) for other in found)

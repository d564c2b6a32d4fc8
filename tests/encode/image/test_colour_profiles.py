"""Colour profiles: a picture is what its profile makes of it, and no profile is a way in."""

from __future__ import annotations

import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsearch.encode.image import colour_profiles
from simsearch.encode.image.containers.header_walk import PROFILE_BYTES_MAX
from simsearch.encode.image.decoder import ImageRequest, PdqRows, decode_image
from simsearch.encode.image.picture import ImageLimits, PictureFile
from tests.encode.image.icc import grey_profile, ink_profile, rgb_profile, srgb_curve
from tests.encode.pictures import chunk, landscape, opened, pixels, png_16_bit_grey, saved

SIZE = (200, 150)
PHOTO = landscape(1, SIZE)
INVERSE = rgb_profile(srgb_curve()[::-1])
"""By it 255 is black and 0 is white."""

INVERTED = PHOTO.point(lambda v: 255 - v)
ASK = ImageRequest(PdqRows.DIHEDRAL, (), 0, 16)


def difference(picture: PictureFile, shown: Image.Image) -> float:
    return float(np.abs(pixels(picture) - np.asarray(shown.convert("RGB")).astype(np.int16)).mean())


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_a_picture_is_what_its_profile_makes_of_it(format: str, options: dict[str, Any]) -> None:
    """One that is stored inverted, with a profile that inverts, is the picture: every viewer shows
    it, in every format that carries profiles."""
    hidden = saved(INVERTED, format, icc_profile=INVERSE, **options)
    assert difference(opened(hidden), PHOTO) <= 6
    assert difference(opened(saved(INVERTED, format, **options)), PHOTO) > 40


def test_a_profile_in_pieces_is_put_together() -> None:
    """JPEG cuts profiles into segments of 64 KB, which may come in any order."""
    profile = rgb_profile(srgb_curve()[::-1], padding=150_000)
    data = saved(INVERTED, "JPEG", quality=95, icc_profile=profile)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert difference(opened(data), PHOTO) <= 6


def test_transparency_stays_with_its_colours() -> None:
    """The profile is of the colours; what is transparent is over white as it was."""
    image = INVERTED.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 50, 150))
    shown = opened(saved(image, "PNG", icc_profile=INVERSE)).rgb()
    assert shown.getpixel((20, 20)) == (255, 255, 255)
    assert np.abs(np.asarray(shown)[:, 50:].astype(int) - np.asarray(PHOTO)[:, 50:]).mean() <= 4


def test_grey_pictures_have_profiles_of_grey_or_of_colours() -> None:
    """Either is applied, to 16 bits as to 8."""
    grey = INVERTED.convert("L")
    for profile in (grey_profile(srgb_curve()[::-1]), INVERSE):
        data = saved(grey, "PNG", icc_profile=profile)
        assert difference(opened(data), PHOTO.convert("L")) <= 4
    deep = png_16_bit_grey(INVERTED)
    packed = chunk(b"iCCP", b"x\0\0" + zlib.compress(INVERSE))
    assert difference(opened(deep[:33] + packed + deep[33:]), PHOTO.convert("L")) <= 4


def test_a_profile_of_inks_is_applied() -> None:
    """CMYK without one is converted by rule of thumb; with one as it says."""
    grey = PHOTO.convert("L")
    none = Image.new("L", SIZE)
    inks = Image.merge("CMYK", (none, none, none, grey))
    shown = opened(saved(inks, "TIFF", icc_profile=ink_profile()))
    assert np.corrcoef(pixels(shown).ravel(), np.asarray(grey.convert("RGB")).ravel())[0, 1] > 0.99
    plain = opened(saved(inks, "TIFF"))
    assert np.corrcoef(pixels(plain).ravel(), np.asarray(grey.convert("RGB")).ravel())[0, 1] < -0.9


def test_a_profile_as_good_as_none_costs_nothing() -> None:
    """Most pictures carry sRGB's own: no colour of it changes, and none is computed."""
    data = saved(PHOTO, "PNG", icc_profile=rgb_profile(srgb_curve()))
    picture = opened(data)
    assert np.array_equal(pixels(picture), np.asarray(PHOTO))
    assert picture.remarks == ()
    profile = rgb_profile(srgb_curve())
    assert colour_profiles.in_srgb(PHOTO, profile) is colour_profiles.ProfileFault.SRGB


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(b"no profile at all", id="words"),
        pytest.param(INVERSE[:200], id="cut off"),
        pytest.param(INVERSE[:128] + b"\xff" * 300, id="a table of nothing"),
        pytest.param(ink_profile(), id="of inks"),
        pytest.param(grey_profile(srgb_curve()), id="of grey"),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_broken_profile_is_ignored_and_said(profile: bytes, format: str) -> None:
    """As viewers do: the picture is looked at as it is stored."""
    options = {"lossless": True} if format == "WEBP" else {}
    picture = opened(saved(PHOTO, format, icc_profile=profile, **options))
    assert difference(picture, PHOTO) <= 9
    assert picture.remarks == ("its colour profile is broken and was ignored",)


def large(format: str) -> bytes:
    """A picture with a profile of ten megabytes."""
    profile = rgb_profile(srgb_curve()[::-1], padding=10 << 20)
    if format == "PNG":
        data = saved(INVERTED, "PNG")
        packed = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
        return data[:33] + packed + data[33:]
    return saved(INVERTED, format, icc_profile=profile)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_profile_that_is_too_large_is_not_applied_and_said(format: str) -> None:
    """Ten megabytes of it are bounded in time, and the answer is not complete."""
    data = large(format)
    begun = time.thread_time()
    decoded = decode_image(data, ASK, ImageLimits())
    assert time.thread_time() - begun < 2
    [said] = decoded.unseen
    assert "colour profile" in said
    assert "too large" in said


def test_a_profile_that_unpacks_for_ever_is_bounded() -> None:
    """A megabyte and a byte of it are unpacked, of a gigabyte."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1_000)) + packer.flush()
    data = saved(PHOTO, "PNG")
    data = data[:33] + chunk(b"iCCP", b"x\0\0" + bomb) + data[33:]
    begun = time.thread_time()
    picture = opened(data)
    assert time.thread_time() - begun < 1
    assert picture.unseen == (
        f"its colour profile of {PROFILE_BYTES_MAX} bytes or more was not applied: it is too large",
    )


def test_threads_may_share_a_profile() -> None:
    """One transform serves them all, and gives each the same pixels."""
    data = saved(INVERTED, "PNG", icc_profile=INVERSE)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: pixels(opened(data)), range(32)))
    assert all(np.array_equal(found[0], other) for other in found)

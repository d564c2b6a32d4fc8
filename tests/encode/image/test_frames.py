"""Frames and grounds: whatever a picture file shows is looked at, or said not to have been."""

from __future__ import annotations

import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsearch.encode.fingerprint import (
    AllSignals,
    ContentFingerprint,
    ContentLimits,
    Fingerprinter,
)
from simsearch.encode.image import frames as frames_module
from simsearch.encode.image import picture as picture_module
from simsearch.encode.image.decoder import DecodedImage, ImageRequest, PdqRows, decode_image
from simsearch.encode.image.frames import views_of, views_of_parts
from simsearch.encode.image.pdq import pdq_of
from simsearch.encode.image.picture import ImageLimits
from simsearch.types import ImageContent, PicturePart, Signal, SignalReport, SignalState
from tests.encode.pictures import landscape, opened, png, saved
from tests.fakes import PICTURES, FakeImageEncoder, encoders

SIZE = (200, 150)
ASK = ImageRequest(PdqRows.DIHEDRAL, (), 0, 16)
ROOMY = ImageLimits()
MOVING = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")


def photo(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    return landscape(seed, size)


def animation(images: Sequence[Image.Image], format: str, **options: Any) -> bytes:
    first, *others = (image.copy() for image in images)  # Pillow keeps the options at them
    return saved(first, format, save_all=True, append_images=others, **options)


def decoded(data: bytes, ask: ImageRequest = ASK, limits: ImageLimits = ROOMY) -> DecodedImage:
    return decode_image(data, ask, limits)


def near(image: DecodedImage, shown: Image.Image) -> dict[PicturePart, int]:
    """Of each part, how many bits it is from that picture."""
    bits = pdq_of(opened(saved(shown, "PNG")))
    assert bits is not None
    return {
        part: int(np.bitwise_count(picture.pdq ^ bits).sum(axis=1).min())
        for part, picture in ((image.part, image), *image.parts)
        if picture.pdq is not None
    }


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize("format", MOVING)
def test_every_frame_of_a_file_is_found(format: str) -> None:
    """And known by its number, in every format that has more than one."""
    photos = [photo(seed) for seed in range(5)]
    image = decoded(animation(photos, format))
    assert [part for part, _ in image.parts] == [PicturePart(number) for number in range(1, 5)]
    for number, shown in enumerate(photos):
        bits = near(image, shown)
        assert bits[PicturePart(number)] <= 24
        assert min(b for part, b in bits.items() if part.frame != number) > 60
    assert (image.unseen, image.remarks) == ((), ())


def test_the_default_image_of_an_animation_counts() -> None:
    """Who knows no animated PNG sees it, and nothing else."""
    data = animation([photo(1), photo(2), photo(3)], "PNG", default_image=True)
    image = decoded(data)
    assert near(image, photo(1))[PicturePart(0)] == 0
    assert near(image, photo(3))[PicturePart(2)] == 0


def tiles_of(image: Image.Image, count: int) -> list[Image.Image]:
    """Transparent canvases with one tile each, to be laid over each other."""
    width = image.width // count
    laid = []
    for number in range(count):
        canvas = Image.new("RGBA", image.size)
        box = (number * width, 0, (number + 1) * width, image.height)
        canvas.paste(image.crop(box), box[:2])
        laid.append(canvas)
    return laid


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_a_picture_built_from_tiles_is_the_picture(format: str) -> None:
    """No frame of the file holds it; what people see after the last one is it."""
    tiles = tiles_of(photo(4), 8)
    options: dict[str, Any] = {"GIF": {"disposal": 1}, "PNG": {"blend": 1}, "WEBP": {}}[format]
    if format == "WEBP":
        built = [Image.new("RGBA", SIZE)]
        for tile in tiles:
            built.append(Image.alpha_composite(built[-1], tile))
        tiles = built[1:]
    image = decoded(animation(tiles, format, duration=0 if format != "PNG" else 10, **options))
    bits = near(image, photo(4))
    assert min(bits.values()) <= 20


def test_a_frame_is_composed_at_its_place() -> None:
    """A small frame over a large one shows both; disposed of, the one below shows again."""
    small = Image.new("RGBA", SIZE)
    small.paste(photo(2, (100, 75)), (50, 40))
    below = photo(1).convert("RGBA")
    image = decoded(animation([below, small, below], "PNG", blend=1, disposal=[0, 2, 0]))
    over = Image.alpha_composite(below, small)
    assert near(image, over.convert("RGB"))[PicturePart(1)] == 0
    assert {part.frame for part, _ in image.parts} == {1}


def test_frames_alike_are_asked_once() -> None:
    """Small moves and noise make no other picture; a file of them costs one row."""
    rng = np.random.default_rng(1)
    pixels = np.asarray(photo(1)).astype(np.int16)
    noisy = [
        Image.fromarray(
            np.clip(pixels + rng.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
        )
        for _ in range(12)
    ]
    image = decoded(animation(noisy, "PNG"))
    assert image.parts == ()
    assert image.unseen == ()


@pytest.mark.parametrize("odd", [1, 17, 43, 58])
def test_one_odd_frame_among_many_is_among_those_asked(odd: int) -> None:
    """A film moves on by itself; what has nothing to do with it lies farthest from it."""
    wide = photo(1, (600, 150))
    film = [wide.crop((5 * n, 0, 5 * n + 200, 150)) for n in range(60)]
    film[odd] = photo(9)
    image = decoded(animation(film, "PNG"), ImageRequest(PdqRows.DIHEDRAL, (), 0, 4))
    assert len(image.parts) == 3
    assert near(image, photo(9))[PicturePart(odd)] == 0
    shown = {part.frame for part, _ in image.parts}
    assert image.part == PicturePart(0)
    assert 59 in shown
    [said] = image.unseen
    assert said.startswith("4 of ")
    assert said.endswith("distinct frames were looked at")


def test_a_blank_frame_is_left_out_and_said() -> None:
    """An animation that begins with a white screen is what comes after it."""
    white = Image.new("RGB", SIZE, "white")
    image = decoded(animation([white, photo(1), white], "PNG"))
    assert (image.part, image.parts) == (PicturePart(1), ())
    assert image.remarks == ("2 of 3 frames are blank",)
    assert image.unseen == ()


def test_an_animation_of_nothing_is_blank() -> None:
    """As a blank still is: one part, without PDQ."""
    blank = [Image.new("RGB", SIZE, colour) for colour in ("white", "black", "red")]
    image = decoded(animation(blank, "PNG"))
    assert (image.part, image.pdq, image.parts) == (PicturePart(0), None, ())


def test_frames_beyond_the_limit_are_said() -> None:
    """Neither more frames nor more pixels are decoded than the limits allow."""
    data = animation([photo(seed) for seed in range(6)], "PNG")
    image = decoded(data, limits=ImageLimits(frames_max=4))
    assert len(image.parts) == 3
    assert image.unseen == ("4 of 6 frames could be decoded within the limits",)


def test_the_pixels_of_all_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_module, "FRAME_PIXELS_MAX", 3 * SIZE[0] * SIZE[1])
    image = decoded(animation([photo(seed) for seed in range(6)], "PNG"))
    assert image.unseen == ("3 of 6 frames could be decoded within the limits",)


def test_large_frames_are_held_in_small_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ones that fill the memory two are looked at, and that is said."""
    monkeypatch.setattr(frames_module, "FRAMES_KEPT_PIXELS_MAX", SIZE[0] * SIZE[1])
    image = decoded(animation([photo(seed) for seed in range(6)], "PNG"))
    assert len(image.parts) == 1
    assert image.unseen == ("2 of 6 distinct frames were looked at",)


def test_who_asks_for_one_frame_gets_the_first_and_is_told() -> None:
    image = decoded(animation([photo(1), photo(2)], "GIF"), ImageRequest(PdqRows.DIHEDRAL))
    assert near(image, photo(1))[PicturePart(0)] <= 20
    assert image.parts == ()
    assert image.unseen == ("1 of 2 frames was looked at",)


def test_ten_thousand_frames_are_bounded_by_name() -> None:
    """The first are looked at, in seconds; the answer says how many there are."""
    first = Image.new("P", (40, 40))
    first.putpalette([shade for shade in range(256) for _ in range(3)])
    shades = [first.point(lambda _, n=n: n) for n in range(2)]
    for n, shade in enumerate(shades):
        shade.paste(255 - n, (n * 20, 0, n * 20 + 20, 40))
    small = animation(shades, "GIF")
    at = small.index(b",\0\0\0\0")
    head, frame = small[:at], small[at:-1]
    data = head + frame * 5_000 + b";"
    assert opened(data).frames == 10_000
    begun = time.thread_time()
    image = decoded(data, limits=ImageLimits(frames_max=300))
    assert time.thread_time() - begun < 10
    assert image.unseen == ("300 of 10000 frames could be decoded within the limits",)


def test_frames_before_a_broken_one_are_looked_at() -> None:
    """What comes after it was not, and that is said."""
    data = bytearray(animation([photo(seed) for seed in range(4)], "PNG"))
    last = data.index(b"fdAT", data.rindex(b"fcTL"))
    data[last + 8 : last + 2_000] = b"\xff" * 1_992
    image = decoded(bytes(data))
    assert near(image, photo(1))[PicturePart(1)] == 0
    assert any("frames could be decoded" in said for said in image.unseen)


def test_views_are_found_again() -> None:
    """An encoder that makes its pixels itself is given the very pictures that were hashed."""
    data = animation([photo(1), photo(2).convert("RGBA"), photo(3)], "PNG")
    views = views_of(opened(data), 16)
    parts = [part for part, _ in views.shown]
    again = views_of_parts(opened(data), parts)
    for (_, one), other in zip(views.shown, again, strict=True):
        assert np.array_equal(np.asarray(one.rgb()), np.asarray(other.rgb()))


def test_pictures_in_a_later_frame_are_found() -> None:
    """The regions of all frames share the bound, the likeliest of each frame first."""
    sheet = Image.new("RGB", (640, 480), (240, 240, 240))
    sheet.paste(photo(3, (300, 260)), (200, 100))
    data = animation([photo(1, (640, 480)), sheet], "PNG")
    ask = ImageRequest(PdqRows.DIHEDRAL, (), 4, 16)
    image = decoded(data, ask)
    bits = near(image, photo(3, (300, 260)))
    best = min(bits, key=lambda part: bits[part])
    assert (best.frame, bits[best] <= 20) == (1, True)
    assert best.region is not None


# ---------------------------------------------------------------- grounds


def seen_through(alpha: Image.Image, colour: str) -> bytes:
    image = Image.new("RGBA", alpha.size, colour)
    image.putalpha(alpha)
    return saved(image, "PNG")


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "GIF"])
def test_white_on_transparent_is_seen_on_black(format: str) -> None:
    """Who has a dark theme sees it; on white there is nothing."""
    mark = photo(1).convert("L").point(lambda v: 255 if v > 128 else 0)
    image = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0), mark)
    lossless = {"lossless": True} if format == "WEBP" else {}
    found = decoded(saved(image, format, **lossless))
    assert found.part == PicturePart(on_black=True)
    assert near(found, mark.convert("RGB"))[found.part] <= 16
    assert found.parts == ()


def test_a_picture_hidden_in_transparency_alone_is_seen() -> None:
    """White all over, and the picture is in how far it is opaque."""
    found = decoded(seen_through(photo(2).convert("L"), "white"))
    assert near(found, photo(2).convert("L").convert("RGB")) == {PicturePart(on_black=True): 0}


def test_black_on_transparent_is_seen_on_white_alone() -> None:
    """The view on black would show nothing, and costs nothing."""
    found = decoded(seen_through(photo(2).convert("L"), "black"))
    assert (found.part, found.parts) == (PicturePart(), ())


def test_what_looks_different_on_both_is_asked_on_both() -> None:
    image = photo(2).convert("RGBA")
    image.putalpha(photo(3).convert("L"))
    found = decoded(saved(image, "PNG"))
    assert [found.part, *(part for part, _ in found.parts)] == [
        PicturePart(),
        PicturePart(on_black=True),
    ]


def test_transparency_that_hardly_shows_costs_nothing() -> None:
    image = photo(2).convert("RGBA")
    image.putalpha(Image.new("L", SIZE, 250))
    assert decoded(saved(image, "PNG")).parts == ()


# ---------------------------------------------------------------- bans and queries


def fingerprinter(**limits: Any) -> Fingerprinter:
    return Fingerprinter(encoders(pictures=FakeImageEncoder()), ContentLimits(**limits))


def banned(data: bytes, **limits: Any) -> ContentFingerprint:
    [outcome] = fingerprinter(**limits).ban([ImageContent(data)])
    assert isinstance(outcome, ContentFingerprint)
    return outcome


def asked(data: bytes, **limits: Any) -> ContentFingerprint:
    [outcome] = fingerprinter(**limits).query([ImageContent(data)], AllSignals())
    assert isinstance(outcome, ContentFingerprint)
    return outcome


def reports(made: ContentFingerprint) -> dict[str, SignalReport]:
    return {report.signal: report for report in made.reports}


def test_a_ban_of_an_animation_bans_every_frame() -> None:
    """One row of each signal for each frame that differs, and none for what is too plain."""
    plain = Image.linear_gradient("L").resize(SIZE).point(lambda v: v // 8).convert("RGB")
    made = banned(animation([photo(1), plain, photo(2)], "PNG"))
    assert made.parts == (PicturePart(0), PicturePart(2))
    assert len(made.fingerprint.bits[Signal.PDQ]) == 2
    assert len(made.fingerprint.vectors[PICTURES.id]) == 2
    for signal in (Signal.PDQ, PICTURES.id):
        report = reports(made)[signal]
        assert report.state is SignalState.SEARCHED
        assert report.detail == "1 of 3 pictures in it are too plain and left out"


def test_a_query_asks_with_every_frame() -> None:
    """Eight rows of PDQ and one vector each, and each row knows its frame."""
    made = asked(animation([photo(1), photo(2)], "PNG"))
    assert made.part_of_row[Signal.PDQ].tolist() == [0] * 8 + [1] * 8
    assert made.part_of_row[PICTURES.id].tolist() == [0, 1]
    assert [made.part(n) for n in range(2)] == [PicturePart(0), PicturePart(1)]


def test_what_was_not_looked_at_makes_signals_partial() -> None:
    """Of the picture's signals, not of the digests of its bytes."""
    data = animation([photo(seed) for seed in range(5)], "PNG")
    for made in (asked(data, frames_asked_max=3), banned(data, frames_asked_max=3)):
        states = {signal: report.state for signal, report in reports(made).items()}
        assert states == {
            Signal.SHA256: SignalState.SEARCHED,
            Signal.MD5: SignalState.SEARCHED,
            Signal.PDQ: SignalState.PARTIAL,
            PICTURES.id: SignalState.PARTIAL,
        }
        assert reports(made)[Signal.PDQ].detail == "3 of 5 distinct frames were looked at"


def test_frames_too_plain_for_pdq_make_it_partial() -> None:
    """In a query: they were asked by other signals, and not by this one."""
    plain = Image.linear_gradient("L").resize(SIZE).point(lambda v: v // 8).convert("RGB")
    made = asked(animation([photo(1), plain], "PNG"))
    pdq = reports(made)[Signal.PDQ]
    assert (pdq.state, pdq.detail) == (
        SignalState.PARTIAL,
        "1 of 2 frames are too plain for it",
    )
    assert reports(made)[PICTURES.id].state is SignalState.SEARCHED


def test_pictures_beyond_the_bound_make_signals_partial() -> None:
    """A sheet of more photographs than are looked for."""
    sheet = Image.new("RGB", (900, 900), "white")
    for number in range(9):
        at = (20 + 300 * (number % 3), 20 + 300 * (number // 3))
        sheet.paste(photo(number, (260, 260)), at)
    data = saved(sheet, "PNG")
    few, enough = asked(data, regions_max=3), asked(data, regions_max=32)
    assert reports(few)[Signal.PDQ].state is SignalState.PARTIAL
    assert "there are more" in reports(few)[Signal.PDQ].detail
    assert len(few.parts) == 4
    assert reports(enough)[Signal.PDQ].state is SignalState.SEARCHED


def test_an_encoder_that_cannot_say_is_shown_the_same_parts() -> None:
    """It makes its pixels itself, of frames and grounds too."""
    image = photo(2).convert("RGBA")
    image.putalpha(photo(3).convert("L"))
    data = animation([photo(1).convert("RGBA"), image], "PNG", disposal=1)
    made = asked(data)
    assert made.parts == (PicturePart(0), PicturePart(1), PicturePart(1, on_black=True))
    vectors = made.fingerprint.vectors[PICTURES.id]
    alone = Image.new("RGBA", SIZE, "black")
    shown = Image.alpha_composite(alone, image).convert("RGB")
    own = asked(saved(shown, "PNG")).fingerprint.vectors[PICTURES.id]
    assert np.allclose(vectors[2], own[0], atol=1e-6)


def test_pages_of_any_size_are_checked_before_they_are_decoded() -> None:
    """A later page that claims too much is not decoded; those before it are looked at."""
    small, large = photo(1), photo(2, (400, 300))
    file = BytesIO()
    small.copy().save(file, "TIFF", save_all=True, append_images=[large.copy()])
    limits = ImageLimits(pixels_max=SIZE[0] * SIZE[1])
    with pytest.raises(Exception, match="400 × 300"):
        decoded(file.getvalue(), limits=limits)


def test_a_still_has_no_parts() -> None:
    """As it ever was: the whole, and nothing about parts."""
    made = asked(saved(photo(1), "JPEG"))
    assert (made.parts, dict(made.part_of_row)) == ((), {})
    assert decoded(png((1, 1), 8, 0, b"\0\7")).parts == ()

"""Pictures in a picture: found where there are some, asked with, told of, and never banned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from simsearch.encode.fingerprint import ContentFingerprint, ContentLimits, Fingerprinter
from simsearch.encode.image.decoder import DecodedImage, ImageRequest, PdqRows, decode_image
from simsearch.encode.image.pdq import pdq_dihedral, pdq_of
from simsearch.encode.image.picture import ImageLimits, open_picture
from simsearch.encode.image.preprocess import Preprocess
from simsearch.encode.image.region_edges import refined_box
from simsearch.encode.image.regions import SIDE_PX_MIN, regions_of
from simsearch.types import ImageContent, Modality, PicturePart, Region, Signal
from tests.encode.pictures import exif, landscape, opened, saved
from tests.fakes import PICTURES, FakeImageEncoder, encoders

WAY = Preprocess((64, 64), "squash", "bilinear", 0, (0.0,) * 3, (1.0,) * 3)
WANTED = {("pdq", None), (PICTURES.id, Modality.IMAGE)}
SIZE = (300, 260)


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """About as rough as a photograph that is looked at from afar."""
    return landscape(seed, size).filter(ImageFilter.GaussianBlur(2))


def beside() -> tuple[Image.Image, Region]:
    sheet = Image.new("RGB", (500, 260))
    sheet.paste(photo(3, SIZE), (200, 0))
    sheet.paste(photo(4, (200, 260)), (0, 0))
    return sheet, Region(0.4, 0, 1, 1)


def tile() -> tuple[Image.Image, Region]:
    sheet = Image.new("RGB", (612, 612), "white")
    for number, (x, y) in enumerate(((4, 4), (308, 4), (4, 308), (308, 308))):
        sheet.paste(photo(number + 3, (300, 300)), (x, y))
    return sheet, Region(308 / 612, 4 / 612, 608 / 612, 304 / 612)


def laid_on() -> tuple[Image.Image, Region]:
    sheet = photo(6, (600, 500))
    sheet.paste(photo(3, SIZE), (90, 170))
    return sheet, Region(90 / 600, 170 / 500, 390 / 600, 430 / 500)


def framed() -> tuple[Image.Image, Region]:
    sheet = Image.new("RGB", (360, 300), (30, 120, 60))
    sheet.paste(photo(3, SIZE), (40, 10))
    return sheet, Region(40 / 360, 10 / 300, 340 / 360, 270 / 300)


def screenshot() -> tuple[Image.Image, Region]:
    sheet = Image.new("RGB", (360, 640), (18, 18, 20))
    sheet.paste(photo(3, (360, 312)), (0, 90))
    draw = ImageDraw.Draw(sheet)
    draw.text((14, 20), "9:41    someone", fill="white")
    for line in range(6):
        draw.text((14, 430 + 30 * line), "words that somebody wrote below it", fill="white")
    return sheet, Region(0, 90 / 640, 1, 402 / 640)


SCENES: tuple[Callable[[], tuple[Image.Image, Region]], ...] = (
    beside,
    tile,
    laid_on,
    framed,
    screenshot,
)


def overlap(one: Region, other: Region) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0) * max(height, 0)
    areas = (r.width * r.height for r in (one, other))
    return shared / (sum(areas) - shared)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(BytesIO(saved(image, "JPEG", quality=quality))).convert("RGB")


# ---------------------------------------------------------------- finding


@pytest.mark.parametrize("quality", [40, 90])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_picture_in_a_picture_is_found(
    scene: Callable[[], tuple[Image.Image, Region]], quality: int
) -> None:
    """To a hundredth or so, also after bad compression."""
    sheet, truth = scene()
    found = regions_of(recompressed(sheet, quality), sheet.size, 6)
    assert max(overlap(region, truth) for region in found) > 0.93


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_region_is_sharpened_to_the_pixel(
    scene: Callable[[], tuple[Image.Image, Region]],
) -> None:
    """Also where a gutter is thinner than a pixel of the copy that is looked at: PDQ of the part is
    that of the picture that was put there."""
    sheet, truth = scene()
    shown = recompressed(sheet, 80)
    rough = max(regions_of(shown, sheet.size, 6), key=lambda region: overlap(region, truth))
    found = refined_box(rough, np.asarray(shown))
    for at, true, side in zip(astuple(found), astuple(truth), sheet.size * 2, strict=True):
        assert abs(at - true) * side <= 1.1
    assert refined_box(found, np.asarray(shown)) == found


def test_a_region_with_nothing_to_go_by_stays() -> None:
    """On even ground and at the borders; an image of a pixel breaks nothing."""
    plain = Image.new("RGB", (400, 300), "grey")
    for region in (Region(0, 0, 0.5, 1), Region(0.25, 0.25, 0.75, 0.75), Region(0.1, 0, 1, 0.9)):
        assert refined_box(region, np.asarray(plain)) == region
        assert refined_box(region, np.zeros((1, 1, 3), np.uint8)) is not None


def test_every_tile_of_a_collage_is_found_and_no_two_of_them_as_one() -> None:
    sheet, _ = tile()
    found = regions_of(sheet, sheet.size, 6)
    corners = {(r.left > 0.4, r.top > 0.4) for r in found}
    assert len(found) == len(corners) == 4
    assert all(r.width * r.height < 0.26 for r in found)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (300, 200), "white"),
        Image.linear_gradient("L").convert("RGB"),
        Image.radial_gradient("L").convert("RGB"),
        landscape(1),
        landscape(2, (240, 400)),
    ],
    ids=["blank", "linear", "radial", "landscape", "upright"],
)
def test_nothing_is_found_where_nothing_is(image: Image.Image) -> None:
    assert regions_of(image, image.size, 6) == ()


def test_a_tile_of_nine_is_found_and_flat_decoys_take_no_place() -> None:
    """Rectangles of one colour, outlined better than any photograph, say nothing."""
    sheet = Image.new("RGB", (636, 636), "white")
    for number in range(9):
        sheet.paste(photo(number, (200, 200)), (9 + 209 * (number % 3), 9 + 209 * (number // 3)))
    assert len(regions_of(sheet, sheet.size, 9)) == 9
    decoyed, truth = laid_on()
    draw = ImageDraw.Draw(decoyed)
    for number in range(3):
        top = 10 + 160 * number
        draw.rectangle((420, top, 560, top + 140), fill=(255 * (number % 2),) * 3)
    found = regions_of(decoyed, decoyed.size, 2)
    assert max(overlap(region, truth) for region in found) > 0.85


@pytest.mark.parametrize("height", [2_000, 4_000, 8_000])
def test_a_picture_in_a_long_conversation_is_found(height: int) -> None:
    """The copy that is looked at is longer, so that its short side can be seen."""
    sheet = Image.new("RGB", (1_080, height), (236, 229, 221))
    sheet.paste(photo(3, (900, 700)), (90, height // 2))
    [decoded] = [decode_image(saved(sheet, "PNG"), ImageRequest(regions_max=9), ImageLimits())]
    truth = Region(90 / 1_080, (height // 2) / height, 990 / 1_080, (height // 2 + 700) / height)
    assert max(overlap(region, truth) for region in regions_in(decoded)) > 0.97


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 120), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_a_long_picture_has_no_slivers(width: int, times: int, seed: int) -> None:
    """What is found in it is large enough to be known again, sharpened too."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (3 * times, 2, 3), np.uint8)
    image = Image.fromarray(blocks).resize((width, width * times), Image.Resampling.NEAREST)
    decoded = decode_image(saved(image, "PNG"), ImageRequest(regions_max=9), ImageLimits())
    for region in regions_in(decoded):
        sides = (region.width * width, region.height * image.height)
        assert min(sides) >= 0.7 * SIDE_PX_MIN


def test_what_is_too_small_to_be_known_again_is_no_region() -> None:
    """By the picture's own pixels, not by those of the copy that is looked at."""
    sheet, _ = framed()
    assert regions_of(sheet, (360, 300), 6)
    assert regions_of(sheet, (54, 45), 6) == ()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 260),
    st.integers(1, 260),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3, 20]),
    st.integers(1, 8),
)
def test_regions_are_true_parts_whatever_the_picture(
    width: int, height: int, seed: int, coarse: int, most: int
) -> None:
    """Sides in order and within, never more than asked, the same each time; a pixel will do."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // coarse), -(-width // coarse), 3), np.uint8)
    blocks = np.kron(small, np.ones((coarse, coarse, 1), np.uint8))[:height, :width]
    image = Image.fromarray(blocks)
    found = regions_of(image, (4_000, 3_000), most)
    assert len(found) <= most
    assert all(0 <= r.left < r.right <= 1 and 0 <= r.top < r.bottom <= 1 for r in found)
    assert regions_of(image, (4_000, 3_000), most) == found


# ---------------------------------------------------------------- a part of a file


def test_a_part_is_the_same_cut_out_of_the_whole() -> None:
    whole = opened(saved(landscape(1, (640, 480)), "PNG"))
    part = whole.part(Region(0.25, 0.5, 0.75, 1))
    assert part.size == (320, 240)
    assert part.rgb().tobytes() == whole.rgb().crop((160, 240, 480, 480)).tobytes()


def test_a_part_is_decoded_with_as_many_pixels_as_a_picture_of_its_own() -> None:
    """A small part of a large JPEG needs more of it than the whole does."""
    whole = opened(saved(landscape(1, (1600, 1200)), "JPEG"))
    assert whole.rgb((100, 100)).size == (200, 150)
    part = whole.part(Region(0, 0, 0.25, 0.25))
    assert part.rgb((100, 100)).size == (200, 150)
    assert part.rgb((400, 300)).size == (400, 300)
    assert part.rgb((9_999, 1)).size == (400, 300)


def test_a_part_of_a_turned_file_is_upright() -> None:
    upright = landscape(1, (300, 200))
    turned = saved(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
    part = open_picture(turned, ImageLimits()).part(Region(0, 0, 0.5, 0.5))
    assert part.rgb().tobytes() == upright.crop((0, 0, 150, 100)).tobytes()


def test_the_smallest_part_has_a_pixel() -> None:
    part = opened(saved(landscape(1, (64, 64)), "PNG")).part(Region(0.9999, 0.9999, 1, 1))
    assert part.size == (1, 1)
    assert part.rgb().size == (1, 1)


# ---------------------------------------------------------------- decoding


def test_each_region_is_read_as_a_picture_of_its_own() -> None:
    """Its hashes and pixels are those of the part; without a wish for regions none are sought."""
    sheet, truth = beside()
    data = saved(sheet, "PNG")
    ask = ImageRequest(PdqRows.DIHEDRAL, (WAY,), 6)
    decoded = decode_image(data, ask, ImageLimits())
    region = max(regions_in(decoded), key=lambda found: overlap(found, truth))
    part = dict(decoded.parts)[PicturePart(region=region)]
    picture = opened(data).part(region)
    bits = pdq_dihedral(picture)
    assert part.pdq is not None
    assert bits is not None
    assert np.array_equal(part.pdq, bits)
    assert np.array_equal(part.pixels[WAY], WAY.fit(picture))
    assert part.parts == ()
    alone = decode_image(data, ImageRequest(PdqRows.DIHEDRAL, (WAY,)), ImageLimits())
    assert alone.parts == ()
    assert np.array_equal(alone.pixels[WAY], decoded.pixels[WAY])
    assert len(decode_image(data, ImageRequest(regions_max=1), ImageLimits()).parts) == 1


# ---------------------------------------------------------------- asking


def fingerprints(regions_max: int = 6) -> Fingerprinter:
    loaded = encoders(pictures=FakeImageEncoder())
    return Fingerprinter(loaded, ContentLimits(regions_max=regions_max))


def printed(fingerprinter: Fingerprinter, image: Image.Image) -> ContentFingerprint:
    [outcome] = fingerprinter.query([ImageContent(saved(image, "PNG"))], WANTED)
    assert isinstance(outcome, ContentFingerprint)
    return outcome


def region_of(asked: ContentFingerprint, signal: str, row: int) -> Region | None:
    rows = asked.part_of_row.get(signal)
    return asked.part(0 if rows is None else int(rows[row])).region


def regions_in(decoded: DecodedImage) -> list[Region]:
    return [part.region for part, _ in decoded.parts if part.region]


def regions_asked(asked: ContentFingerprint) -> list[Region]:
    return [part.region for part in asked.parts if part.region]


def test_a_query_asks_with_the_whole_and_with_each_region() -> None:
    """Rows in that order, eight of PDQ and one of each space, and each knows what it is of."""
    sheet, truth = beside()
    asked = printed(fingerprints(), sheet)
    count = 1 + len(regions_asked(asked))
    assert count > 1
    assert len(asked.fingerprint.vectors[PICTURES.id]) == count
    assert len(asked.fingerprint.bits[Signal.PDQ]) == 8 * count
    assert [region_of(asked, PICTURES.id, n) for n in range(count)] == [None, *regions_asked(asked)]
    rows = [region_of(asked, Signal.PDQ, n) for n in range(8 * count)]
    assert rows == [r for r in (None, *regions_asked(asked)) for _ in range(8)]
    number = max(range(1, count), key=lambda n: overlap(regions_asked(asked)[n - 1], truth))
    own = pdq_of(opened(saved(photo(3, SIZE), "PNG")))
    assert own is not None
    near = np.unpackbits(asked.fingerprint.bits[Signal.PDQ] ^ own, axis=1).sum(axis=1)
    assert near.argmin() == 8 * number
    assert near.min() <= 4
    assert near[:8].min() > 31


def test_a_ban_and_a_query_that_is_told_so_have_the_whole_alone() -> None:
    """What a bank holds is what was banned, and nothing that happened to lie beside it."""
    sheet, _ = beside()
    data = ImageContent(saved(sheet, "PNG"))
    [banned] = fingerprints().ban([data])
    assert isinstance(banned, ContentFingerprint)
    assert (banned.parts, banned.part_of_row) == ((), {})
    assert len(banned.fingerprint.bits[Signal.PDQ]) == 1
    assert len(banned.fingerprint.vectors[PICTURES.id]) == 1
    alone = printed(fingerprints(0), sheet)
    assert (alone.parts, dict(alone.part_of_row)) == ((), {})
    assert len(alone.fingerprint.bits[Signal.PDQ]) == 8


def test_a_part_may_say_what_the_whole_is_too_plain_to_say() -> None:
    """A small photograph on a grey page: PDQ of the part alone, and it knows that it is."""
    sheet = Image.new("RGB", (1500, 1500), (200, 200, 200))
    sheet.paste(photo(3, (315, 315)), (420, 300))
    data = saved(sheet, "PNG")
    assert pdq_of(opened(data)) is None
    asked = printed(fingerprints(), sheet)
    assert len(asked.fingerprint.bits[Signal.PDQ]) == 8 * len(regions_asked(asked))
    assert region_of(asked, Signal.PDQ, 0) == regions_asked(asked)[0]
    assert region_of(asked, PICTURES.id, 0) is None
    assert overlap(regions_asked(asked)[0], Region(0.28, 0.2, 0.49, 0.41)) > 0.93


def test_a_picture_without_regions_costs_one_row() -> None:
    asked = printed(fingerprints(), landscape(1))
    assert (asked.parts, dict(asked.part_of_row)) == ((), {})
    assert region_of(asked, Signal.PDQ, 3) is None
    assert len(asked.fingerprint.vectors[PICTURES.id]) == 1

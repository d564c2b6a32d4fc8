"""PDQ: the published hashes, copies of one picture, and pictures that say too little."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pdqhash
import pytest
from numpy.typing import NDArray
from PIL import Image

from simsearch.encode.image.pdq import QUALITY_MIN, pdq_dihedral, pdq_hash, pdq_of
from simsearch.encode.image.pdq_dihedral import turned_bits
from simsearch.types import Bits
from tests.encode.pictures import copies, exif, landscape, opened, saved

MATCH = 31
"""PDQ's own advice: at 31 bits or fewer two pictures are one."""

TURNS = [
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
]


def hamming(one: Bits, other: Bits) -> int:
    return int(np.bitwise_count(one ^ other).sum())


def plain(image: Image.Image) -> Bits:
    """The reference library's hash of exactly these pixels."""
    return np.packbits(pdqhash.compute(np.asarray(image))[0].astype(np.uint8))


def png_bits(image: Image.Image) -> Bits:
    bits = pdq_of(opened(saved(image, "PNG")))
    assert bits is not None
    return bits


def test_published_hashes(picture_pdq_vectors: Path) -> None:
    """Meta's 12 published hashes come out bit for bit, also as row 0 of what a query asks."""
    with (picture_pdq_vectors / "hashes.csv").open() as file:
        published = {row["file"]: row["pdq"] for row in csv.DictReader(file)}
    assert len(published) == 12
    for name, expected in published.items():
        picture = opened((picture_pdq_vectors / "bridge-mods" / name).read_bytes())
        found, eight = pdq_hash(picture), pdq_dihedral(picture)
        assert (found.hex, found.quality) == (expected, 100)
        assert eight is not None
        assert eight[0].tobytes().hex() == expected


def test_bits_are_packed_as_the_published_hex() -> None:
    """The first bit of the library's vector is the highest bit of the first byte."""
    image = landscape(0, (320, 240))
    vector, quality = pdqhash.compute(np.asarray(image))
    as_number = int("".join(str(bit) for bit in vector), 2)
    found = pdq_hash(opened(saved(image, "PNG")))
    assert (int(found.hex, 16), found.quality) == (as_number, quality)
    assert found.bits.shape == (32,)
    assert found.bits.dtype == np.uint8


@pytest.mark.parametrize("kind", copies(landscape(0, (16, 16))))
def test_copies_of_one_picture_match(
    kind: str, picture_image: Image.Image, picture_copies: dict[str, bytes]
) -> None:
    """Palette, CMYK, 1-bit (as tools write it, dithered), 16-bit, turned by EXIF: one picture."""
    bits = pdq_of(opened(picture_copies[kind]))
    assert bits is not None
    assert hamming(bits[0], png_bits(picture_image)[0]) <= 10


def test_different_pictures_do_not_match() -> None:
    """Other pictures are far away: what matches is not everything."""
    hashes = [png_bits(landscape(seed, (320, 240)))[0] for seed in range(8)]
    between = [hamming(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(between) > 2 * MATCH


@pytest.mark.parametrize("size", [(256, 170), (97, 130), (300, 300), (640, 480)])
@pytest.mark.parametrize("turn", range(8))
def test_every_turned_copy_is_met(turn: int, size: tuple[int, int]) -> None:
    """What a query asks with holds the very hash of each really turned or flipped copy."""
    image = landscape(4, size)
    eight = pdq_dihedral(opened(saved(image, "PNG")))
    how = TURNS[turn]
    assert eight is not None
    assert eight.shape == (8, 32)
    copy = image if how is None else image.transpose(how)
    distances = [hamming(row, png_bits(copy)[0]) for row in eight]
    assert distances[turn] <= 2
    assert min(distances[:turn] + distances[turn + 1 :]) > MATCH


def test_turned_photographs_are_met(picture_photos: list[Path]) -> None:
    """The same for real photographs, small and JPEG-coded."""
    pictures = [opened(path.read_bytes()) for path in picture_photos[:40]]
    hashed = [(p.rgb(), eight) for p in pictures if (eight := pdq_dihedral(p)) is not None]
    assert len(hashed) > 30
    for image, eight in hashed:
        for row, turn in zip(eight, TURNS, strict=True):
            assert hamming(row, plain(image.transpose(turn) if turn is not None else image)) <= 4


@pytest.mark.parametrize(
    "size", [(5, 5), (5, 300), (63, 65), (64, 64), (127, 128), (129, 64), (511, 257)]
)
def test_row_0_and_quality_are_the_references(size: tuple[int, int]) -> None:
    """Our reduction agrees with the reference library at every kind of window, odd and even."""
    rgb = np.asarray(landscape(5, size))
    eight, quality = turned_bits(rgb)
    vector, expected = pdqhash.compute(rgb)
    assert hamming(eight[0], np.packbits(vector.astype(np.uint8))) <= 2
    assert quality == expected


def test_orientation_comes_first() -> None:
    """A picture stored turned, with the EXIF tag that says so, has the upright hash."""
    image = landscape(6, (400, 300))
    turned = saved(image.transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif(3))
    found = pdq_of(opened(turned))
    assert found is not None
    assert found.tobytes() == png_bits(image).tobytes()


def _flat(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), 90, np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (4, 4), (4, 64), (3, 9000)])
def test_too_small_says_nothing(size: tuple[int, int]) -> None:
    """A picture with a side under 5 pixels has no PDQ, and asking does not crash."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    picture = opened(saved(Image.fromarray(noise), "PNG"))
    assert pdq_of(picture) is None
    assert pdq_dihedral(picture) is None
    assert pdq_hash(picture).quality == 0


def test_too_plain_says_nothing() -> None:
    """Below quality 50 there is no PDQ on either side: flat pictures would all match."""
    faint = _flat((200, 200))
    faint[:, 100:] += 20
    for rgb in (_flat((200, 200)), faint):
        picture = opened(saved(Image.fromarray(rgb), "PNG"))
        assert pdq_hash(picture).quality < QUALITY_MIN
        assert pdq_of(picture) is None
        assert pdq_dihedral(picture) is None


def test_thinnest_picture_has_a_hash() -> None:
    """A side of 5 pixels is enough for PDQ."""
    assert pdq_of(opened(saved(landscape(7, (5, 5)), "PNG"))) is not None


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_large_photographs_hash_as_at_full_size(format: str) -> None:
    """Shrinking before hashing moves few bits, far fewer than a match may differ by."""
    image = landscape(8, (850, 575)).resize((3400, 2300), Image.Resampling.BICUBIC)
    data = saved(image, format, **({"quality": 90} if format == "JPEG" else {"compress_level": 1}))
    picture = opened(data)
    full = plain(picture.rgb())
    found, eight = pdq_of(picture), pdq_dihedral(picture)
    assert found is not None
    assert eight is not None
    assert hamming(found[0], full) <= 8
    assert min(hamming(row, full) for row in eight) <= 8

"""PDQ, Meta's 256-bit perceptual hash: equal to the published vectors, also for large files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pdqhash
from numpy.typing import NDArray
from PIL import Image

from simsearch.encode.image.pdq_dihedral import turned_bits
from simsearch.encode.image.picture import Picture
from simsearch.types import BITS_BYTES, Bits

QUALITY_MIN = 50
"""Below it the hash says more about noise than about the picture (PDQ's own advice)."""

SIDE_PX_MIN = 5
"""PDQ hashes nothing narrower (MIN_HASHABLE_DIM of the reference)."""

SIDE_PX_KEPT = 1024
"""Each side is shrunk by a whole number to no less than this before hashing.

Measured on 8 photographs at 2.5 MP and 11 MP against hashing at full size: at 2.5 MP nothing
changes; at 11 MP 0 to 6 bits of 256 differ (median 2), and a JPEG takes 100 ms instead of 530
(decoding included). At 512 up to 18 bits differ, more than half of what a match may (31).
The hashes that Meta publishes are reproduced bit for bit: their photographs are not shrunk.
"""


@dataclass(frozen=True)
class PdqHash:
    """`bits` is (32,) uint8, most significant bit first, as in the published hex; `quality` is
    0 (nothing to see) to 100."""

    bits: Bits = field(repr=False)
    quality: int

    @property
    def hex(self) -> str:
        """64 hexadecimal digits."""
        return self.bits.tobytes().hex()


def pdq_of(picture: Picture) -> Bits | None:
    """(1, 32): what a banned image stores. None: LOW_INFORMATION, too plain or too small."""
    found = pdq_hash(picture)
    return found.bits[np.newaxis] if found.quality >= QUALITY_MIN else None


def pdq_dihedral(picture: Picture) -> Bits | None:
    """(8, 32): what a query asks with, the hashes of the picture and of its seven turned and
    flipped copies, in the order of `turned_bits`. None: LOW_INFORMATION, as in `pdq_of`."""
    pixels = _pixels(picture)
    if pixels is None:
        return None
    eight, quality = turned_bits(pixels)
    return eight if quality >= QUALITY_MIN else None


def pdq_hash(picture: Picture) -> PdqHash:
    """The hash whatever its quality; quality 0 for an image too small to hash."""
    pixels = _pixels(picture)
    if pixels is None:
        return PdqHash(np.zeros(BITS_BYTES, np.uint8), 0)
    bits, quality = pdqhash.compute(pixels)
    return PdqHash(_packed([bits])[0], int(quality))


def _pixels(picture: Picture) -> NDArray[np.uint8] | None:
    """RGB at the size that is hashed; None for an image too small to hash."""
    if min(picture.size) < SIDE_PX_MIN:
        return None
    return np.asarray(_shrunk(picture.rgb(at_least=(SIDE_PX_KEPT, SIDE_PX_KEPT))))


def _shrunk(image: Image.Image) -> Image.Image:
    """Each side by itself, as PDQ's own filter works; so at most 4 million pixels are hashed."""
    factors = tuple(max(side // SIDE_PX_KEPT, 1) for side in image.size)
    return image if factors == (1, 1) else image.reduce((factors[0], factors[1]))


def _packed(hashes: Sequence[NDArray[Any]]) -> Bits:
    """(n, 32) from n arrays of 256 zeros and ones, most significant first."""
    return np.packbits(np.asarray(hashes, np.uint8), axis=-1)

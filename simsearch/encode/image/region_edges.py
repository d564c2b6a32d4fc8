"""Box refinement: the sides of a region, to the pixel.

Regions are found in a small copy, whose pixel is half a percent of the picture; PDQ of a part
changes with every pixel by which it is cut wrongly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.image.regions import Box, small_size
from simsearch.types import Region

FINE_PX: Final = 1024
"""Both sides of the image by which boxes are refined: what PDQ is computed from, too."""

_REACH_PX: Final = 2.5
_KEPT_MIN: Final = 0.75
_ROWS_READ: Final = 128
_AS_STRONG: Final = 0.6
_BORDER_STEP: Final = 24.0
"""Mean step, of 255, at which a margin too thin for the small copy is one."""


def refined_box(region: Region, pixels: NDArray[np.uint8]) -> Region:
    """The same region with each side moved, by a pixel or two of the small copy, to where colours
    step most in (height, width, 3) uint8 that has more pixels: a hash of the part changes with
    every pixel."""
    size = (pixels.shape[1], pixels.shape[0])
    reach = _REACH_PX * max(size) / max(small_size(size))
    box = _in_pixels(region, size)
    left, right = _moved(pixels, box, reach)
    top, bottom = _moved(pixels.swapaxes(0, 1), _turned(box), reach)
    if min(right - left, bottom - top) < _KEPT_MIN * min(box[2] - box[0], box[3] - box[1]):
        return region
    sides = zip((left, top, right, bottom), size * 2, strict=True)
    return Region(*(round(at / side, 4) for at, side in sides))


def _in_pixels(region: Region, size: tuple[int, int]) -> Box:
    (left, right), (top, bottom) = (
        (round(begin * side), round(end * side))
        for begin, end, side in zip(
            (region.left, region.top), (region.right, region.bottom), size, strict=True
        )
    )
    return left, top, right, bottom


def _turned(box: Box) -> Box:
    """As the box is in the transposed picture."""
    left, top, right, bottom = box
    return top, left, bottom, right


def _moved(pixels: NDArray[np.uint8], box: Box, reach: float) -> tuple[int, int]:
    """The left and the right side, (height, width, 3) uint8 around them."""
    left, top, right, bottom = box
    rows = pixels[top : max(bottom, top + 1) : max((bottom - top) // _ROWS_READ, 1)]
    return _innermost(rows, left, reach, inwards=1), _innermost(rows, right, reach, inwards=-1)


def _innermost(rows: NDArray[np.uint8], side: int, reach: float, inwards: int) -> int:
    """Where around `side` colours step most; of a gutter's two edges the one within. A border
    that has no such step near it stays."""
    width = rows.shape[1]
    first, last = max(round(side - reach), 0), min(round(side + reach) + 1, width)
    near = rows[:, first:last].astype(np.int16)
    if near.shape[1] < 2:
        return side
    steps = np.abs(np.diff(near, axis=1)).max(axis=2).mean(axis=0)
    at_border = side in (0, width)
    least = _BORDER_STEP if at_border else 1.0
    enough = max(float(steps.max()) * _AS_STRONG, least)
    strong = np.flatnonzero(steps >= enough)
    if not len(strong):
        return side
    return first + 1 + int(strong[-1] if inwards > 0 else strong[0])

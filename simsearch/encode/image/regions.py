"""Region detection: finds the pictures in a picture, such as the tiles of a collage or the
photograph in a screenshot. A query searches with each of them besides the whole.

What such parts have in common is their outline: four straight lines along which colours step, or
the picture's own border. So steps between neighbouring pixels are measured against those around
them (texture steps everywhere), a few lines with many of them are drawn across and down, and every
rectangle between such lines is scored by its worst side. Edges that are slanted or soft are not
found; shelves, windows and doors are found too, and cost an embedding each.

Numbers were set on photographs that the shipped encoder was trained on, put side by side, in grids,
on each other and in frames, at JPEG qualities of 40 to 90.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsearch.types import Region

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the small copy."""

LOOK_PX: Final = 192
"""The longest side of the copy that is looked at: a line is known to half a percent."""

SHORT_PX: Final = 96
LONG_PX_MAX: Final = 768
"""Of a long picture, as of a conversation, the copy's short side, as far as the long one allows."""

SIDE_PX_MIN: Final = 48
"""Of a part, in the picture's own pixels: what is smaller says too little to be matched."""

SIDE_MIN: Final = 0.15
"""Of a part, as a share of the picture's short side."""

AREA_MIN: Final = 0.04
"""Of a part, as a share of the short side squared."""

AREA_MAX: Final = 0.93
"""Of a part, as a share of the picture."""

DETAIL_MIN: Final = 4.0
"""Mean step between neighbours, of 255: a part with less is a bar, a bubble or a decoy."""

COVER_MIN: Final = 0.5
"""Mean of how far steps stand out along the worst side."""

SPLIT_MIN: Final = 0.65
"""The same along a line right through a part: then it is two."""

_STEP_FLOOR: Final = 16
"""Of 255; added to the steps around, so that faint ones on even ground do not stand out."""

_STEP_GAIN: Final = 2.0
"""How many times the steps around one must be before it stands out at all."""

_AROUND: Final = (1, 6)
"""Pixels beside a line that are it, and that are around it."""

_SOFT: Final = 0.7
"""Of a step over two pixels, as scaling leaves it."""

_LINES_MAX: Final = 12
_LINES_LOOKED_AT: Final = 80
_STRETCHES: Final = 12
"""A line is looked for by parts of the side: it need not go all the way."""

_ABOVE_USUAL, _LINE_MIN = 0.1, 0.3
_FROM_BORDER_PX: Final = 3
_APART_PX: Final = 2

_BORDER_COVER: Final = 0.5
"""What the picture's own border counts as: of two nested parts that with real sides is better."""

_AREA_WEIGHT: Final = 0.1
_SAME: Final = 0.8
"""Intersection over union above which two rectangles are one."""

_THROUGH: Final = 0.12
"""A line nearer to a side than this share is no split."""


def regions_of(image: Image.Image, size: tuple[int, int], most: int) -> tuple[Region, ...]:
    """At most `most` parts of an RGB image, the likeliest first. `size` is the (width, height) of
    the picture itself, of which `image` may be a smaller copy."""
    small = image.resize(small_size(image.size), Image.Resampling.BOX, reducing_gap=1.5)
    planes = np.asarray(small).transpose(2, 0, 1)
    across = _Lines.of(_standing_out(np.ascontiguousarray(planes)))
    down = _Lines.of(_standing_out(np.ascontiguousarray(planes.transpose(0, 2, 1))))
    width, height = small.size
    shares = (
        Region(*(round(at / side, 4) for at, side in zip(box, (width, height) * 2, strict=True)))
        for box in _rectangles(across, down, _Detail.of(planes), most)
    )
    return tuple(region for region in shares if _is_large(region, size))


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """Of the copy that is looked at: of a long picture more, so that its short side can be seen."""
    long, short = max(size), min(size)
    wanted = max(LOOK_PX / long, min(SHORT_PX / short, LONG_PX_MAX / long))
    width, height = (max(round(side * min(wanted, 1.0)), 1) for side in size)
    return width, height


def _is_large(region: Region, size: tuple[int, int]) -> bool:
    """Enough to be known again, in a picture of that size."""
    return min(region.width * size[0], region.height * size[1]) >= SIDE_PX_MIN


# ---------------------------------------------------------------- steps


def _standing_out(planes: NDArray[np.uint8]) -> Floats:
    """(height, width + 1), 0 to 1: how far the step before each column, and after the last, stands
    out from the steps around it in its row. `planes` is (3, height, width)."""
    _, height, width = planes.shape
    steps = np.zeros((height, width + 1), np.float32)
    if width < 3:
        return steps
    steps[:, 1:width] = _differing(planes[:, :, 1:], planes[:, :, :-1])
    usual = _mean_around(steps)
    soft = _differing(planes[:, :, 2:], planes[:, :, :-2]) * np.float32(_SOFT)
    for side in (steps[:, 1 : width - 1], steps[:, 2:width]):
        np.maximum(side, soft, out=side)
    out: Floats = (steps - _STEP_GAIN * usual) / (usual + _STEP_FLOOR)
    return np.clip(out, 0, 1, out=out)


def _differing(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of the three planes the largest difference."""
    red, green, blue = np.maximum(one, other) - np.minimum(one, other)
    largest: NDArray[np.uint8] = np.maximum(np.maximum(red, green), blue)
    return largest


def _mean_around(steps: Floats) -> Floats:
    """Of each row, the mean of what is near each column and not in it."""
    height, columns = steps.shape
    sums = np.zeros((height, columns + 1), np.float32)
    np.cumsum(steps, axis=1, out=sums[:, 1:])
    at = np.arange(columns)
    inner, outer = ((np.maximum(at - n, 0), np.minimum(at + n + 1, columns)) for n in _AROUND)
    total = (sums[:, outer[1]] - sums[:, outer[0]]) - (sums[:, inner[1]] - sums[:, inner[0]])
    count = (outer[1] - outer[0]) - (inner[1] - inner[0])
    mean: Floats = total / np.maximum(count, 1).astype(np.float32)
    return mean


@dataclass(frozen=True)
class _Lines:
    """Lines at the columns `at`, both borders among them. `sums[n, y]` is how far the first y
    steps along line n stand out, all together."""

    at: NDArray[np.intp]
    sums: Floats

    @classmethod
    def of(cls, standing: Floats) -> _Lines:
        height, columns = standing.shape
        border = columns - 1
        at = np.array(sorted({0, border, *_found(standing)}))
        along = standing[:, at].T.copy()
        along[(at == 0) | (at == border)] = 1.0
        sums = np.zeros((len(at), height + 1), np.float32)
        np.cumsum(along, axis=1, out=sums[:, 1:])
        return cls(at, sums)

    def means(self, begins: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        """(lines, stretches): how far each line stands out from begins[n] to ends[n]."""
        mean: Floats = (self.sums[:, ends] - self.sums[:, begins]) / (ends - begins)
        return mean

    def splits(self, box: Box) -> bool:
        """Whether a line goes right through. `box`: its sides that these lines cross come first
        and third."""
        left, top, right, bottom = box
        margin = _THROUGH * (right - left)
        within = (self.at > left + margin) & (self.at < right - margin)
        through = (self.sums[within, bottom] - self.sums[within, top]) / (bottom - top)
        return bool((through >= SPLIT_MIN).any())


def _found(standing: Floats) -> Iterator[int]:
    """The columns in which most stands out, more than is usual at that height."""
    height, columns = standing.shape
    cuts = np.unique(np.linspace(0, height, _STRETCHES + 1).astype(np.intp))
    stretches = np.add.reduceat(standing, cuts[:-1], axis=0) / np.diff(cuts)[:, np.newaxis]
    middle = columns // 2
    usual = np.partition(stretches, middle, axis=1)[:, middle : middle + 1]
    score = np.clip(stretches - usual - _ABOVE_USUAL, 0, None).sum(axis=0)
    taken: list[int] = []
    for column in np.argsort(-score, kind="stable")[:_LINES_LOOKED_AT].tolist():
        if score[column] < _LINE_MIN or len(taken) == _LINES_MAX:
            return
        inside = _FROM_BORDER_PX <= column < columns - _FROM_BORDER_PX
        if inside and all(abs(column - other) > _APART_PX for other in taken):
            taken.append(column)
            yield column


# ---------------------------------------------------------------- rectangles


@dataclass(frozen=True)
class _Detail:
    """`sums[y, x]`: all steps between neighbours, both ways, above and left of there."""

    sums: NDArray[np.float64]

    @classmethod
    def of(cls, planes: NDArray[np.uint8]) -> _Detail:
        _, height, width = planes.shape
        steps = np.zeros((height + 1, width + 1))
        steps[1:, 2:] += _differing(planes[:, :, 1:], planes[:, :, :-1])
        steps[2:, 1:] += _differing(planes[:, 1:], planes[:, :-1])
        return cls(steps.cumsum(axis=0).cumsum(axis=1))

    def within(self, box: Box) -> float:
        """Mean step between neighbours of a part, without its edges."""
        left, top, right, bottom = box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1
        area = (right - left) * (bottom - top)
        if right <= left or bottom <= top:
            return 0.0
        sums = self.sums
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return float(total) / (2 * area)


def _rectangles(across: _Lines, down: _Lines, detail: _Detail, most: int) -> list[Box]:
    """`across` are the upright lines."""
    kept: list[Box] = []
    for box in _likeliest(across, down):
        if len(kept) == most:
            break
        left, top, right, bottom = box
        if (
            all(_overlap(box, other) < _SAME for other in kept)
            and detail.within(box) >= DETAIL_MIN
            and not across.splits(box)
            and not down.splits((top, left, bottom, right))
        ):
            kept.append(box)
    return kept


def _likeliest(across: _Lines, down: _Lines) -> Iterator[Box]:
    """Every rectangle whose sides all stand out, the best first."""
    left, right = np.triu_indices(len(across.at), 1)
    top, bottom = np.triu_indices(len(down.at), 1)
    upright = across.means(down.at[top], down.at[bottom])
    level = down.means(across.at[left], across.at[right]).T
    sides = (upright[left], upright[right], level[:, top], level[:, bottom])
    width = (across.at[right] - across.at[left])[:, np.newaxis]
    height = (down.at[bottom] - down.at[top])[np.newaxis]
    short = min(across.at[-1], down.at[-1])
    area = width * height / (across.at[-1] * down.at[-1])
    fits = (np.minimum.reduce(sides) >= COVER_MIN) & (area <= AREA_MAX)
    fits &= np.minimum(width, height) >= SIDE_MIN * short
    fits &= width * height >= AREA_MIN * short**2
    borders = (
        (left == 0)[:, np.newaxis],
        (right == len(across.at) - 1)[:, np.newaxis],
        (top == 0)[np.newaxis],
        (bottom == len(down.at) - 1)[np.newaxis],
    )
    counted = [np.where(b, _BORDER_COVER, s) for b, s in zip(borders, sides, strict=True)]
    score = sum(counted) / 4 + _AREA_WEIGHT * area
    pairs = np.argwhere(fits)
    for p, q in pairs[np.argsort(-score[fits], kind="stable")].tolist():
        x, y = across.at[[left[p], right[p]]].tolist(), down.at[[top[q], bottom[q]]].tolist()
        yield x[0], y[0], x[1], y[1]


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])

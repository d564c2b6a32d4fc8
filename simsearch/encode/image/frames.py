"""Frames of a picture file: those that differ, each over white, and over black where that differs.

Frames are compared by small copies of 32 × 32 pixels, of which brightness and contrast are taken
out: what is alike in them has nearly the same PDQ. Of more frames than are asked those are kept
that lie farthest apart, so that one odd frame among hundreds is always among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simsearch.encode.image.picture import (
    BLACK,
    WHITE,
    DrawnPicture,
    Picture,
    PictureFile,
    over,
)
from simsearch.errors import BadContent
from simsearch.types import PicturePart

LOOK_PX: Final = 32
"""Both sides of the copies by which frames are compared; PDQ keeps 16 × 16 frequencies."""

CONTRAST_LEVELS: Final = 8.0
"""Added to the contrast that is taken out: what is fainter is not blown up to a full picture."""

DISTINCT: Final = 0.25
"""Root mean square of the difference of two copies from which frames differ; of unrelated
photographs it is about 1.3."""

BLANK_LEVELS: Final = 6
"""A copy in which no channel spans more shows nothing."""

FRAMES_KEPT_PIXELS_MAX: Final = 40_000_000
"""Of the frames that are held in memory at a time; of large ones fewer are looked at."""

Look: TypeAlias = NDArray[np.float32]
"""(n,) float32: the small copies of a frame, over white and over black, one after the other."""


@dataclass(frozen=True)
class Views:
    """The pictures that a file shows, the first frame's first. `unseen` names what was not looked
    at, `remarks` says what else there is to say."""

    shown: tuple[tuple[PicturePart, Picture], ...]
    unseen: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def views_of(picture: PictureFile, frames_max: int) -> Views:
    """At most `frames_max` frames, each over one or two grounds. Raises BadContent and
    ContentTooLarge where not even the first can be decoded."""
    if picture.frames > 1 and frames_max > 1:
        return _views_of_frames(picture, frames_max)
    left_out = (f"1 of {picture.frames} frames was looked at",) if picture.frames > 1 else ()
    if picture.format == "JPEG" or picture.drawn().mode == "RGB":
        return Views(((PicturePart(), picture),), left_out)
    grounds = _Frame(0, picture.drawn()).grounds
    first = PicturePart(on_black=grounds[0])
    whole: Picture = DrawnPicture(picture.drawn(), on_black=True) if grounds[0] else picture
    others = [_view(0, picture.drawn(), on_black) for on_black in grounds[1:]]
    return Views(((first, whole), *others), left_out)


def views_of_parts(picture: PictureFile, parts: Sequence[PicturePart]) -> list[Picture]:
    """The views of parts that `views_of`, and the search for regions, found in this file."""
    wanted = {part.frame for part in parts}
    drawn: dict[int, Image.Image] = {}
    if wanted != {0}:
        for number, image in enumerate(picture.frames_drawn()):
            if number in wanted:
                drawn[number] = image
            if number == max(wanted):
                break
    views = [_view_of(picture, drawn, part) for part in parts]
    return [v.part(p.region) if p.region else v for v, p in zip(views, parts, strict=True)]


def _view_of(picture: PictureFile, drawn: dict[int, Image.Image], part: PicturePart) -> Picture:
    if part.frame == 0 and not part.on_black:
        return picture
    return DrawnPicture(drawn.get(part.frame) or picture.drawn(), part.on_black)


def _view(number: int, image: Image.Image, on_black: bool) -> tuple[PicturePart, Picture]:
    return PicturePart(number, on_black=on_black), DrawnPicture(image, on_black)


# ---------------------------------------------------------------- one frame


class _Frame:
    """A frame, and how it looks."""

    def __init__(self, number: int, image: Image.Image) -> None:
        self.number = number
        self.image = image
        small = image.resize((LOOK_PX, LOOK_PX), Image.Resampling.BOX, reducing_gap=2.0)
        copies = [np.asarray(over(ground, small), np.float32) for ground in (WHITE, BLACK)]
        self._blank = [bool((np.ptp(c, axis=(0, 1)) <= BLANK_LEVELS).all()) for c in copies]
        self._looks = [_normalised(c) for c in copies]
        self.look: Look = np.concatenate(self._looks) / np.float32(math.sqrt(2))

    @property
    def is_blank(self) -> bool:
        return all(self._blank)

    @property
    def grounds(self) -> tuple[bool, ...]:
        """Over which grounds it is to be looked at; True: black. A view that shows nothing is left
        out where the other shows something."""
        if self._blank[0] != self._blank[1]:
            return (self._blank[0],)
        differ = not self.is_blank and _distance(*self._looks) > DISTINCT
        return (False, True) if differ else (False,)


def _normalised(copy: NDArray[np.float32]) -> Look:
    flat = copy.ravel() - copy.mean()
    contrast = float(np.sqrt(np.mean(flat**2)))
    look: Look = flat / np.float32((contrast + CONTRAST_LEVELS) * math.sqrt(flat.size))
    return look


def _distance(one: Look, other: Look) -> float:
    return float(np.linalg.norm(one - other))


# ---------------------------------------------------------------- many frames


def _views_of_frames(picture: PictureFile, most: int) -> Views:
    held = max(min(most, FRAMES_KEPT_PIXELS_MAX // math.prod(picture.size)), 2)
    chosen = _Chosen(held)
    for number, image in enumerate(_until_broken(picture)):
        chosen.offer(_Frame(number, image))
    frames = chosen.frames()
    if not frames:
        return Views((_view(0, picture.drawn(), False),))
    shown = (_view(f.number, f.image, black) for f in frames for black in f.grounds)
    return Views(tuple(shown), tuple(_unseen(chosen, picture)), tuple(_remarks(chosen)))


def _until_broken(picture: PictureFile) -> Iterator[Image.Image]:
    """The frames before the first that cannot be decoded. Raises BadContent if that is the first
    of all."""
    count = 0
    try:
        for image in picture.frames_drawn():
            count += 1
            yield image
    except BadContent:
        if not count:
            raise


def _unseen(chosen: _Chosen, picture: PictureFile) -> Iterator[str]:
    if len(chosen.kept) < chosen.distinct:
        yield f"{len(chosen.kept)} of {chosen.distinct} distinct frames were looked at"
    if chosen.offered < picture.frames:
        yield f"{chosen.offered} of {picture.frames} frames could be decoded within the limits"


def _remarks(chosen: _Chosen) -> Iterator[str]:
    if chosen.blank and chosen.distinct:
        yield f"{chosen.blank} of {chosen.offered} frames are blank"


@dataclass
class _Chosen:
    """At most `most` frames, of those offered the ones that lie farthest apart, as each comes: the
    first and the last among them. Frames like one before are left out, and blank ones."""

    most: int
    kept: list[_Frame] = field(default_factory=list)
    offered: int = 0
    distinct: int = 0
    blank: int = 0
    _apart: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """Between those kept, (kept, kept)."""
    _seen: _Looks = field(default_factory=lambda: _Looks())
    _last: _Frame | None = None
    _first_blank: _Frame | None = None

    def offer(self, frame: _Frame) -> None:
        self.offered += 1
        if frame.is_blank:
            self.blank += 1
            self._first_blank = self._first_blank or frame
            return
        self._last = frame
        if self._seen.nearest(frame.look) <= DISTINCT:
            return
        self.distinct += 1
        self._seen.add(frame.look)
        self._keep(frame)

    def frames(self) -> list[_Frame]:
        """Those chosen, in their order in the file; a blank one where there are no others."""
        last = self._last
        if last and all(_distance(last.look, kept.look) > DISTINCT for kept in self.kept):
            self._keep(last, pinned=last)
        if not self.kept and self._first_blank:
            return [self._first_blank]
        return sorted(self.kept, key=lambda frame: frame.number)

    def _keep(self, frame: _Frame, pinned: _Frame | None = None) -> None:
        """Of one too many the one goes that is most like another, and then like a third."""
        looks = [kept.look for kept in self.kept]
        apart = np.zeros((len(looks) + 1,) * 2)
        apart[:-1, :-1] = self._apart
        apart[-1, :-1] = apart[:-1, -1] = [_distance(frame.look, look) for look in looks]
        self.kept.append(frame)
        if len(self.kept) > self.most:
            near = np.sort(apart, axis=1)[:, 1:3].tolist()
            spared = (0, *(n for n, kept in enumerate(self.kept) if kept is pinned))
            going = min((n for n in range(len(near)) if n not in spared), key=near.__getitem__)
            del self.kept[going]
            apart = np.delete(np.delete(apart, going, axis=0), going, axis=1)
        self._apart = apart


class _Looks:
    """The looks of all frames that differed so far."""

    def __init__(self) -> None:
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._squares: NDArray[np.float32] = np.empty(0, np.float32)
        self._count = 0

    def add(self, look: Look) -> None:
        if self._count == len(self._rows):
            rows = np.empty((2 * self._count + 16, len(look)), np.float32)
            if self._count:
                rows[: self._count] = self._rows
            self._rows = rows
            self._squares = np.append(self._squares, np.zeros(self._count + 16, np.float32))
        self._rows[self._count] = look
        self._squares[self._count] = _squared(look)
        self._count += 1

    def nearest(self, look: Look) -> float:
        """The least distance; infinite where there is none."""
        if not self._count:
            return math.inf
        rows = self._rows[: self._count]
        # Not by BLAS, whose threads would fight for the cores in a server without workers.
        squares = self._squares[: self._count] - 2 * np.einsum("ij,j->i", rows, look)
        return math.sqrt(max(float(squares.min()) + _squared(look), 0.0))


def _squared(look: Look) -> float:
    return float(np.einsum("i,i->", look, look))

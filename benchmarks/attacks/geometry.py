"""Attacks that move, cut or frame a picture."""

from __future__ import annotations

import math

from PIL import Image

from benchmarks.attacks.picture_tools import (
    BLACK,
    WHITE,
    Picture,
    Rng,
    canvas,
    resized,
    some_colour,
    warped,
)


def crop_10(picture: Picture, rng: Rng) -> Picture:
    """10 % of either side cut off, the middle stays."""
    return _cut(picture, 0.10, 0.5, 0.5)


def crop_30(picture: Picture, rng: Rng) -> Picture:
    return _cut(picture, 0.30, 0.5, 0.5)


def crop_30_corner(picture: Picture, rng: Rng) -> Picture:
    """30 % of either side cut off, all at one end."""
    x, y = (float(end) for end in rng.integers(0, 2, 2))
    return _cut(picture, 0.30, x, y)


def square(picture: Picture, rng: Rng) -> Picture:
    """The middle square, and 5 % less."""
    side = 0.95 * min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.crop((round(left), round(top), round(left + side), round(top + side)))


def flip(picture: Picture, rng: Rng) -> Picture:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rotate_5(picture: Picture, rng: Rng) -> Picture:
    """Either way, corners filled black."""
    return _turned(picture, 5 * int(rng.choice([-1, 1])))


def rotate_15(picture: Picture, rng: Rng) -> Picture:
    return _turned(picture, 15 * int(rng.choice([-1, 1])))


def rotate_5_cropped(picture: Picture, rng: Rng) -> Picture:
    """Turned, and cut until hardly a filled corner is left, as a careful person would do it."""
    return _cut(_turned(picture, 5 * int(rng.choice([-1, 1]))), 0.2, 0.5, 0.5)


def rotate_90(picture: Picture, rng: Rng) -> Picture:
    return picture.transpose(Image.Transpose.ROTATE_90)


def squeeze(picture: Picture, rng: Rng) -> Picture:
    """One side at 65 %."""
    if rng.integers(2):
        return resized(picture, 0.65 * picture.width, picture.height)
    return resized(picture, picture.width, 0.65 * picture.height)


def shear(picture: Picture, rng: Rng) -> Picture:
    """The top pushed aside by 18 % of the height, on white."""
    w, h = picture.size
    aside = 0.18 * h
    corners = [(aside, 0.0), (w + aside, 0.0), (float(w), float(h)), (0.0, float(h))]
    return warped(picture, corners, (math.ceil(w + aside), h), WHITE)


def perspective(picture: Picture, rng: Rng) -> Picture:
    """Every corner pulled in by up to 18 % of the side, on black."""
    w, h = picture.size
    pull = rng.uniform(0.04, 0.18, (4, 2))
    ends = ((0, 0), (1, 0), (1, 1), (0, 1))
    corners = [
        (w * (x + (0.5 - x) * 2 * float(p)), h * (y + (0.5 - y) * 2 * float(q)))
        for (x, y), (p, q) in zip(ends, pull, strict=True)
    ]
    return warped(picture, corners, (w, h), BLACK)


def border(picture: Picture, rng: Rng) -> Picture:
    """A frame of one colour, 12 % of the shorter side wide."""
    wide = round(0.12 * min(picture.size))
    framed = canvas(picture.width + 2 * wide, picture.height + 2 * wide, some_colour(rng))
    framed.paste(picture, (wide, wide))
    return framed


def letterbox(picture: Picture, rng: Rng) -> Picture:
    """Black bars on two sides, each 18 % of it."""
    bars = (0.18 * picture.width, 0.0) if rng.integers(2) else (0.0, 0.18 * picture.height)
    x, y = (round(bar) for bar in bars)
    boxed = canvas(picture.width + 2 * x, picture.height + 2 * y, BLACK)
    boxed.paste(picture, (x, y))
    return boxed


def _cut(picture: Picture, share: float, x: float, y: float) -> Picture:
    """`share` of either side cut off; x, y: how much of that at the left and at the top."""
    w, h = picture.size
    left, top = round(share * x * w), round(share * y * h)
    return picture.crop((left, top, left + round((1 - share) * w), top + round((1 - share) * h)))


def _turned(picture: Picture, degrees: float) -> Picture:
    return picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=BLACK)

"""Attacks after which the picture is a part of a larger one, and chains of several attacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFilter

from benchmarks.attacks import geometry, overlays, tones
from benchmarks.attacks.picture_tools import (
    BLACK,
    WHITE,
    Picture,
    Rng,
    again,
    canvas,
    covering,
    floats,
    from_floats,
    scaled,
    some_colour,
    some_words,
    warped,
    within,
    write_wrapped,
)

Props = Sequence[Picture]
"""Photographs that are neither banked nor asked as negatives."""

PHONE_PX = (360, 720)
TILE_PX = 224


def screenshot(picture: Picture, rng: Rng, props: Props) -> Picture:
    """A telephone's screen: bar, author, the picture at full width, buttons, comments."""
    is_dark = bool(rng.integers(2))
    paper, ink = ((18, 18, 20), (235, 235, 235)) if is_dark else (WHITE, (20, 20, 20))
    width, height = PHONE_PX
    screen = canvas(width, height, paper)
    write_wrapped(screen, "9:41", (18, 10, width), 14, ink)
    screen.paste(covering(_any(props, rng), 36, 36), (12, 40))
    write_wrapped(screen, some_words(rng, 2), (58, 48, width), 15, ink)
    shown = within(picture, width, round(0.62 * height))
    top = 88
    screen.paste(shown, ((width - shown.width) // 2, top))
    y = top + shown.height + 12
    draw = ImageDraw.Draw(screen)
    for number in range(3):
        draw.ellipse((14 + 40 * number, y, 38 + 40 * number, y + 24), outline=ink, width=2)
    y += 36
    while y < height - 40:
        y = round(write_wrapped(screen, some_words(rng, 8), (14, y, width - 14), 14, ink)) + 8
    return screen


def collage(picture: Picture, rng: Rng, props: Props) -> Picture:
    """One of four tiles, the others of other photographs."""
    gap = 6
    sheet = canvas(2 * TILE_PX + 3 * gap, 2 * TILE_PX + 3 * gap, WHITE)
    tiles = [picture, *(_any(props, rng) for _ in range(3))]
    for place, number in enumerate(rng.permutation(4)):
        x, y = (gap + (TILE_PX + gap) * (place // side % 2) for side in (1, 2))
        sheet.paste(covering(tiles[number], TILE_PX, TILE_PX), (x, y))
    return sheet


def side_by_side(picture: Picture, rng: Rng, props: Props) -> Picture:
    """Another photograph to the left or the right, as high."""
    other = scaled(_any(props, rng), 1.0)
    other = covering(other, round(0.8 * picture.width), picture.height)
    pair = [picture, other] if rng.integers(2) else [other, picture]
    sheet = canvas(picture.width + other.width, picture.height, WHITE)
    sheet.paste(pair[0], (0, 0))
    sheet.paste(pair[1], (pair[0].width, 0))
    return sheet


def picture_in_picture(picture: Picture, rng: Rng, props: Props) -> Picture:
    """At 55 % of the side on another photograph."""
    room = covering(_any(props, rng), 400, 400)
    small = within(picture, 220, 220)
    x, y = (int(rng.integers(0, 401 - side)) for side in small.size)
    room.paste(small, (x, y))
    return room


def inset(picture: Picture, rng: Rng, props: Props) -> Picture:
    """Another photograph in one corner, 35 % of the side."""
    held = picture.copy()
    small = covering(_any(props, rng), *(round(0.35 * side) for side in picture.size))
    x, y = (int(rng.integers(2)) * (a - b) for a, b in zip(held.size, small.size, strict=True))
    held.paste(small, (x, y))
    return held


# ---------------------------------------------------------------- chains


def photographed(picture: Picture, rng: Rng, props: Props) -> Picture:
    """Printed, laid on a table and photographed askew under a lamp, by a poor camera."""
    w, h = picture.size
    paper = canvas(1.1 * w, 1.1 * h, WHITE)
    paper.paste(picture, (round(0.05 * w), round(0.05 * h)))
    w, h = paper.size
    pull = rng.uniform(0.02, 0.12, (4, 2))
    corners = [
        (w * (0.08 + float(pull[0, 0])), h * (0.08 + float(pull[0, 1]))),
        (w * (1.16 - float(pull[1, 0])), h * (0.06 + float(pull[1, 1]))),
        (w * (1.18 - float(pull[2, 0])), h * (1.18 - float(pull[2, 1]))),
        (w * (0.04 + float(pull[3, 0])), h * (1.16 - float(pull[3, 1]))),
    ]
    table = some_colour(rng)
    shot = warped(paper, corners, (round(1.24 * w), round(1.24 * h)), table)
    values = floats(shot) * _lamp(rng, shot)[:, :, np.newaxis]
    values = (values - 128) * 0.8 + 122 + rng.normal(0, 7, values.shape)
    return from_floats(values).filter(ImageFilter.GaussianBlur(0.7))


def reposted(picture: Picture, rng: Rng, props: Props) -> Picture:
    """Cut by 10 %, smaller, written on, compressed, and compressed again."""
    copy = again(scaled(geometry.crop_10(picture, rng), 0.7), "JPEG", quality=55)
    return again(overlays.text(copy, rng), "JPEG", quality=38)


def mirrored_sticker(picture: Picture, rng: Rng, props: Props) -> Picture:
    """Flipped, with faces, in a frame."""
    return geometry.border(overlays.emoji(geometry.flip(picture, rng), rng), rng)


def meme_screenshot(picture: Picture, rng: Rng, props: Props) -> Picture:
    """A meme of it, seen on a telephone."""
    return screenshot(overlays.meme(picture, rng), rng, props)


def worn(picture: Picture, rng: Rng, props: Props) -> Picture:
    """Grey, noisy, turned by 5 degrees, at a low quality."""
    noisy = tones.noise(tones.grey(picture, rng), rng)
    return again(geometry.rotate_5(noisy, rng), "JPEG", quality=25)


def _lamp(rng: Rng, picture: Picture) -> NDArray[np.float64]:
    """(height, width): brighter at one side."""
    w, h = picture.size
    x = np.linspace(-1, 1, w)[np.newaxis] * float(rng.uniform(-1, 1))
    y = np.linspace(-1, 1, h)[:, np.newaxis] * float(rng.uniform(-1, 1))
    light: NDArray[np.float64] = 0.95 + 0.28 * (x + y)
    return light


def _any(props: Props, rng: Rng) -> Picture:
    return props[int(rng.integers(len(props)))] if props else canvas(64, 64, BLACK)

"""Attacks that leave every part of a picture where it is: files, colours, noise, blur."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.attacks.picture_tools import Picture, Rng, again, floats, from_floats, scaled

_SEPIA: Final = np.array(
    [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32
)


def half_size(picture: Picture, rng: Rng) -> Picture:
    return scaled(picture, 0.5)


def thumbnail(picture: Picture, rng: Rng) -> Picture:
    """Longest side 96 px."""
    return scaled(picture, 96 / max(picture.size))


def jpeg_30(picture: Picture, rng: Rng) -> Picture:
    return again(picture, "JPEG", quality=30)


def jpeg_10(picture: Picture, rng: Rng) -> Picture:
    return again(picture, "JPEG", quality=10)


def webp_15(picture: Picture, rng: Rng) -> Picture:
    return again(picture, "WEBP", quality=15)


def gif_24(picture: Picture, rng: Rng) -> Picture:
    """24 colours, dithered."""
    return picture.quantize(24, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def grey(picture: Picture, rng: Rng) -> Picture:
    return picture.convert("L").convert("RGB")


def sepia(picture: Picture, rng: Rng) -> Picture:
    return from_floats(floats(picture) @ _SEPIA.T)


def tint(picture: Picture, rng: Rng) -> Picture:
    """Hues turned by 40 degrees either way, colours half as strong."""
    hue, saturation, value = picture.convert("HSV").split()
    turn = int(rng.choice([-28, 28]))
    turned = hue.point([(h + turn) % 256 for h in range(256)])
    paler = saturation.point([round(0.5 * s) for s in range(256)])
    return Image.merge("HSV", (turned, paler, value)).convert("RGB")


def bright(picture: Picture, rng: Rng) -> Picture:
    """A third brighter and clipped, shadows lifted."""
    return from_floats(20 + 1.35 * floats(picture))


def dark(picture: Picture, rng: Rng) -> Picture:
    return from_floats(255 * (floats(picture) / 255) ** 2.1)


def flat(picture: Picture, rng: Rng) -> Picture:
    """Contrast at 45 %."""
    values = floats(picture)
    return from_floats(values.mean() + 0.45 * (values - values.mean()))


def negative(picture: Picture, rng: Rng) -> Picture:
    return ImageOps.invert(picture)


def noise(picture: Picture, rng: Rng) -> Picture:
    values = floats(picture)
    return from_floats(values + rng.normal(0, 22, values.shape))


def blur(picture: Picture, rng: Rng) -> Picture:
    """By 1.2 % of the longest side."""
    return picture.filter(ImageFilter.GaussianBlur(0.012 * max(picture.size)))

"""Attacks that put something on a picture or beside it: words, faces, marks."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from benchmarks.attacks.picture_tools import (
    BLACK,
    WHITE,
    Colour,
    Picture,
    Rng,
    blended,
    canvas,
    font,
    some_colour,
    some_words,
    write_wrapped,
)


def text(picture: Picture, rng: Rng) -> Picture:
    """Two or three lines in one colour, somewhere on the picture."""
    written = picture.copy()
    size = 0.09 * picture.width
    top = float(rng.uniform(0.05, 0.6)) * picture.height
    colour = WHITE if rng.integers(2) else some_colour(rng)
    left = 0.05 * picture.width
    write_wrapped(written, some_words(rng, 7), (left, top, 0.95 * picture.width), size, colour)
    return written


def text_block(picture: Picture, rng: Rng) -> Picture:
    """Words on a box that hides a quarter of the height."""
    written = picture.copy()
    w, h = picture.size
    top = float(rng.uniform(0.1, 0.65)) * h
    ImageDraw.Draw(written).rectangle((0, top, w, top + 0.25 * h), some_colour(rng))
    box = (0.04 * w, top + 0.03 * h, 0.96 * w)
    write_wrapped(written, some_words(rng, 5), box, min(0.08 * w, 0.09 * h), WHITE)
    return written


def emoji(picture: Picture, rng: Rng) -> Picture:
    """Three yellow faces, each 16 to 28 % of the shorter side."""
    drawn = picture.copy()
    for _ in range(3):
        side = float(rng.uniform(0.16, 0.28)) * min(picture.size)
        x, y = (float(rng.uniform(0, room - side)) for room in picture.size)
        _face(ImageDraw.Draw(drawn), x, y, side, is_sad=bool(rng.integers(2)))
    return drawn


def sticker(picture: Picture, rng: Rng) -> Picture:
    """One star that hides the middle: 45 % of the shorter side."""
    drawn = picture.copy()
    radius = 0.225 * min(picture.size)
    x, y = (float(rng.uniform(0.4, 0.6)) * side for side in picture.size)
    points = [
        (
            x + radius * (1 if n % 2 == 0 else 0.55) * math.sin(n * math.pi / 7),
            y - radius * (1 if n % 2 == 0 else 0.55) * math.cos(n * math.pi / 7),
        )
        for n in range(14)
    ]
    ImageDraw.Draw(drawn).polygon(points, some_colour(rng), BLACK)
    return drawn


def logo(picture: Picture, rng: Rng) -> Picture:
    """A mark with a name in one corner, a quarter of the width."""
    drawn = picture.copy()
    w, h = picture.size
    wide = 0.27 * w
    high = wide / 3
    x = 0.03 * w if rng.integers(2) else 0.97 * w - wide
    y = 0.03 * h if rng.integers(2) else 0.97 * h - high
    draw = ImageDraw.Draw(drawn)
    draw.rounded_rectangle((x, y, x + wide, y + high), high / 3, some_colour(rng))
    draw.ellipse((x + 0.1 * high, y + 0.1 * high, x + 0.9 * high, y + 0.9 * high), WHITE)
    draw.text((x + 1.1 * high, y + 0.2 * high), "VIDIO", WHITE, font(0.55 * high))
    return drawn


def watermark(picture: Picture, rng: Rng) -> Picture:
    """A name all over the picture, aslant, one third opaque."""
    w, h = picture.size
    sheet = Image.new("L", (2 * max(w, h), 2 * max(w, h)))
    draw, size = ImageDraw.Draw(sheet), 0.07 * w
    for row in range(math.ceil(sheet.height / (2.2 * size))):
        line = "  ".join(["stockphotos"] * 12)
        draw.text((-row * size, row * 2.2 * size), line, 85, font(size))
    aslant = sheet.rotate(28)
    left, top = (sheet.width - w) // 2, (sheet.height - h) // 2
    mask = aslant.crop((left, top, left + w, top + h))
    return blended(picture, canvas(w, h, WHITE), mask)


def meme(picture: Picture, rng: Rng) -> Picture:
    """A white strip with a caption above, and a line with an outline on the picture."""
    w, h = picture.size
    strip = round(0.24 * h)
    captioned = canvas(w, h + strip, WHITE)
    captioned.paste(picture, (0, strip))
    size = min(0.075 * w, 0.32 * strip)
    write_wrapped(captioned, some_words(rng, 6), (0.03 * w, 0.06 * h, 0.97 * w), size, BLACK)
    draw = ImageDraw.Draw(captioned)
    draw.text(
        (w / 2, h + strip - 0.1 * h),
        some_words(rng, 3).upper(),
        WHITE,
        font(0.09 * w),
        anchor="mm",
        stroke_width=max(round(0.008 * w), 1),
        stroke_fill=BLACK,
    )
    return captioned


def _face(draw: ImageDraw.ImageDraw, x: float, y: float, side: float, *, is_sad: bool) -> None:
    yellow: Colour = (255, 204, 51)
    draw.ellipse((x, y, x + side, y + side), yellow, (120, 80, 0), max(round(0.03 * side), 1))
    for at in (0.3, 0.62):
        eye = (x + at * side, y + 0.3 * side, x + (at + 0.1) * side, y + 0.44 * side)
        draw.ellipse(eye, BLACK)
    mouth = (x + 0.25 * side, y + 0.55 * side, x + 0.75 * side, y + 0.85 * side)
    begin, end = (180, 360) if is_sad else (0, 180)
    draw.arc(mouth, begin, end, BLACK, max(round(0.05 * side), 1))

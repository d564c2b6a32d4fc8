"""Small drawing steps that several attacks on pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture: TypeAlias = Image.Image
"""8-bit RGB. Attacks leave what they are given as it is."""

Rng: TypeAlias = np.random.Generator
Colour: TypeAlias = tuple[int, int, int]

BLACK: Final = (0, 0, 0)
WHITE: Final = (255, 255, 255)

_SENTENCES: Final = (
    "when you finally get home nobody told me this was today look what came in my feed again "
    "share before it is gone my friend sent it last night wait for the end"
)


def to_file(picture: Picture, form: str = "JPEG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def again(picture: Picture, form: str, **options: Any) -> Picture:
    """What is left of it after a file of that format and quality."""
    with Image.open(BytesIO(to_file(picture, form, **options))) as opened:
        return opened.convert("RGB")


def scaled(picture: Picture, times: float) -> Picture:
    return resized(picture, picture.width * times, picture.height * times)


def resized(picture: Picture, width: float, height: float) -> Picture:
    size = (max(round(width), 8), max(round(height), 8))
    return picture.resize(size, Image.Resampling.BICUBIC)


def covering(picture: Picture, width: int, height: int) -> Picture:
    """Scaled until it fills the box, what hangs over cut off on both sides alike."""
    larger = scaled(picture, max(width / picture.width, height / picture.height) * 1.001)
    left, top = (larger.width - width) // 2, (larger.height - height) // 2
    return larger.crop((left, top, left + width, top + height))


def within(picture: Picture, width: int, height: int) -> Picture:
    """Scaled until it just fits into the box."""
    return scaled(picture, min(width / picture.width, height / picture.height))


def canvas(width: float, height: float, colour: Colour) -> Picture:
    return Image.new("RGB", (round(width), round(height)), colour)


def some_colour(rng: Rng) -> Colour:
    red, green, blue = (int(c) for c in rng.integers(20, 236, 3))
    return red, green, blue


def some_words(rng: Rng, count: int) -> str:
    return " ".join(str(word) for word in rng.choice(_SENTENCES.split(), count))


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own; no file is needed."""
    return ImageFont.load_default(max(size, 6.0))


def write_wrapped(
    picture: Picture, words: str, box: tuple[float, float, float], size: float, colour: Colour
) -> float:
    """Words in lines inside (left, top, right); returns where the last line ends."""
    left, top, right = box
    draw, letters, line = ImageDraw.Draw(picture), font(size), ""
    for word in words.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, letters) > right - left:
            draw.text((left, top), line, colour, letters)
            top, line = top + 1.25 * size, word
        else:
            line = longer
    draw.text((left, top), line, colour, letters)
    return top + 1.25 * size


def blended(under: Picture, over: Picture, mask: Image.Image) -> Picture:
    return Image.composite(over, under, mask)


def floats(picture: Picture) -> NDArray[np.float32]:
    """(height, width, 3), 0 to 255."""
    return np.asarray(picture, np.float32)


def from_floats(values: NDArray[np.floating]) -> Picture:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def warped(
    picture: Picture, corners: Sequence[tuple[float, float]], size: tuple[int, int], fill: Colour
) -> Picture:
    """`corners`: where the upper left, upper right, lower right and lower left corner come to lie
    on a canvas of `size`; around it is `fill`."""
    w, h = picture.size
    sources = [(0.0, 0.0), (float(w), 0.0), (float(w), float(h)), (0.0, float(h))]
    rows, wanted = [], []
    for (x, y), (u, v) in zip(corners, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(wanted)).tolist()
    return picture.transform(
        size,
        Image.Transform.PERSPECTIVE,
        coefficients,
        Image.Resampling.BICUBIC,
        fillcolor=fill,
    )

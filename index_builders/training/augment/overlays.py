"""Overlays and frames: text, stickers, captions, screenshots and the like, drawn at random.

Each function takes an RGB image and a generator and returns an RGB image; sizes are relative to
the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rng = np.random.Generator
Colour = tuple[int, int, int]
Effect = Callable[[Image.Image, Rng], Image.Image]

_LETTERS = np.array(list("aaabcdeeeefghiiijklmnnoooprrssstttuuvwyzAEIORSTLN0123456789!?.,#@&"))
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def colour(rng: Rng) -> Colour:
    """A random colour; black and white are frequent."""
    kind = rng.random()
    if kind < 0.3:
        return _WHITE
    if kind < 0.5:
        return _BLACK
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def words(rng: Rng, letters: int) -> str:
    """About `letters` letters in words of 2 to 9, of no language."""
    said = "".join(rng.choice(_LETTERS, letters))
    breaks = np.cumsum(rng.integers(2, 10, letters))
    return " ".join(said[a:b] for a, b in zip([0, *breaks], breaks, strict=False) if said[a:b])


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that a run needs no font of the machine."""
    return ImageFont.load_default(size_px)


def text(image: Image.Image, rng: Rng) -> Image.Image:
    """One to four lines anywhere, some outlined, some on a bar, some turned or see-through."""
    size_px = max(int(image.height * rng.uniform(0.06, 0.22)), 7)
    lines = int(rng.integers(1, 5))
    said = "\n".join(words(rng, int(rng.integers(4, 18))) for _ in range(lines))
    ink = colour(rng)
    edge = tuple(255 - c for c in ink) if rng.random() < 0.5 else None
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    x = int(image.width * rng.uniform(-0.05, 0.6))
    y = int(image.height * rng.uniform(0, 0.85))
    opacity = int(rng.uniform(130, 256))
    if rng.random() < 0.25:
        bar = (0, y, image.width, y + lines * size_px * 1.25)
        draw.rectangle(bar, fill=(*colour(rng), opacity))
    draw.multiline_text(
        (x, y),
        said,
        fill=(*ink, opacity),
        font=_font(size_px),
        stroke_width=1 + size_px // 16 if edge else 0,
        stroke_fill=(*edge, opacity) if edge else None,
    )
    if rng.random() < 0.3:
        layer = layer.rotate(rng.uniform(-45, 45), Image.Resampling.BILINEAR)
    return _over(image, layer)


def faces(image: Image.Image, rng: Rng) -> Image.Image:
    """One to six round stickers with eyes and a mouth, hearts or stars, of 8 to 45 %."""
    layer = Image.new("RGBA", image.size)
    for _ in range(int(rng.integers(1, 7))):
        side = int(min(image.size) * rng.uniform(0.08, 0.45))
        sticker = _sticker(rng, max(side, 8))
        x = int(rng.uniform(-0.3, 0.9) * image.width)
        y = int(rng.uniform(-0.3, 0.9) * image.height)
        layer.paste(sticker, (x, y), sticker)
    return _over(image, layer)


def _sticker(rng: Rng, side: int) -> Image.Image:
    sticker = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(sticker)
    kind = rng.random()
    if kind < 0.6:
        _draw_face(draw, rng, side)
    elif kind < 0.8:
        _draw_heart(draw, rng, side)
    else:
        _draw_star(draw, rng, side)
    return sticker.rotate(rng.uniform(-40, 40)) if rng.random() < 0.4 else sticker


def _draw_face(draw: ImageDraw.ImageDraw, rng: Rng, side: int) -> None:
    skin = (255, int(rng.integers(170, 230)), int(rng.integers(0, 90)), 255)
    draw.ellipse((0, 0, side - 1, side - 1), fill=skin)
    eye = side * rng.uniform(0.05, 0.11)
    y = 0.36 * side
    for x in (0.32 * side, 0.68 * side):
        draw.ellipse((x - eye, y - eye, x + eye, y + eye), fill=(60, 40, 20, 255))
    mouth = (0.25 * side, 0.4 * side, 0.75 * side, 0.8 * side)
    if rng.random() < 0.5:
        draw.chord(mouth, 10, 170, fill=(90, 30, 20, 255))
    else:
        draw.arc(mouth, 20, 160, fill=(60, 40, 20, 255), width=max(side // 14, 1))


def _draw_heart(draw: ImageDraw.ImageDraw, rng: Rng, side: int) -> None:
    red = (int(rng.integers(180, 256)), int(rng.integers(0, 80)), int(rng.integers(0, 110)), 255)
    draw.ellipse((0, 0, 0.55 * side, 0.55 * side), fill=red)
    draw.ellipse((0.45 * side, 0, side, 0.55 * side), fill=red)
    corners = [(0.04 * side, 0.38 * side), (0.96 * side, 0.38 * side), (0.5 * side, side)]
    draw.polygon(corners, fill=red)


def _draw_star(draw: ImageDraw.ImageDraw, rng: Rng, side: int) -> None:
    points = int(rng.integers(4, 9))
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, 0.22, 0.5) * side
    corners = zip(side / 2 + radii * np.sin(angles), side / 2 - radii * np.cos(angles), strict=True)
    draw.polygon([(float(x), float(y)) for x, y in corners], fill=(*colour(rng), 255))


def shapes(image: Image.Image, rng: Rng) -> Image.Image:
    """Bars, boxes and blots that hide up to a third of the picture."""
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(1, 5))):
        width, height = (int(s * rng.uniform(0.05, 0.4)) for s in image.size)
        x, y = (int(s * rng.uniform(-0.1, 0.9)) for s in image.size)
        fill = (*colour(rng), int(rng.uniform(120, 256)))
        drawn = draw.rectangle if rng.random() < 0.6 else draw.ellipse
        drawn((x, y, x + max(width, 1), y + max(height, 1)), fill=fill)
    return _over(image, layer)


def watermark(image: Image.Image, rng: Rng) -> Image.Image:
    """The same faint words again and again across the picture."""
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    size_px = max(int(image.height * rng.uniform(0.07, 0.14)), 7)
    said = words(rng, int(rng.integers(5, 14)))
    ink = (*colour(rng), int(rng.uniform(50, 140)))
    for y in range(0, image.height, int(size_px * rng.uniform(1.6, 4))):
        x = int(-image.width * rng.uniform(0, 0.5))
        draw.text((x, y), f"{said}   {said}   {said}", fill=ink, font=_font(size_px))
    return _over(image, layer.rotate(rng.uniform(-35, 35)) if rng.random() < 0.6 else layer)


def _over(image: Image.Image, layer: Image.Image) -> Image.Image:
    out = image.copy()
    out.paste(layer, (0, 0), layer)
    return out


def border(image: Image.Image, rng: Rng) -> Image.Image:
    """A frame of one colour, each side 0 to 25 %, mostly the same all around."""
    even = rng.uniform(0.02, 0.2)
    sides = np.full(4, even) if rng.random() < 0.6 else rng.uniform(0, 0.25, 4)
    return _framed(image, sides, colour(rng))


def letterbox(image: Image.Image, rng: Rng) -> Image.Image:
    """Bars above and below, or left and right, mostly black."""
    bar = rng.uniform(0.08, 0.45)
    sides = np.array([0, bar, 0, bar] if rng.random() < 0.5 else [bar, 0, bar, 0])
    return _framed(image, sides, _BLACK if rng.random() < 0.6 else colour(rng))


def _framed(image: Image.Image, sides: Sequence[float] | np.ndarray, fill: Colour) -> Image.Image:
    """`sides` are left, top, right, bottom, as shares of width and height."""
    width, height = image.size
    left, top, right, bottom = (
        int(share * size) for share, size in zip(sides, (width, height) * 2, strict=True)
    )
    out = Image.new("RGB", (width + left + right, height + top + bottom), fill)
    out.paste(image, (left, top))
    return out


def caption(image: Image.Image, rng: Rng) -> Image.Image:
    """A meme's bar of text above, below or both, black on white or the other way around."""
    paper, ink = (_WHITE, _BLACK) if rng.random() < 0.7 else (_BLACK, _WHITE)
    where = rng.integers(0, 3)
    top = rng.uniform(0.12, 0.4) if where != 1 else 0.0
    bottom = rng.uniform(0.12, 0.4) if where != 0 else 0.0
    out = _framed(image, [0, top, 0, bottom], paper)
    draw = ImageDraw.Draw(out)
    above, below = int(top * image.height), int(bottom * image.height)
    for begin, height in ((0, above), (out.height - below, below)):
        if height >= 8:
            _fill_bar(draw, rng, (begin, height), out.width, ink)
    return out


def _fill_bar(
    draw: ImageDraw.ImageDraw, rng: Rng, bar: tuple[int, int], width: int, ink: Colour
) -> None:
    """Lines of words as wide as the bar. `bar` is where it begins and how high it is."""
    begin, height = bar
    lines = int(rng.integers(1, 4))
    size_px = max(int(height / lines * 0.7), 6)
    for line in range(lines):
        letters = max(int(width / size_px * rng.uniform(0.8, 1.8)), 3)
        y = begin + line * height / lines
        draw.text((width * 0.03, y), words(rng, letters), fill=ink, font=_font(size_px))


def screenshot(image: Image.Image, rng: Rng) -> Image.Image:
    """The screen of an app: bars with icons above and below, lines of text, perhaps a side bar."""
    dark = rng.random() < 0.4
    paper: Colour = (24, 26, 30) if dark else (250, 250, 252)
    ink: Colour = (225, 225, 225) if dark else (40, 40, 45)
    wide = rng.random() < 0.35
    width, height = image.size
    frame = (int(width * rng.uniform(1.2, 2.2)), int(height * rng.uniform(1.05, 1.4)))
    if not wide:
        frame = (int(width * rng.uniform(1.0, 1.12)), int(height * rng.uniform(1.25, 2.1)))
    out = Image.new("RGB", frame, paper)
    draw = ImageDraw.Draw(out)
    left = int((frame[0] - width) * rng.random())
    top = int((frame[1] - height) * rng.uniform(0.15, 0.75))
    unit = max(int(min(frame) * rng.uniform(0.035, 0.07)), 6)
    _draw_lines(draw, rng, frame, unit, ink)
    out.paste(image, (left, top))
    _draw_bar(draw, rng, (0, unit * 2), frame[0], unit)
    if rng.random() < 0.6:
        _draw_bar(draw, rng, (frame[1] - unit * 2, frame[1]), frame[0], unit)
    return out


def _draw_lines(
    draw: ImageDraw.ImageDraw, rng: Rng, frame: tuple[int, int], unit: int, ink: Colour
) -> None:
    x = int(frame[0] * 0.04)
    for y in range(unit * 3, frame[1], int(unit * rng.uniform(1.4, 2.4))):
        if rng.random() < 0.75:
            letters = max(int(rng.uniform(0.2, 1.6) * frame[0] / unit), 2)
            draw.text((x, y), words(rng, letters), fill=ink, font=_font(unit))


def _draw_bar(
    draw: ImageDraw.ImageDraw, rng: Rng, rows: tuple[int, int], width: int, unit: int
) -> None:
    fill = colour(rng)
    draw.rectangle((0, rows[0], width, rows[1]), fill=fill)
    ink = _BLACK if sum(fill) > 380 else _WHITE
    middle = (rows[0] + rows[1]) / 2
    for x in np.linspace(unit, width - unit, int(rng.integers(3, 7))):
        drawn = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        drawn((x - unit / 2, middle - unit / 2, x + unit / 2, middle + unit / 2), fill=ink)
    draw.text((width * 0.1, rows[0] + unit / 2), words(rng, 8), fill=ink, font=_font(unit))

"""Views of a photograph: a light one, as it might be banked, and a heavy one, as it might be
uploaded again. The encoder learns to bring the two together.

A view is a function of the photograph, the generator and a few other photographs, of nothing
else: the same seed gives the same views on any machine with the same Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from index_builders.training.augment import overlays
from index_builders.training.augment.overlays import Effect, Rng
from simsearch.encode.encoder_protocol import Pixels

WORKING_PX = 176
"""Longest side while a heavy view is made: enough for legible captions, and quick."""

OTHERS = 3
"""How many other photographs a heavy view may show beside its own."""

_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def light_view(photo: Pixels, rng: Rng, side_px: int) -> Pixels:
    """(side_px, side_px, 3) uint8: cropped a little, perhaps mirrored, recompressed, retouched."""
    image = cropped(Image.fromarray(photo), rng, area_min=0.65)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        image = retouched(image, rng, strength=0.2)
    image = _squashed(image, rng, side_px)
    return np.asarray(recompressed(image, rng, 55, 96) if rng.random() < 0.3 else image)


def heavy_view(photo: Pixels, others: Sequence[Pixels], rng: Rng, side_px: int) -> Pixels:
    """(side_px, side_px, 3) uint8: turned, retouched, written over, framed, put among others."""
    image = _moved(Image.fromarray(photo), rng)
    image.thumbnail((WORKING_PX, WORKING_PX), Image.Resampling.BILINEAR)
    image = _spoiled(image, rng)
    for effect in _some(rng, _LAID_OVER, (0.45, 0.4, 0.15)):
        image = effect(image, rng)
    image = _surrounded(image, others, rng)
    if rng.random() < 0.1:
        image = rotated(image, rng, 20)
    image = _squashed(image, rng, side_px)
    if rng.random() < 0.12:
        image = noisy(image, rng)
    return np.asarray(recompressed(image, rng, 8, 90) if rng.random() < 0.4 else image)


def _some(rng: Rng, effects: Sequence[Effect], shares: Sequence[float]) -> list[Effect]:
    """None, one or two of them, as often as `shares` say."""
    count = int(rng.choice(len(shares), p=shares))
    return [effects[i] for i in rng.choice(len(effects), count, replace=False)]


# ---------------------------------------------------------------- moved


def _moved(image: Image.Image, rng: Rng) -> Image.Image:
    if rng.random() < 0.75:
        image = cropped(image, rng, area_min=0.18 if rng.random() < 0.4 else 0.45)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.25:
        image = image.transpose(_TURNS[int(rng.integers(3))])
    if rng.random() < 0.25:
        image = rotated(image, rng, 40)
    return image


def cropped(image: Image.Image, rng: Rng, area_min: float) -> Image.Image:
    """A part of `area_min` to all of the picture, a third wider or narrower at most."""
    width, height = image.size
    area, ratio = rng.uniform(area_min, 1.0), np.exp(rng.uniform(-0.29, 0.29))
    w = min(max(round(width * np.sqrt(area * ratio)), 1), width)
    h = min(max(round(height * np.sqrt(area / ratio)), 1), height)
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return image.crop((x, y, x + w, y + h))


def rotated(image: Image.Image, rng: Rng, degrees_max: float) -> Image.Image:
    """By any angle: with corners filled, or zoomed until none shows."""
    degrees = rng.uniform(-degrees_max, degrees_max)
    whole = rng.random() < 0.5
    turned = image.rotate(
        degrees, Image.Resampling.BILINEAR, expand=whole, fillcolor=overlays.colour(rng)
    )
    if whole or rng.random() < 0.4:
        return turned
    slope = abs(np.sin(np.radians(degrees)))
    cut = 0.625 * min(slope / (1 + slope), 0.3)
    width, height = image.size
    x, y = int(width * cut), int(height * cut)
    return turned.crop((x, y, max(width - x, x + 1), max(height - y, y + 1)))


def _squashed(image: Image.Image, rng: Rng, side_px: int) -> Image.Image:
    """As the encoder's own preprocessing does it, or nearly."""
    resample = Image.Resampling.BILINEAR if rng.random() < 0.8 else Image.Resampling.BICUBIC
    return image.resize((side_px, side_px), resample)


# ---------------------------------------------------------------- spoiled


def _spoiled(image: Image.Image, rng: Rng) -> Image.Image:
    if rng.random() < 0.5:
        image = retouched(image, rng, strength=0.5)
    if rng.random() < 0.12:
        image = image.convert("L").convert("RGB")
    kind = rng.random()
    if kind < 0.12:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    elif kind < 0.28:
        image = downscaled(image, rng)
    elif kind < 0.32:
        image = image.filter(ImageFilter.SHARPEN)
    return image


def retouched(image: Image.Image, rng: Rng, strength: float) -> Image.Image:
    """Brightness, contrast, saturation and the balance of colours, each by up to `strength`."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.6:
            image = enhance(image).enhance(float(np.exp(rng.uniform(-strength, strength))))
    if rng.random() < 0.35:
        image = _tinted(image, rng, strength)
    return image


def _tinted(image: Image.Image, rng: Rng, strength: float) -> Image.Image:
    """Each channel bent by its own gamma."""
    steps = np.arange(256) / 255
    gammas = np.exp(rng.uniform(-strength, strength, 3))
    return image.point([round(255 * float(s**g)) for g in gammas for s in steps])


def downscaled(image: Image.Image, rng: Rng) -> Image.Image:
    """Made small and left so: the squash at the end blows it up again."""
    scale = rng.uniform(0.2, 0.7)
    size = [max(int(side * scale), 8) for side in image.size]
    kind = Image.Resampling.NEAREST if rng.random() < 0.3 else Image.Resampling.BILINEAR
    return image.resize((size[0], size[1]), kind)


def noisy(image: Image.Image, rng: Rng) -> Image.Image:
    """With Gaussian noise on each value."""
    noise = rng.normal(0, rng.uniform(4, 25), np.asarray(image).shape).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def recompressed(image: Image.Image, rng: Rng, quality_min: int, quality_max: int) -> Image.Image:
    """After JPEG of a random quality, `quality_max` excluded."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(quality_min, quality_max)))
    return Image.open(stream).convert("RGB")


# ---------------------------------------------------------------- among others


def _surrounded(image: Image.Image, others: Sequence[Pixels], rng: Rng) -> Image.Image:
    """As it is, framed, captioned, in a screenshot, pasted on a background or in a collage."""
    kind = rng.random()
    if kind < 0.40:
        return image
    if kind < 0.62:
        return _FRAMES[int(rng.integers(len(_FRAMES)))](image, rng)
    if kind < 0.74:
        return overlays.screenshot(image, rng)
    scene = pasted if kind < 0.87 else collage
    return scene(image, [Image.fromarray(other) for other in others], rng)


def pasted(image: Image.Image, others: Sequence[Image.Image], rng: Rng) -> Image.Image:
    """On another photograph or a plain ground, 15 to 80 % of its area."""
    ground = others[0] if rng.random() < 0.75 else Image.new("RGB", (8, 8), overlays.colour(rng))
    ground = ground.resize((WORKING_PX, WORKING_PX), Image.Resampling.BILINEAR)
    scale = np.sqrt(rng.uniform(0.15, 0.8))
    stretch = np.exp(rng.uniform(-0.25, 0.25))
    width = int(np.clip(WORKING_PX * scale * stretch, 16, WORKING_PX))
    height = int(np.clip(WORKING_PX * scale / stretch, 16, WORKING_PX))
    x, y = (int(rng.integers(0, WORKING_PX - side + 1)) for side in (width, height))
    ground.paste(image.resize((width, height), Image.Resampling.BILINEAR), (x, y))
    return ground


def collage(image: Image.Image, others: Sequence[Image.Image], rng: Rng) -> Image.Image:
    """Two side by side, two above each other, or four."""
    columns, rows = ((2, 1), (1, 2), (2, 2))[int(rng.integers(3))]
    width, height = WORKING_PX // columns, WORKING_PX // rows
    gap = int(rng.integers(0, 6))
    out = Image.new("RGB", (WORKING_PX, WORKING_PX), overlays.colour(rng))
    cells = [(x * width, y * height) for y in range(rows) for x in range(columns)]
    own = int(rng.integers(len(cells)))
    rest = [*others] * 3
    for number, (x, y) in enumerate(cells):
        shown = image if number == own else rest[number]
        size = (max(width - gap, 1), max(height - gap, 1))
        out.paste(shown.resize(size, Image.Resampling.BILINEAR), (x, y))
    return out


_LAID_OVER: tuple[Effect, ...] = (
    overlays.text,
    overlays.text,
    overlays.faces,
    overlays.faces,
    overlays.shapes,
    overlays.watermark,
)
_FRAMES: tuple[Callable[[Image.Image, Rng], Image.Image], ...] = (
    overlays.border,
    overlays.letterbox,
    overlays.caption,
    overlays.caption,
)

"""Two views of a photograph: a light one, as it might be banked, and a heavy one, as it might
come back. The encoder learns to bring the two together.

A view is a function of the photograph, the generator and a few other photographs, of nothing
else: the same seed gives the same views on any machine with the same Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from index_builders.training import overlays, shares
from index_builders.training.overlays import Effect, Rng
from index_builders.training.shares import WORKING_PX, which
from simsearch.encode.protocol import Pixels

_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def light_view(photo: Pixels, rng: Rng, side_px: int) -> Pixels:
    """(side_px, side_px, 3) uint8: cropped a little, perhaps mirrored, recompressed, retouched."""
    image = cropped(Image.fromarray(photo), rng, shares.LIGHT_AREA_MIN)
    if rng.random() < shares.FLIPPED:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < shares.LIGHT_RETOUCHED:
        image = retouched(image, rng, shares.LIGHT_STRENGTH)
    image = _squashed(image, rng, side_px)
    if rng.random() < shares.LIGHT_RECOMPRESSED:
        image = recompressed(image, rng, *shares.LIGHT_QUALITY)
    return np.asarray(image)


def heavy_view(photo: Pixels, others: Sequence[Pixels], rng: Rng, side_px: int) -> Pixels:
    """(side_px, side_px, 3) uint8: turned, retouched, written over, framed, put among others."""
    image = _moved(Image.fromarray(photo), rng)
    image.thumbnail((WORKING_PX, WORKING_PX), Image.Resampling.BILINEAR)
    image = _spoiled(image, rng)
    for effect in _some(rng, LAID_OVER, shares.LAID_OVER):
        image = effect(image, rng)
    image = _surrounded(image, others, rng)
    if rng.random() < shares.ROTATED_LATE:
        image = rotated(image, rng, shares.ROTATED_LATE_DEGREES)
    image = _squashed(image, rng, side_px)
    if rng.random() < shares.NOISY:
        image = noisy(image, rng)
    if rng.random() < shares.RECOMPRESSED:
        image = recompressed(image, rng, *shares.QUALITY)
    return np.asarray(image)


def _some(rng: Rng, effects: Sequence[Effect], often: Sequence[float]) -> list[Effect]:
    """None, one or two of them, as often as `often` says."""
    count = int(rng.choice(len(often), p=often))
    return [effects[i] for i in rng.choice(len(effects), count, replace=False)]


# ---------------------------------------------------------------- moved


def _moved(image: Image.Image, rng: Rng) -> Image.Image:
    if rng.random() < shares.CROPPED:
        hard = rng.random() < shares.CROPPED_HARD
        image = cropped(image, rng, shares.AREA_MIN_HARD if hard else shares.AREA_MIN)
    if rng.random() < shares.FLIPPED:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < shares.QUARTER_TURNED:
        image = image.transpose(_TURNS[int(rng.integers(3))])
    if rng.random() < shares.ROTATED:
        image = rotated(image, rng, shares.ROTATED_DEGREES)
    return image


def cropped(image: Image.Image, rng: Rng, area_min: float) -> Image.Image:
    """A part of `area_min` to all of the picture, a third wider or narrower at most."""
    width, height = image.size
    area = rng.uniform(area_min, 1.0)
    ratio = np.exp(rng.uniform(-shares.RATIO_LOG_MAX, shares.RATIO_LOG_MAX))
    w = min(max(round(width * np.sqrt(area * ratio)), 1), width)
    h = min(max(round(height * np.sqrt(area / ratio)), 1), height)
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return image.crop((x, y, x + w, y + h))


def rotated(image: Image.Image, rng: Rng, degrees_max: float) -> Image.Image:
    """By any angle: with corners filled, or zoomed until none shows."""
    degrees = rng.uniform(-degrees_max, degrees_max)
    whole = rng.random() < shares.ROTATED_WHOLE
    turned = image.rotate(
        degrees, Image.Resampling.BILINEAR, expand=whole, fillcolor=overlays.colour(rng)
    )
    if whole or rng.random() < shares.CORNERS_LEFT:
        return turned
    slope = abs(np.sin(np.radians(degrees)))
    cut = min(slope / (1 + slope), shares.ZOOM_MAX) * shares.ZOOM_SHARE
    width, height = image.size
    x, y = int(width * cut), int(height * cut)
    return turned.crop((x, y, max(width - x, x + 1), max(height - y, y + 1)))


def _squashed(image: Image.Image, rng: Rng, side_px: int) -> Image.Image:
    """As the encoder's own preprocessing does it, or nearly."""
    usual = rng.random() < 1 - shares.BICUBIC
    resample = Image.Resampling.BILINEAR if usual else Image.Resampling.BICUBIC
    return image.resize((side_px, side_px), resample)


# ---------------------------------------------------------------- spoiled


def _spoiled(image: Image.Image, rng: Rng) -> Image.Image:
    if rng.random() < shares.RETOUCHED:
        image = retouched(image, rng, shares.STRENGTH)
    if rng.random() < shares.GREY:
        image = image.convert("L").convert("RGB")
    kind = which(rng.random(), shares.SPOILED)
    if kind == 0:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*shares.BLUR_SIGMA_PX)))
    elif kind == 1:
        image = downscaled(image, rng)
    elif kind == 2:
        image = image.filter(ImageFilter.SHARPEN)
    return image


def retouched(image: Image.Image, rng: Rng, strength: float) -> Image.Image:
    """Brightness, contrast, saturation and the balance of colours, each by up to `strength`."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < shares.EACH_ENHANCED:
            image = enhance(image).enhance(float(np.exp(rng.uniform(-strength, strength))))
    if rng.random() < shares.TINTED:
        image = _tinted(image, rng, strength)
    return image


def _tinted(image: Image.Image, rng: Rng, strength: float) -> Image.Image:
    """Each channel bent by its own gamma."""
    steps = np.arange(256) / 255
    gammas = np.exp(rng.uniform(-strength, strength, 3))
    return image.point([round(255 * float(s**g)) for g in gammas for s in steps])


def downscaled(image: Image.Image, rng: Rng) -> Image.Image:
    """Made small and left so: the squash at the end blows it up again."""
    scale = rng.uniform(*shares.DOWNSCALE)
    size = [max(int(side * scale), shares.DOWNSCALED_PX_MIN) for side in image.size]
    nearest = rng.random() < shares.NEAREST
    kind = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return image.resize((size[0], size[1]), kind)


def noisy(image: Image.Image, rng: Rng) -> Image.Image:
    noise = rng.normal(0, rng.uniform(*shares.NOISE_SIGMA), np.asarray(image).shape).astype(
        np.float32
    )
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def recompressed(image: Image.Image, rng: Rng, quality_min: int, quality_max: int) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(quality_min, quality_max)))
    return Image.open(stream).convert("RGB")


# ---------------------------------------------------------------- among others


def _surrounded(image: Image.Image, others: Sequence[Pixels], rng: Rng) -> Image.Image:
    """As it is, framed, captioned, in a screenshot, pasted on a background or in a collage."""
    kind = which(rng.random(), shares.SURROUNDED)
    if kind == 0:
        return image
    if kind == 1:
        return FRAMES[int(rng.integers(len(FRAMES)))](image, rng)
    if kind == 2:
        return overlays.screenshot(image, rng)
    scene = pasted if kind == 3 else collage
    return scene(image, [Image.fromarray(other) for other in others], rng)


def pasted(image: Image.Image, others: Sequence[Image.Image], rng: Rng) -> Image.Image:
    """On another photograph or a plain ground, 15 to 80 % of its area."""
    on_photograph = rng.random() < shares.ON_PHOTOGRAPH
    ground = others[0] if on_photograph else Image.new("RGB", (8, 8), overlays.colour(rng))
    ground = ground.resize((WORKING_PX, WORKING_PX), Image.Resampling.BILINEAR)
    scale = np.sqrt(rng.uniform(*shares.PASTED_AREA))
    stretch = np.exp(rng.uniform(-shares.PASTED_STRETCH_LOG, shares.PASTED_STRETCH_LOG))
    width = int(np.clip(WORKING_PX * scale * stretch, shares.PASTED_PX_MIN, WORKING_PX))
    height = int(np.clip(WORKING_PX * scale / stretch, shares.PASTED_PX_MIN, WORKING_PX))
    x, y = (int(rng.integers(0, WORKING_PX - side + 1)) for side in (width, height))
    ground.paste(image.resize((width, height), Image.Resampling.BILINEAR), (x, y))
    return ground


def collage(image: Image.Image, others: Sequence[Image.Image], rng: Rng) -> Image.Image:
    """Two side by side, two above each other, or four."""
    columns, rows = shares.GRIDS[int(rng.integers(len(shares.GRIDS)))]
    width, height = WORKING_PX // columns, WORKING_PX // rows
    gap = int(rng.integers(0, shares.GAP_PX))
    out = Image.new("RGB", (WORKING_PX, WORKING_PX), overlays.colour(rng))
    cells = shares.cells(columns, rows, WORKING_PX)
    own = int(rng.integers(len(cells)))
    rest = [*others] * 3
    for number, (x, y) in enumerate(cells):
        shown = image if number == own else rest[number]
        size = (max(width - gap, 1), max(height - gap, 1))
        out.paste(shown.resize(size, Image.Resampling.BILINEAR), (x, y))
    return out


LAID_OVER: tuple[Effect, ...] = (
    overlays.text,
    overlays.text,
    overlays.faces,
    overlays.faces,
    overlays.shapes,
    overlays.watermark,
)
FRAMES: tuple[Callable[[Image.Image, Rng], Image.Image], ...] = (
    overlays.border,
    overlays.letterbox,
    overlays.caption,
    overlays.caption,
)

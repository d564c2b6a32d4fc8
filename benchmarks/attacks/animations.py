"""Animations with a banned picture in one of their frames, in three formats.

The other frames are a film (a photograph that moves), or pictures that have nothing to do with each
other. The banned one comes at a random place, with a random delay, whole or built from tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.attacks.picture_tools import Picture

FORMATS: Final = ("GIF", "WEBP", "PNG")
SIDE_PX: Final = 224
FRAMES: Final = (5, 60)
TILES: Final = (3, 8)
"""Of a side, at least and at most."""

DELAYS_MS: Final = (0, 10, 40, 100, 1_000)


def animated(
    banned: Picture, props: Sequence[Picture], format: str, built: bool, rng: np.random.Generator
) -> bytes:
    """The file. `built`: no frame of it holds the banned picture, they are tiles of it laid over
    each other."""
    size = _size(banned)
    shown = [banned.resize(size)]
    if built:
        shown = _tiles(shown[0], int(rng.integers(*TILES)), rng, layers=format == "PNG")
    count = max(int(rng.integers(FRAMES[0], FRAMES[1] + 1)), len(shown) + 2)
    others = _others(props, size, count - len(shown), rng)
    at = int(rng.integers(0, len(others) + 1))
    frames = [*others[:at], *shown, *others[at:]]
    delays = [int(delay) for delay in rng.choice(DELAYS_MS, len(frames))]
    return _saved(frames, format, delays)


def _size(picture: Picture) -> tuple[int, int]:
    scale = SIDE_PX / max(picture.size)
    width, height = (max(round(side * scale), 48) for side in picture.size)
    return width, height


def _others(
    props: Sequence[Picture], size: tuple[int, int], count: int, rng: np.random.Generator
) -> list[Picture]:
    """Half of the time a film, else whatever comes."""
    if rng.random() < 0.5:
        prop = props[int(rng.integers(len(props)))]
        wide = prop.resize((2 * size[0], size[1]))
        steps = np.linspace(0, size[0], count).astype(int)
        return [wide.crop((int(x), 0, int(x) + size[0], size[1])) for x in steps]
    chosen = rng.integers(0, len(props), count)
    return [props[int(n)].resize(size) for n in chosen]


def _tiles(
    picture: Picture, side: int, rng: np.random.Generator, layers: bool
) -> list[Image.Image]:
    """A tile more in every frame; with `layers` each frame is one tile alone, on nothing."""
    xs = np.linspace(0, picture.width, side + 1).astype(int)
    ys = np.linspace(0, picture.height, side + 1).astype(int)
    boxes = [
        (int(xs[c]), int(ys[r]), int(xs[c + 1]), int(ys[r + 1]))
        for r in range(side)
        for c in range(side)
    ]
    frames: list[Image.Image] = []
    canvas = Image.new("RGBA" if layers else "RGB", picture.size)
    for number in rng.permutation(len(boxes)):
        box = boxes[int(number)]
        canvas = Image.new("RGBA", picture.size) if layers else canvas.copy()
        canvas.paste(picture.crop(box), box[:2])
        frames.append(canvas)
    return frames


def _saved(frames: Sequence[Image.Image], format: str, delays: Sequence[int]) -> bytes:
    options: dict[str, Any] = {"PNG": {"blend": 1}, "WEBP": {"quality": 80}}.get(format, {})
    shown = [f.convert("RGBA") if format == "PNG" else f.convert("RGB") for f in frames]
    if format == "GIF":  # 256 colours each, as quickly as a tool for the web finds them
        shown = [f.quantize(256, Image.Quantize.FASTOCTREE) for f in shown]
    file = BytesIO()
    shown[0].save(
        file, format, save_all=True, append_images=shown[1:], duration=list(delays), **options
    )
    return file.getvalue()

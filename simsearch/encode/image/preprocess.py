"""Preprocessing: a Picture to the pixels that one image model takes, as in its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image

from simsearch.encode.encoder_protocol import Pixels
from simsearch.encode.image.picture import Picture, Size
from simsearch.errors import BadConfig

DRAFT = 2
"""A JPEG is decoded at no less than twice the size it is resized to: mean difference to a full
decode 0.56 of 255, at a fraction of the time. Part of the preprocessing id."""

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "random": Image.Resampling.BICUBIC,  # a training option; open_clip reads it so
}
_MODES = ("squash", "shortest", "longest")


@dataclass(frozen=True)
class Preprocess:
    """open_clip's inference transform, up to normalisation, in terms of one resize of one box.

    `size` is (width, height); `mode` is "squash" (both sides to `size`), "shortest" (shorter
    side to `size`, centre cropped) or "longest" (longer side to `size`, padded with `fill`).
    """

    size: Size
    mode: str
    interpolation: str
    fill: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preprocess:
        """From open_clip's preprocess config. Raises BadConfig for what it does not know."""
        side = config["size"]
        height, width = (side, side) if isinstance(side, int) else side
        mode = config.get("resize_mode") or "shortest"
        interpolation = config.get("interpolation") or "bicubic"
        if mode not in _MODES or interpolation not in _RESAMPLING:
            raise BadConfig(
                f"the model asks for resize mode {mode!r} with {interpolation!r}: "
                f"known are {', '.join(_MODES)} with {', '.join(_RESAMPLING)}"
            )
        fill = int(config.get("fill_color") or 0)
        mean, std = _per_channel(config["mean"]), _per_channel(config["std"])
        return cls((width, height), mode, interpolation, fill, mean, std)

    @property
    def id(self) -> str:
        """As in `squash128-bilinear-draft2-n3f0a12`; the end names mean, std and fill."""
        width, height = self.size
        side = str(width) if width == height else f"{width}x{height}"
        numbers = repr((self.mean, self.std, self.fill)).encode()
        resize = f"{self.mode}{side}-{self.interpolation}-draft{DRAFT}"
        return f"{resize}-n{sha256(numbers).hexdigest()[:6]}"

    def fit(self, picture: Picture) -> Pixels:
        """(height, width, 3) uint8. Raises BadContent, ContentTooLarge."""
        whole = self._whole(picture.size)
        seen = (min(whole[0], self.size[0]), min(whole[1], self.size[1]))
        image = picture.rgb(at_least=(DRAFT * whole[0], DRAFT * whole[1]))
        resample = _RESAMPLING[self.interpolation]
        fitted = image.resize(seen, resample, box=_centre(image.size, whole, seen))
        return np.asarray(fitted if seen == self.size else self._padded(fitted))

    def _whole(self, size: Size) -> Size:
        """What the whole picture is resized to, before what sticks out is cropped."""
        if self.mode == "squash":
            return self.size
        ratios = (size[0] / self.size[0], size[1] / self.size[1])
        if self.mode == "longest" or self.size[0] != self.size[1]:
            ratio = max(ratios) if self.mode == "longest" else min(ratios)
            return max(round(size[0] / ratio), 1), max(round(size[1] / ratio), 1)
        # torchvision cuts the longer side off where open_clip's own resize rounds.
        side, short = self.size[0], min(size)
        return side * size[0] // short, side * size[1] // short

    def _padded(self, image: Image.Image) -> Image.Image:
        canvas = Image.new("RGB", self.size, (self.fill,) * 3)
        left, top = ((a - b) // 2 for a, b in zip(self.size, image.size, strict=True))
        canvas.paste(image, (left, top))
        return canvas


def _centre(stored: Size, whole: Size, seen: Size) -> tuple[float, float, float, float]:
    """The part of an image of size `stored` that is seen, if `stored` is resized to `whole`."""
    (left, right), (top, bottom) = (
        _span(*sides) for sides in zip(stored, whole, seen, strict=True)
    )
    return left, top, right, bottom


def _span(stored: int, whole: int, seen: int) -> tuple[float, float]:
    begin = round((whole - seen) / 2)
    return begin * stored / whole, (begin + seen) * stored / whole


def _per_channel(value: float | list[float]) -> tuple[float, ...]:
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)

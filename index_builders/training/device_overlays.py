"""What is laid over and put around the pictures of a batch: layers that Pillow drew once, at the
start, moved and turned anew for each view.

A layer is read off what an effect of `overlays` makes of a picture and of its negative: the less
they differ, the more it covers, and what they have in common is its own colour. The picture's
colours are its coordinates, which tells where in a frame it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from index_builders.training import overlays, shares
from index_builders.training.device_draws import Dice
from index_builders.training.overlays import Effect
from index_builders.training.views import FRAMES, LAID_OVER

VARIANTS = 128
"""Layers of each effect, of which there are eight; they take seconds to draw."""

_SEED = 4
_ASPECT_LOG_MAX = 0.4
"""Layers are drawn for pictures half as wide again as high at most, or the other way around, and
squashed as pictures are."""


@dataclass(frozen=True)
class Atlas:
    """`layers` (k, 4, side, side) uint8 on the device: colour times cover, and cover.

    `first` says where the layers of an effect begin; there are `variants` of each. `middles` (k, 2)
    are the middles of what is drawn, x and y from -1 to 1; `boxes` (k, 4) the pixels in which the
    picture lies, left, top, right, bottom: of a layer that is laid over, all of them.
    """

    layers: torch.Tensor
    first: Mapping[Effect, int]
    variants: int
    middles: torch.Tensor
    boxes: torch.Tensor

    @classmethod
    def drawn(cls, seed: int, side_px: int, device: str, variants: int) -> Atlas:
        """With `variants` of each effect, on any machine with the same Pillow the same."""
        over = list(dict.fromkeys(LAID_OVER))
        around = [*dict.fromkeys(FRAMES), overlays.screenshot]
        layers, middles, boxes = [], [], []
        for number, effect in enumerate([*over, *around]):
            for variant in range(variants):
                layer, box = _drawn(effect, (seed, _SEED, number, variant), side_px)
                layers.append(layer)
                middles.append(_middle(layer[3]))
                boxes.append(box)
        first = {effect: n * variants for n, effect in enumerate([*over, *around])}
        pixels = torch.from_numpy(np.stack(layers)).to(device)
        return cls(pixels, first, variants, torch.tensor(middles), torch.tensor(boxes))

    def numbers(self, effects: Sequence[Effect], dice: Dice, kinds: torch.Tensor) -> torch.Tensor:
        """(n,): a layer of each of effects[kinds], by chance."""
        firsts = torch.tensor([self.first[effect] for effect in effects])
        return firsts[kinds] + dice.integers(0, self.variants)


Box = tuple[float, float, float, float]


def _drawn(effect: Effect, by: Sequence[int], side_px: int) -> tuple[np.ndarray, Box]:
    """A layer (4, side, side) uint8 and its box. What is drawn depends on the seed `by` and on the
    size of the picture, not on what is in it."""
    width, height = _size(np.random.default_rng(by))
    ground = np.zeros((height, width, 3), np.uint8)
    ground[:, :, 0], ground[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    one, other = (_made(effect, by, shown) for shown in (ground, ~ground))
    left, top = _corner(np.asarray(one, np.int64), np.asarray(other, np.int64))
    across, down = side_px / one.width, side_px / one.height
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return _layer(one, other, side_px), box


def _size(rng: np.random.Generator) -> tuple[int, int]:
    aspect = float(np.exp(rng.uniform(-_ASPECT_LOG_MAX, _ASPECT_LOG_MAX)))
    width, height = min(aspect, 1.0), min(1 / aspect, 1.0)
    return round(shares.WORKING_PX * width), round(shares.WORKING_PX * height)


def _made(effect: Effect, by: Sequence[int], ground: np.ndarray) -> Image.Image:
    return effect(Image.fromarray(ground), np.random.default_rng([*by, 1]))


def _corner(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Where the picture begins: told by the first pixel of it that nothing covers."""
    bare = (other - one)[:, :, 2] == 255
    if not bare.any():
        return 0, 0
    y, x = np.unravel_index(bare.argmax(), bare.shape)
    return int(x - one[y, x, 0]), int(y - one[y, x, 1])


def _layer(one: Image.Image, other: Image.Image, side_px: int) -> np.ndarray:
    """Each is the layer and what comes through of its ground; the two grounds make up white."""
    square, smooth = (side_px, side_px), Image.Resampling.BILINEAR
    first, second = (np.asarray(i.resize(square, smooth), np.int64) for i in (one, other))
    through = (second - first)[:, :, 2:].clip(0, 255)
    own = ((first + second - through) // 2).clip(0, 255 - through)
    return np.concatenate([own, 255 - through], 2).transpose(2, 0, 1).astype(np.uint8)


def _middle(cover: np.ndarray) -> tuple[float, float]:
    """Of the least rectangle around what is drawn."""
    rows, columns = (np.flatnonzero(cover.any(axis)) for axis in (1, 0))
    if len(rows) == 0:
        return 0.0, 0.0
    x, y = ((at[0] + at[-1] + 1) / len(cover) - 1 for at in (columns, rows))
    return float(x), float(y)


# ---------------------------------------------------------------- laid over


@dataclass(frozen=True)
class Reach:
    """How far a layer may be changed: by a factor, a shift (1 is half a picture), degrees."""

    scale: tuple[float, float]
    shift: float
    degrees: float
    mirrored: bool = False
    recoloured: bool = True


REACH: Mapping[Effect, Reach] = {
    overlays.text: Reach((0.75, 1.35), 0.3, 8),
    overlays.faces: Reach((0.7, 1.4), 0.4, 25, mirrored=True, recoloured=False),
    overlays.shapes: Reach((0.7, 1.4), 0.4, 25, mirrored=True),
    overlays.watermark: Reach((1.0, 1.5), 0.0, 0),
}
"""A layer that is made larger may be shifted as much further as it is larger."""

_MIDDLE_MAX = 0.9


@dataclass(frozen=True)
class Layers:
    """One thing laid over each of the `chosen` (n,): `kinds` (n,) count as LAID_OVER does,
    `numbers` (n,) are layers of the atlas, `channels` (n, 3) their colours' order, and `back`
    (n, 2, 3) takes a place in the picture to the place in the layer that is seen there."""

    chosen: torch.Tensor
    kinds: torch.Tensor
    numbers: torch.Tensor
    channels: torch.Tensor
    back: torch.Tensor

    @classmethod
    def drawn(cls, dice: Dice, atlas: Atlas) -> list[Layers]:
        """The first and the second thing laid over, of two entries of LAID_OVER."""
        count = dice.which(shares.LAID_OVER[:-1])
        kinds = [dice.integers(0, len(LAID_OVER))]
        kinds.append((kinds[0] + 1 + dice.integers(0, len(LAID_OVER) - 1)) % len(LAID_OVER))
        return [cls._drawn(dice, atlas, count > n, each) for n, each in enumerate(kinds)]

    @classmethod
    def _drawn(cls, dice: Dice, atlas: Atlas, chosen: torch.Tensor, kinds: torch.Tensor) -> Layers:
        numbers = atlas.numbers(LAID_OVER, dice, kinds)
        reaches = [REACH[effect] for effect in LAID_OVER]
        recoloured = torch.tensor([reach.recoloured for reach in reaches])[kinds]
        turned = torch.where(recoloured, dice.integers(0, 3), 0)[:, None]
        back = _back(dice, reaches, kinds, atlas.middles[numbers])
        return cls(chosen, kinds, numbers, (torch.arange(3) + turned) % 3, back)


def _back(
    dice: Dice, reaches: Sequence[Reach], kinds: torch.Tensor, middles: torch.Tensor
) -> torch.Tensor:
    """Scaled, turned, mirrored and shifted, so that the middle of what is drawn is in sight."""
    low, high, shift, most, mirrored = torch.tensor(
        [(*reach.scale, reach.shift, reach.degrees, reach.mirrored) for reach in reaches]
    )[kinds].unbind(1)
    scale, degrees = dice.uniform(low, high), dice.uniform(-most, most)
    sign = torch.where(dice.chance(shares.FLIPPED) & (mirrored > 0), -1.0, 1.0)
    cos, sin = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    there = torch.stack([cos * sign, -sin, sin * sign, cos], 1).view(-1, 2, 2)
    there = there * scale[:, None, None]
    most = shift + (scale - 1).clamp_min(0)
    moved = torch.stack([dice.uniform(-most, most) for _ in range(2)], 1)[:, :, None]
    middle = there @ middles[:, :, None]
    inside = (middle + moved).clamp(-_MIDDLE_MAX, _MIDDLE_MAX) - middle
    moved = torch.where(shift[:, None, None] > 0, inside, moved)
    inverse = torch.linalg.inv(there)
    return torch.cat([inverse, -inverse @ moved], 2)


def laid_over(
    pictures: torch.Tensor, layers: torch.Tensor, channels: torch.Tensor, back: torch.Tensor
) -> torch.Tensor:
    """`layers` (n, 4, side, side), colour times cover and cover, on pictures (n, 3, side, side)."""
    grid = functional.affine_grid(back, list(layers.shape), align_corners=False)
    seen = functional.grid_sample(layers.float(), grid, align_corners=False)
    order = channels[:, :, None, None].expand(-1, -1, *seen.shape[2:])
    return seen[:, :3].gather(1, order) + pictures * (1 - seen[:, 3:] / 255)

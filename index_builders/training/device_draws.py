"""What is drawn by chance for the views of a step: on the CPU, so that it is the same on every
device, in tensors with a row for each view.

The numbers are those of `shares`; the rules are those of `views`, for many views at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from index_builders.training import shares
from index_builders.training.device_geometry import CUBIC, TRIANGLE

_TURNS = 4


class Dice:
    """Random numbers, a row of them for each of `count` views; a function of `seed` alone."""

    def __init__(self, seed: Sequence[int], count: int) -> None:
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        self._generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        self.count = count

    def uniform(self, low: float | torch.Tensor, high: float | torch.Tensor) -> torch.Tensor:
        """(count,) float32."""
        return torch.rand(self.count, generator=self._generator) * (high - low) + low

    def chance(self, share: float) -> torch.Tensor:
        """(count,) bool."""
        return self.uniform(0.0, 1.0) < share

    def integers(self, low: int | torch.Tensor, high: int | torch.Tensor) -> torch.Tensor:
        """(count,) int64, `high` not among them."""
        return (self.uniform(0.0, 1.0).double() * (high - low)).long() + low

    def which(self, often: Sequence[float]) -> torch.Tensor:
        """(count,) int64: the alternatives; len(often) is none of them."""
        ends = torch.tensor(np.cumsum(often), dtype=torch.float32)
        return torch.bucketize(self.uniform(0.0, 1.0), ends, right=True)

    def colours(self) -> torch.Tensor:
        """(count, 3) float32: white, black or any."""
        kind = self.which((shares.WHITE, shares.BLACK))[:, None]
        channels = [self.integers(0, 256).float() for _ in range(3)]
        plain = torch.where(kind == 0, 255.0, 0.0).expand(self.count, 3)
        return torch.where(kind < 2, plain, torch.stack(channels, 1))

    def noise(self, *shape: int) -> torch.Tensor:
        """Normal, float32."""
        return torch.randn(shape, generator=self._generator)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """From the CPU to the device, which nobody waits for."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


Effect = Callable[..., torch.Tensor]


def applied(
    effect: Effect, pictures: torch.Tensor, chosen: torch.Tensor, *told: torch.Tensor
) -> torch.Tensor:
    """`pictures`, the `chosen` (n,) of them changed by the effect, which is also given their rows
    of `told`. Both are on the CPU, so that nothing waits to learn how many are chosen."""
    numbers = chosen.nonzero().squeeze(1)
    if len(numbers) == 0:
        return pictures
    at = sent(numbers, pictures.device)
    rows = (sent(each[numbers], pictures.device) for each in told)
    pictures[at] = effect(pictures[at], *rows)
    return pictures


# ---------------------------------------------------------------- moved


@dataclass(frozen=True)
class Crops:
    """`boxes` are left, top, right, bottom (n, 4) in whole pixels, left beyond right where
    mirrored; `sizes` (n, 2) are width and height of what is in them; `filters` (n,)."""

    boxes: torch.Tensor
    sizes: torch.Tensor
    filters: torch.Tensor

    @classmethod
    def drawn(cls, dice: Dice, sizes: torch.Tensor, area_min: float | torch.Tensor) -> Crops:
        """Of pictures of `sizes` (n, 2); all of the picture where area_min is 1."""
        area = dice.uniform(area_min, 1.0)
        ratio = dice.uniform(-shares.RATIO_LOG_MAX, shares.RATIO_LOG_MAX).exp()
        ratio = torch.where(area < 1.0, ratio, 1.0)
        wished = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1) * sizes
        cut = torch.minimum(wished.round().clamp_min(1), sizes)
        x, y = (dice.integers(0, room + 1) for room in (sizes - cut).long().unbind(1))
        ends = torch.stack([x, y, x + cut[:, 0], y + cut[:, 1]], 1).float()
        mirrored = ends[:, [2, 1, 0, 3]]
        boxes = torch.where(dice.chance(shares.FLIPPED)[:, None], mirrored, ends)
        return cls(boxes, cut, torch.where(dice.chance(shares.BICUBIC), CUBIC, TRIANGLE))


@dataclass(frozen=True)
class Rotations:
    """Turns by `degrees` (n,) of the `chosen` (n,), pictures of true `sizes` (n, 2) seen through
    `frames` (n, 2), with corners of colour `fill` (n, 3)."""

    chosen: torch.Tensor
    degrees: torch.Tensor
    sizes: torch.Tensor
    frames: torch.Tensor
    fill: torch.Tensor

    @classmethod
    def drawn(cls, dice: Dice, sizes: torch.Tensor, share: float, degrees_max: float) -> Rotations:
        """The frame holds all of the turned picture, or is the picture's, or zooms in."""
        chosen, degrees = dice.chance(share), dice.uniform(-degrees_max, degrees_max)
        whole, left = dice.chance(shares.ROTATED_WHOLE), dice.chance(shares.CORNERS_LEFT)
        sin, cos = torch.deg2rad(degrees).sin().abs(), torch.deg2rad(degrees).cos()
        cut = (sin / (1 + sin)).clamp_max(shares.ZOOM_MAX) * shares.ZOOM_SHARE
        zoomed = sizes * (1 - 2 * torch.where(left, 0.0, cut))[:, None]
        held = sizes * cos[:, None] + sizes.flip(1) * sin[:, None]
        frames = torch.where(whole[:, None], held, zoomed)
        frames = torch.where(chosen[:, None], frames, sizes)
        return cls(chosen, degrees, sizes, frames, dice.colours())

    @classmethod
    def late(cls, dice: Dice, sizes: torch.Tensor) -> Rotations:
        """Of the whole scene."""
        return cls.drawn(dice, sizes, shares.ROTATED_LATE, shares.ROTATED_LATE_DEGREES)


# ---------------------------------------------------------------- spoiled


@dataclass(frozen=True)
class Retouches:
    """`factors` (n, 3) of brightness, contrast and saturation, `gammas` (n, 3) of the channels, of
    the `chosen` (n,)."""

    chosen: torch.Tensor
    factors: torch.Tensor
    gammas: torch.Tensor

    @classmethod
    def drawn(cls, dice: Dice, share: float, strength: float) -> Retouches:
        def bent(often: float) -> torch.Tensor:
            factor = dice.uniform(-strength, strength).exp()
            return torch.where(dice.chance(often), factor, 1.0)

        chosen, tinted = dice.chance(share), dice.chance(shares.TINTED)[:, None]
        factors = torch.stack([bent(shares.EACH_ENHANCED) for _ in range(3)], 1)
        gammas = torch.stack([bent(1.0) for _ in range(3)], 1)
        return cls(chosen, factors, torch.where(tinted, gammas, 1.0))


@dataclass(frozen=True)
class Recompressions:
    """JPEG `quality` (n,) of the `chosen` (n,)."""

    chosen: torch.Tensor
    quality: torch.Tensor

    @classmethod
    def drawn(cls, dice: Dice, share: float, quality: tuple[int, int]) -> Recompressions:
        return cls(dice.chance(share), dice.integers(*quality))


@dataclass(frozen=True)
class LightDraws:
    crops: Crops
    retouches: Retouches
    recompressions: Recompressions

    @classmethod
    def drawn(cls, dice: Dice, sizes: torch.Tensor) -> LightDraws:
        """For photographs of `sizes` (n, 2), width and height in pixels."""
        return cls(
            Crops.drawn(dice, sizes, shares.LIGHT_AREA_MIN),
            Retouches.drawn(dice, shares.LIGHT_RETOUCHED, shares.LIGHT_STRENGTH),
            Recompressions.drawn(dice, shares.LIGHT_RECOMPRESSED, shares.LIGHT_QUALITY),
        )


@dataclass(frozen=True)
class HeavyDraws:
    """All of a heavy view but what is laid over it and put around it.

    `turns` (n,) are quarters of a turn against the clock. `sizes` (n, 2) are the true width and
    height while it is made, in pixels. `spoiled` (n,) counts as shares.SPOILED does; `sigmas` and
    `lattices` (n, 2) are across and down, of the squashed picture and of the small one.
    """

    crops: Crops
    turns: torch.Tensor
    rotations: Rotations
    sizes: torch.Tensor
    retouches: Retouches
    grey: torch.Tensor
    spoiled: torch.Tensor
    sigmas: torch.Tensor
    lattices: torch.Tensor
    nearest: torch.Tensor
    noisy: torch.Tensor
    noise_sigma: torch.Tensor
    recompressions: Recompressions

    @classmethod
    def drawn(cls, dice: Dice, photo_sizes: torch.Tensor, side_px: int) -> HeavyDraws:
        hard = torch.where(dice.chance(shares.CROPPED_HARD), shares.AREA_MIN_HARD, shares.AREA_MIN)
        area_min = torch.where(dice.chance(shares.CROPPED), hard, 1.0)
        crops = Crops.drawn(dice, photo_sizes, area_min)
        quarter = dice.chance(shares.QUARTER_TURNED)
        turns = torch.where(quarter, dice.integers(1, _TURNS), 0)
        sizes = torch.where((turns % 2 == 1)[:, None], crops.sizes.flip(1), crops.sizes)
        rotations = Rotations.drawn(dice, sizes, shares.ROTATED, shares.ROTATED_DEGREES)
        longest = rotations.frames.amax(1, keepdim=True)
        sizes = rotations.frames * (shares.WORKING_PX / longest).clamp_max(1.0)
        sigma, scale = dice.uniform(*shares.BLUR_SIGMA_PX), dice.uniform(*shares.DOWNSCALE)
        return cls(
            crops,
            turns,
            rotations,
            sizes,
            Retouches.drawn(dice, shares.RETOUCHED, shares.STRENGTH),
            dice.chance(shares.GREY),
            dice.which(shares.SPOILED),
            sigma[:, None] * side_px / sizes,
            (sizes * scale[:, None]).floor().clamp(shares.DOWNSCALED_PX_MIN),
            dice.chance(shares.NEAREST),
            dice.chance(shares.NOISY),
            dice.uniform(*shares.NOISE_SIGMA),
            Recompressions.drawn(dice, shares.RECOMPRESSED, shares.QUALITY),
        )

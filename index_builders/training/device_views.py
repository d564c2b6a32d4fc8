"""The two views of each photograph of a step, made on the device that trains: the family of views
that `views` makes with Pillow, as operations on whole batches.

What is drawn by chance is drawn on the CPU from the seed and the step, so it is the same on every
device and a run that was killed goes on with the views it would have seen. Unverified on a GPU: all
that is known of it was seen on CPUs, where it is slower than Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch

from index_builders.training import shares
from index_builders.training.batches import Batches, Views
from index_builders.training.device_draws import (
    Crops,
    Dice,
    HeavyDraws,
    LightDraws,
    Recompressions,
    Retouches,
    Rotations,
    applied,
    sent,
)
from index_builders.training.device_geometry import (
    NEAREST,
    TRIANGLE,
    blurred,
    lowered,
    quarter_turned,
    rotated,
    squashed,
)
from index_builders.training.device_jpeg import recompressed
from index_builders.training.device_overlays import VARIANTS, Atlas, Layers, laid_over
from index_builders.training.device_photos import DevicePhotos, room_bytes
from index_builders.training.device_scenes import Scenes, surrounded
from index_builders.training.device_tone import greyed, noised, retouched, sharpened

CHUNK = 128
"""Pairs made at once: memory does not grow with the step, and views do not change with a device."""

_SEED = 3
_BLURRED, _DOWNSCALED, _SHARPENED = range(len(shares.SPOILED))


@dataclass(frozen=True)
class DeviceViews:
    """Makes views (side_px, side_px) of `photos`, with what the atlas holds over and around."""

    photos: DevicePhotos
    atlas: Atlas
    side_px: int
    seed: int

    def of(self, step: int, numbers: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """(2n, side, side, 3) uint8 on the device, light views first, of the photographs `numbers`
        (n,), with `others` beside: a function of these and the seed."""
        made = [
            self._pairs(Dice((self.seed, _SEED, step, chunk), len(some)), some, others)
            for chunk, some in enumerate(torch.split(numbers, CHUNK))
        ]
        views = torch.cat([light for light, _ in made] + [heavy for _, heavy in made])
        return views.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _pairs(
        self, dice: Dice, numbers: torch.Tensor, others: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        photos, _ = self.photos.take(numbers)
        sizes = self.photos.sizes[numbers]
        light = self._light(photos, LightDraws.drawn(dice, sizes))
        return light, self._heavy(photos, sizes, others, dice)

    def _light(self, photos: torch.Tensor, drawn: LightDraws) -> torch.Tensor:
        views = self._cropped(photos, drawn.crops)
        _retouch(views, drawn.retouches)
        return _recompress(views, drawn.recompressions)

    def _heavy(
        self, photos: torch.Tensor, sizes: torch.Tensor, others: torch.Tensor, dice: Dice
    ) -> torch.Tensor:
        drawn = HeavyDraws.drawn(dice, sizes, self.side_px)
        views = self._cropped(photos, drawn.crops)
        for turns in (1, 2, 3):
            applied(partial(quarter_turned, turns=turns), views, drawn.turns == turns)
        _rotate(views, drawn.rotations)
        _spoil(views, drawn)
        for layers in Layers.drawn(dice, self.atlas):
            self._lay_over(views, layers)
        scenes = Scenes.drawn(dice, self.atlas, others, self.side_px)
        surrounded(views, scenes, self.atlas, self.photos.take)
        _rotate(views, Rotations.late(dice, scenes.sizes(drawn.sizes, self.side_px)))
        applied(partial(noised, dice), views, drawn.noisy, drawn.noise_sigma)
        return _recompress(views, drawn.recompressions)

    def _cropped(self, photos: torch.Tensor, crops: Crops) -> torch.Tensor:
        boxes, filters = (sent(t, photos.device) for t in (crops.boxes, crops.filters))
        return squashed(photos, boxes, self.side_px, filters).clamp_(0, 255)

    def _lay_over(self, views: torch.Tensor, layers: Layers) -> None:
        def laid(
            shown: torch.Tensor, numbers: torch.Tensor, channels: torch.Tensor, back: torch.Tensor
        ) -> torch.Tensor:
            return laid_over(shown, self.atlas.layers[numbers], channels, back)

        applied(laid, views, layers.chosen, layers.numbers, layers.channels, layers.back)


def _rotate(views: torch.Tensor, drawn: Rotations) -> None:
    told = (drawn.degrees, drawn.sizes, drawn.frames, drawn.fill)
    applied(rotated, views, drawn.chosen, *told)


def _retouch(views: torch.Tensor, drawn: Retouches) -> None:
    applied(retouched, views, drawn.chosen, drawn.factors, drawn.gammas)


def _spoil(views: torch.Tensor, drawn: HeavyDraws) -> None:
    _retouch(views, drawn.retouches)
    applied(greyed, views, drawn.grey)
    applied(blurred, views, drawn.spoiled == _BLURRED, drawn.sigmas)
    filters = torch.where(drawn.nearest, NEAREST, TRIANGLE)
    applied(lowered, views, drawn.spoiled == _DOWNSCALED, drawn.lattices, filters)
    applied(sharpened, views, drawn.spoiled == _SHARPENED)


def _recompress(views: torch.Tensor, drawn: Recompressions) -> torch.Tensor:
    return applied(recompressed, views, drawn.chosen, drawn.quality)


# ---------------------------------------------------------------- steps


@dataclass(frozen=True)
class DeviceBatches(Batches):
    """Like Batches, with the same photographs in each step, and views made on `device`."""

    device: str = "cpu"

    def ahead(self, first_step: int, threads: int) -> Iterator[Views]:
        """From `first_step` on, for ever, on the device.

        On CUDA a step's views are made on a stream of their own while the step before is learnt
        from; on the CPU in line. The atlas is drawn first, which takes seconds.
        """
        photos = DevicePhotos(self.photos, self.device, room_bytes(self.device))
        atlas = Atlas.drawn(self.seed, self.side_px, self.device, VARIANTS)
        views = DeviceViews(photos, atlas, self.side_px, self.seed)

        def made(step: int) -> torch.Tensor:
            return views.of(step, *self._shown(step))

        if torch.device(self.device).type == "cuda":
            return _beside(made, first_step, self.device)
        return (made(step) for step in count(first_step))

    def _shown(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The photographs of a step, and those that may be shown beside them: none of its own,
        which would be told apart from itself."""
        numbers = np.array(self.numbers(step))
        others = np.setdiff1d(self.there(step), numbers)
        return torch.from_numpy(numbers), torch.from_numpy(others if len(others) else numbers)


def _beside(made: Callable[[int], torch.Tensor], first_step: int, device: str) -> Iterator[Views]:
    """One step ahead, on another stream, which begins when the photographs have arrived."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))

    def begun(step: int) -> tuple[torch.Tensor, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return made(step), stream.record_event()

    waiting = begun(first_step)
    for step in count(first_step + 1):
        views, ready = waiting
        waiting = begun(step)
        learning = torch.cuda.current_stream(device)
        learning.wait_event(ready)
        views.record_stream(learning)
        yield views

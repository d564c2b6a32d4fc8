"""The suite of attacks on pictures, by name and kind; none is an augmentation of a training
program, and each is the same for the same seed, whatever else is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np

from benchmarks.attacks import geometry, overlays, scenes, tones
from benchmarks.attacks.picture_tools import Picture, Rng, to_file
from benchmarks.attacks.scenes import Props

TONE, GEOMETRY, OVERLAY, SCENE, CHAIN = "tone", "geometry", "overlay", "scene", "chain"
KINDS: Final = (TONE, GEOMETRY, OVERLAY, SCENE, CHAIN)

QUALITY: Final = 88
"""Of the JPEG file in which every attacked picture is sent."""


@dataclass(frozen=True)
class Attack:
    """`make` may draw from `Rng` and must not change the picture."""

    name: str
    kind: str
    make: Callable[[Picture, Rng, Props], Picture]

    def file(self, picture: Picture, number: int, *, seed: int, props: Props) -> bytes:
        """The JPEG that is sent; `number` tells pictures of one run apart."""
        return to_file(self.make(picture, self.rng(number, seed), props), quality=QUALITY)

    def rng(self, number: int, seed: int) -> Rng:
        digest = sha256(f"{self.name} {number} {seed}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _alone(kind: str, made: Sequence[Callable[[Picture, Rng], Picture]]) -> list[Attack]:
    """Attacks that need no other photograph."""

    def attack(make: Callable[[Picture, Rng], Picture]) -> Attack:
        return Attack(make.__name__, kind, lambda picture, rng, _: make(picture, rng))

    return [attack(make) for make in made]


def _with_props(
    kind: str, made: Sequence[Callable[[Picture, Rng, Props], Picture]]
) -> list[Attack]:
    return [Attack(make.__name__, kind, make) for make in made]


ATTACKS: Final = (
    *_alone(
        TONE,
        [
            tones.half_size,
            tones.thumbnail,
            tones.jpeg_30,
            tones.jpeg_10,
            tones.webp_15,
            tones.gif_24,
            tones.grey,
            tones.sepia,
            tones.tint,
            tones.bright,
            tones.dark,
            tones.flat,
            tones.negative,
            tones.noise,
            tones.blur,
        ],
    ),
    *_alone(
        GEOMETRY,
        [
            geometry.crop_10,
            geometry.crop_30,
            geometry.crop_30_corner,
            geometry.square,
            geometry.flip,
            geometry.rotate_5,
            geometry.rotate_5_cropped,
            geometry.rotate_15,
            geometry.rotate_90,
            geometry.squeeze,
            geometry.shear,
            geometry.perspective,
            geometry.border,
            geometry.letterbox,
        ],
    ),
    *_alone(
        OVERLAY,
        [
            overlays.text,
            overlays.text_block,
            overlays.emoji,
            overlays.sticker,
            overlays.logo,
            overlays.watermark,
            overlays.meme,
        ],
    ),
    *_with_props(
        SCENE,
        [
            scenes.screenshot,
            scenes.collage,
            scenes.side_by_side,
            scenes.picture_in_picture,
            scenes.inset,
        ],
    ),
    *_with_props(
        CHAIN,
        [
            scenes.photographed,
            scenes.reposted,
            scenes.mirrored_sticker,
            scenes.meme_screenshot,
            scenes.worn,
        ],
    ),
)

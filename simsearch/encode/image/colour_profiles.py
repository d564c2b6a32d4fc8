"""Colour profiles (ICC): the colours of a picture as its profile means them, in sRGB.

A picture can be hidden from whoever ignores its profile; viewers apply it.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from io import BytesIO
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageCms

NEAR_LEVELS: Final = 3
"""A profile by which no colour changes by more, of 255, is sRGB's own or as good."""

_LATTICE: Final = 6
"""Colours a channel at which a profile is compared with sRGB."""

_TRANSFORMS_KEPT: Final = 16
"""Each holds its profile, a megabyte at most."""

_NO_CACHE: Final = ImageCms.Flags.NOCACHE
"""Or two threads could not use one transform."""


class ProfileFault(Enum):
    """Why a profile is not applied."""

    SRGB = "it would change nothing"
    BROKEN = "its colour profile is broken and was ignored"


Transform: TypeAlias = ImageCms.ImageCmsTransform


def in_srgb(image: Image.Image, profile: bytes) -> Image.Image | ProfileFault:
    """RGB of an image in L, RGB or CMYK, as its profile means it. A profile of another kind of
    colours is broken here: viewers ignore it."""
    transform = _transform(profile, image.mode)
    if isinstance(transform, ProfileFault):
        return transform
    shown = ImageCms.applyTransform(image, transform)
    assert shown is not None
    return shown


@lru_cache(maxsize=_TRANSFORMS_KEPT)
def _transform(profile: bytes, mode: str) -> Transform | ProfileFault:
    try:
        made = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            _NO_CACHE,
        )
        return ProfileFault.SRGB if _is_srgb(made, mode) else made
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return ProfileFault.BROKEN


def _is_srgb(transform: Transform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    if mode == "L":
        colours = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    else:
        levels = np.linspace(0, 255, _LATTICE).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
        colours = Image.fromarray(cube.reshape(_LATTICE, -1, 3))
    before = np.asarray(colours.convert("RGB")).astype(np.int16)
    after = ImageCms.applyTransform(colours, transform)
    return bool(np.abs(np.asarray(after).astype(np.int16) - before).max() <= NEAR_LEVELS)

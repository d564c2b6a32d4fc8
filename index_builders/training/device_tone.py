"""How pixels of a batch look: brightness, contrast, saturation, tint, grey, sharpness, noise.

Pictures are (n, 3, height, width) float32 from 0 to 255, and are so again behind every step, which
cuts off as Pillow does; only Pillow's rounding in between is left out.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from index_builders.training.device_draws import Dice, sent

_GREY = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow makes grey."""


def retouched(pictures: torch.Tensor, factors: torch.Tensor, gammas: torch.Tensor) -> torch.Tensor:
    """By `factors` (n, 3) of brightness, contrast and saturation, then each channel by its own of
    `gammas` (n, 3). 1 leaves as it is."""
    light, contrast, colour = (factor[:, None, None, None] for factor in factors.unbind(1))
    pictures = (pictures * light).clamp(0, 255)
    mean = grey(pictures).mean((1, 2, 3), keepdim=True).round()
    pictures = (mean + (pictures - mean) * contrast).clamp(0, 255)
    plain = grey(pictures)
    pictures = (plain + (pictures - plain) * colour).clamp(0, 255)
    return 255 * (pictures / 255) ** gammas[:, :, None, None]


def grey(pictures: torch.Tensor) -> torch.Tensor:
    """(n, 1, height, width)."""
    red, green, blue = torch.split(pictures, 1, 1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def greyed(pictures: torch.Tensor) -> torch.Tensor:
    return grey(pictures).expand_as(pictures)


def sharpened(pictures: torch.Tensor) -> torch.Tensor:
    """Pillow's SHARPEN: 2 of a pixel, less an eighth of each neighbour."""
    edged = functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
    around = functional.avg_pool2d(edged, 3, 1)
    return (2.125 * pictures - 1.125 * around).clamp(0, 255)


def noised(dice: Dice, pictures: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """With normal noise of `sigmas` (n,), drawn on the CPU as everything is."""
    noise = sent(dice.noise(*pictures.shape), pictures.device)
    return (pictures + noise * sigmas[:, None, None, None]).clamp(0, 255)

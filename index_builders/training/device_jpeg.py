"""JPEG and back, for a batch: what is lost is what libjpeg loses.

Luma and halved chroma in blocks of 8 × 8, the cosine transform, quantisation by the standard's
example tables (ITU-T T.81, annex K.1) scaled by quality as libjpeg does, and the way back with
chroma blown up by triangles. No bits are coded: coding loses nothing.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional

_BLOCK = 8
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * _BLOCK,) * 4,
)
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def recompressed(pictures: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """(n, 3, height, width) from 0 to 255, each with its `quality` (n,) from 1 to 100."""
    height, width = pictures.shape[2:]
    over = (-width % (2 * _BLOCK), -height % (2 * _BLOCK))
    padded = functional.pad(pictures.round(), (0, over[0], 0, over[1]), mode="replicate")
    planes = _mixed(padded, _TO_YCBCR).round()
    luma, chroma = planes[:, :1] - 128, functional.avg_pool2d(planes[:, 1:], 2).round()
    luma = _quantised(luma, tables(quality, _LUMA))
    chroma = _quantised(chroma, tables(quality, _CHROMA))
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    out = _mixed(torch.cat([luma + 128, chroma.round()], 1), _TO_RGB)
    return out.round().clamp(0, 255)[:, :, :height, :width]


def _mixed(planes: torch.Tensor, by: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    """Each new plane is a weighted sum of the three."""
    return torch.einsum("ij,njhw->nihw", _constant(by, planes.device), planes)


def tables(quality: torch.Tensor, base: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """(n, 64): libjpeg's jpeg_quality_scaling, in whole numbers."""
    quality = quality.long()
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    flat = _constant(base, quality.device).flatten().long()
    return ((flat * scale[:, None] + 50) // 100).clamp(1, 255).float()


@lru_cache(maxsize=16)
def _constant(values: tuple[tuple[float, ...], ...], device: torch.device) -> torch.Tensor:
    """Sent once."""
    return torch.tensor(values, device=device)


def _quantised(planes: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """To cosine coefficients, to whole multiples of the table's, and back to whole numbers."""
    n, count, height, width = planes.shape
    split = planes.reshape(n, count, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    blocks = split.transpose(3, 4).reshape(n, -1, _BLOCK * _BLOCK)
    cosines = _cosines(planes.device)
    steps = by[:, None]
    coefficients = (blocks @ cosines.T / steps).round() * steps
    back = (coefficients @ cosines).round().clamp(-128, 127)
    shape = (n, count, height // _BLOCK, width // _BLOCK, _BLOCK, _BLOCK)
    return back.reshape(shape).transpose(3, 4).reshape(n, count, height, width)


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> torch.Tensor:
    """(64, 64), orthonormal: a block, row by row, to its coefficients (T.81, A.3.3)."""
    at = torch.arange(_BLOCK, dtype=torch.float64)
    one = torch.cos((2 * at[None, :] + 1) * at[:, None] * torch.pi / (2 * _BLOCK)) / 2
    one[0] /= 2**0.5
    return torch.kron(one, one).float().to(device)

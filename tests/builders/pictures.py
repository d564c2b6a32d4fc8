"""Pictures that Pillow and the training device both edit, and how far apart the results are."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

SIDE = 64
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def drawn(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Soft colours with a few hard edges."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    image = noise.resize((width, height), BICUBIC)
    image.paste((250, 240, 30), (width // 8, height // 3, width // 3, height // 2))
    image.paste((10, 20, 90), (width // 2, height // 8, width - width // 8, height // 4))
    return image


def batch_of(*images: Image.Image) -> torch.Tensor:
    """(n, 3, height, width)."""
    pixels = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous()


def distance(pictures: torch.Tensor, *images: Image.Image) -> np.ndarray:
    """How far apart, of 255, pixel by pixel."""
    distances: np.ndarray = (pictures - batch_of(*images)).abs().numpy()
    return distances

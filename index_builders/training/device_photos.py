"""The photographs of a run as one tensor of bytes: on the device if they fit, else read from their
file as they are needed.

A photograph is not squashed: it lies at the top left of a square as large as the longest side of
any, so that crops cut the pixels they cut elsewhere.
"""

from __future__ import annotations

import numpy as np
import torch

from index_builders.training.device_draws import sent
from index_builders.training.photos import Photos

MEMORY_SHARE = 0.4
"""Of the device's memory; photographs that need more stay in the file."""

_BLOCK = 512


class DevicePhotos:
    """`sizes` (n, 2) float32 on the CPU: width and height in pixels. `resident`: on the device."""

    def __init__(self, photos: Photos, device: str, room_bytes: int) -> None:
        self._photos = photos
        self._device = torch.device(device)
        sizes = [(photo.width, photo.height) for photo in photos.photos]
        self.sizes = torch.tensor(sizes, dtype=torch.float32)
        self.side_px = max(max(size) for size in sizes)
        self.resident = len(photos) * 3 * self.side_px**2 <= room_bytes
        self._pixels = self._uploaded() if self.resident else None

    def take(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 3, side, side) float32, and (n, 4), where in it each photograph lies."""
        if self._pixels is None:
            pixels = sent(self._read(numbers.tolist()), self._device)
        else:
            pixels = self._pixels[sent(numbers, self._device)]
        ends = torch.cat([torch.zeros(len(numbers), 2), self.sizes[numbers]], 1)
        planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return planes, sent(ends, self._device)

    def _uploaded(self) -> torch.Tensor:
        shape = (len(self._photos), self.side_px, self.side_px, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, device=self._device)
        for at in range(0, len(self._photos), _BLOCK):
            numbers = range(at, min(at + _BLOCK, len(self._photos)))
            pixels[at : at + _BLOCK] = self._read(numbers)
        return pixels

    def _read(self, numbers: list[int] | range) -> torch.Tensor:
        """(n, side, side, 3) uint8 on the CPU."""
        pixels = np.zeros((len(numbers), self.side_px, self.side_px, 3), np.uint8)
        for place, number in enumerate(numbers):
            photo = self._photos[number]
            height, width, _ = photo.shape
            pixels[place, :height, :width] = photo
        return torch.from_numpy(pixels)


def room_bytes(device: str) -> int:
    """What photographs may take of the device's memory; none on the CPU, where the mapped file
    is in memory already."""
    if not device.startswith("cuda"):
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory * MEMORY_SHARE)

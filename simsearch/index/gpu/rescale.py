"""Row rescaling on a torch device: the same result as train.fill computes on the CPU.

It is most of the cost of filling an index: six rounds of coding every row.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from simsearch.index.ivf import train
from simsearch.types import Vectors

SCORED_ROWS: Final = 8192
"""Rows compared with all codebooks at a time: half a gigabyte for 64 codes."""

COMPARED_ROWS: Final = 16_384
"""Rows compared with all centres at a time: 4 GiB for 65,536 lists."""


class RowRescaler:
    """Rescales rows for one trained index with codes of residuals: `centres` (nlist, dim) of its
    lists, `codebooks` (m, 256, dim / m). `device` is torch's name of a device."""

    def __init__(self, centres: Vectors, codebooks: Vectors, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._centres = torch.from_numpy(centres).to(self._device)
        self._codebooks = torch.from_numpy(np.ascontiguousarray(codebooks)).to(self._device)
        self._half_lengths = (self._codebooks**2).sum(2) / 2

    def rescaled(self, vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
        """The rescaled vectors, and a mask of the outliers."""
        import torch

        with torch.inference_mode():
            parts = [self._part(part) for part in np.array_split(vectors, self._parts(vectors))]
        scaled, outliers = zip(*parts, strict=True)
        return np.concatenate(scaled), np.concatenate(outliers)

    @staticmethod
    def _parts(vectors: Vectors) -> int:
        return max(1, -(-len(vectors) // COMPARED_ROWS))

    def _part(self, vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
        import torch

        own = torch.from_numpy(vectors).to(self._device)
        centres = self._centres[(own @ self._centres.T).argmax(1)]
        scales = torch.ones(len(own), 1, device=self._device)
        best, best_score = scales.clone(), torch.full_like(scales, -torch.inf)
        low, high = train.SCALE_BOUNDS
        for _ in range(train.RESCALE_ROUNDS):
            decoded = self._decoded(scales * own - centres)
            score = ((centres + decoded) * own).sum(1, keepdim=True)
            miss = (score - train.RESCALE_TARGET).abs()
            better = miss < (best_score - train.RESCALE_TARGET).abs()
            best, best_score = (
                torch.where(better, scales, best),
                torch.where(better, score, best_score),
            )
            rescaled = (scales * train.RESCALE_TARGET / score.clamp(min=0.1)).clamp(low, high)
            scales = torch.where(miss > train.RESCALE_TOLERANCE, rescaled, scales)
        is_outlier = best_score < train.RESCALE_TARGET - train.OUTLIER_SHORTFALL
        return cast(Vectors, (best * own).cpu().numpy()), is_outlier[:, 0].cpu().numpy()

    def _decoded(self, residuals: Any) -> Any:
        """The reconstruction of `residuals`: the nearest codeword of each piece."""
        import torch

        m, _, width = self._codebooks.shape
        parts = []
        for part in residuals.split(SCORED_ROWS):
            pieces = part.view(len(part), m, width).transpose(0, 1)
            nearer = pieces @ self._codebooks.transpose(1, 2) - self._half_lengths[:, None]
            word = nearer.argmax(2, keepdim=True).expand(-1, -1, width)
            parts.append(self._codebooks.gather(1, word).transpose(0, 1).reshape(len(part), -1))
        return torch.cat(parts)

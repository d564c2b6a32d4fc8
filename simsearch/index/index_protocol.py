"""Index protocols: threshold search by cosine and by Hamming distance, and its results.

Search *at a threshold* is the primitive. Each row carries the key of its entry and a small
integer group; a search gives one threshold per group, so that filtering by group and
thresholding are one operation, inside the scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import SpaceMismatch
from simsearch.types import Bits, Vectors

ROWS_MAX = 1024
"""Rows returned for one query at most; beyond it the closest are kept and `truncated` is set.
Chosen, not measured."""

COSINE_DECIMALS = 5
"""Exact cosines are rounded to this before they are compared or ordered."""


@dataclass(frozen=True)
class CosineMatches:
    """Rows at or above their group's cosine, ordered by query, then closest, then key, then row.

    All arrays but `truncated` have one element per match: `query` int64 (row in the queries),
    `row` int64 (position in this view, unique), `key` int64, `group` int64, `cosine` float64
    (exact, rounded to 1e-5). `truncated` is bool, one per query: there were more than ROWS_MAX.
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    key: NDArray[np.int64]
    group: NDArray[np.int64]
    cosine: NDArray[np.float64]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class HammingMatches:
    """As CosineMatches, with `hamming` int64: the distance in bits, at or below the group's."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    key: NDArray[np.int64]
    group: NDArray[np.int64]
    hamming: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class CosineView(Protocol):
    """An immutable set of unit vectors; safe to search from any number of threads."""

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        ...

    def __len__(self) -> int:
        """Rows that a search can return (retracted ones are not counted)."""
        ...

    def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
        """Every live row with cosine >= floors[its group]; groups without a floor are left out.

        `queries`: (n, dim) float32, unit. Raises SpaceMismatch where dim differs.
        """
        ...


class HammingView(Protocol):
    """An immutable set of rows of one width; safe to search from any number of threads."""

    @property
    def width(self) -> int:
        """Bytes of a row."""
        ...

    def __len__(self) -> int:
        """Rows that a search can return."""
        ...

    def search(self, queries: Bits, ceilings: Mapping[int, int]) -> HammingMatches:
        """Every live row within ceilings[its group] bits; groups without one are left out.

        `queries`: (n, width) uint8. Raises BadHash where the width differs.
        """
        ...


def require_dim(vectors: Vectors, dim: int) -> None:
    """Raises SpaceMismatch unless `vectors` are (n, dim)."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise SpaceMismatch(
            f"vectors have shape {vectors.shape}, the index holds (n, {dim}): "
            "encode with the model the index was built for"
        )

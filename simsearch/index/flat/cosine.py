"""Exact cosine index in memory: a matrix product finds candidates, exact re-ranking decides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadVector
from simsearch.index.flat.block_scan import CandidatePairs, scan_all
from simsearch.index.flat.row_blocks import FrozenRows
from simsearch.index.flat.row_log import Ints, RowLog
from simsearch.index.index_protocol import ROWS_MAX, CosineMatches, require_dim
from simsearch.index.ranking import Limits, cosine_matches
from simsearch.index.rescore import exact_pairs
from simsearch.types import Vectors

BLOCK_ROWS = 16_384
QUERIES_AT_ONCE = 64
"""With BLOCK_ROWS this bounds the score matrix of one step to 4 MiB. Both chosen, not measured."""

LENGTH_TOLERANCE = 1e-3
"""How far a stored vector's length may lie from 1; rounding to float16 moves it up to 5e-4."""

MARGIN = LENGTH_TOLERANCE + 1e-4
"""How far a score of the matrix product may lie from the exact cosine. It covers the length of the
row, which only exact re-ranking divides by, and more than float32 sums and rounding to 1e-5 add."""


class ExactIndex:
    """Appendable index. One thread appends, retires and freezes; any thread may search its views.

    Rows are rounded to float16, which is what a bank stores, and kept as float32: no CPU has a
    float16 GEMM, and widening the block at every search made it 2 to 6 times slower. So a row
    costs 4 * dim + 10 bytes, and a score is the same as from the bank's own float16.
    """

    def __init__(self, dim: int, *, block_rows: int = BLOCK_ROWS, rows_max: int = ROWS_MAX) -> None:
        self._dim = dim
        self._rows_max = rows_max
        self._log = RowLog((dim,), np.float32, block_rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, as allocated."""
        return self._log.nbytes

    def __len__(self) -> int:
        """All rows, retired ones too until they are compacted."""
        return len(self._log)

    def append(self, vectors: Vectors, keys: Ints, groups: Ints) -> None:
        """Add (n, dim) unit vectors, with one key and one group each.

        Raises SpaceMismatch where dim differs, BadVector where a length is not 1.
        """
        require_dim(vectors, self._dim)
        rows = vectors.astype(np.float16).astype(np.float32)
        _require_unit(rows)
        self._log.append(rows, keys, groups)

    def retire(self, keys: Ints, seqs: Ints) -> int:
        """End the rows of keys[i] at seqs[i]; returns how many ended (RowLog.retire)."""
        return self._log.retire(keys, seqs)

    def compact(self, through: int) -> int:
        """Drop rows that ended by `through`; returns how many (RowLog.compact)."""
        return self._log.compact(through)

    def live_rows(self, through: int) -> tuple[Vectors, NDArray[np.int64], NDArray[np.int64]]:
        """A copy of the rows alive at `through`: vectors (n, dim), keys, groups."""
        return self._log.live_rows(through)

    def freeze(self, through: int) -> ExactView:
        """The view at log position `through`."""
        return ExactView(self._dim, self._log.freeze(through), self._rows_max)


class ExactView:
    """CosineView of the rows that were alive at `through`; for any number of threads."""

    def __init__(self, dim: int, rows: FrozenRows[np.float32], rows_max: int = ROWS_MAX) -> None:
        self._dim = dim
        self._rows = rows
        self._rows_max = rows_max

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._dim

    @property
    def through(self) -> int:
        """The log position it was frozen at."""
        return self._rows.through

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
        """By comparing every row. Raises SpaceMismatch where dim differs."""
        require_dim(queries, self._dim)
        limits = Limits({group: -floor for group, floor in floors.items()})
        kernels = (
            _CosineKernel(queries[start : start + QUERIES_AT_ONCE])
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        )
        found, truncated = scan_all(self._rows, kernels, limits, self._rows_max)
        return cosine_matches(found, truncated)


class _CosineKernel:
    """The gap of a pair is minus its cosine."""

    slack = MARGIN

    def __init__(self, queries: Vectors) -> None:
        self._queries = np.ascontiguousarray(queries, np.float32)
        lengths = np.linalg.norm(self._queries, axis=1, keepdims=True)
        self._minus_unit = np.ascontiguousarray((-self._queries / lengths).T)

    @property
    def queries(self) -> int:
        return len(self._queries)

    def propose(self, payload: Vectors, widest: float) -> CandidatePairs:
        gaps = payload @ self._minus_unit
        flat = np.flatnonzero(gaps.ravel() <= widest + MARGIN)
        at, query = np.divmod(flat, self.queries)
        return CandidatePairs(query, at, gaps.ravel()[flat].astype(np.float64))

    def decide(self, payload: Vectors, pairs: CandidatePairs) -> NDArray[np.float64]:
        return -exact_pairs(self._queries, payload, pairs.query, pairs.at)


def _require_unit(rows: Vectors) -> None:
    off = np.abs(np.linalg.norm(rows, axis=1) - 1)
    if off.max(initial=0) > LENGTH_TOLERANCE:
        raise BadVector(
            f"vector {int(off.argmax())} of {len(rows)} has a length {off.max():.2g} away from 1: "
            "divide vectors by their length before they are indexed"
        )

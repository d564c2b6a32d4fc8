"""Hamming index over binary rows in memory: every row is compared.

Rows of 256 bits are compared whole. Of longer ones the first 256 bits, the *head*, lie by
themselves: they propose, and all bits decide. Which bits of two MinHash rows differ is chance, so
of rows `d` bits apart in all `n` the distance of their heads is hypergeometric (n, d, 256). The
bound of the heads is its 99.9 % quantile at the threshold: at most 1 in 1,000 of the pairs that lie
at the threshold is missed, fewer of the nearer ones, and no result is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadHash
from simsearch.index.flat.block_scan import NO_CANDIDATES, CandidatePairs, scan_all
from simsearch.index.flat.row_blocks import FrozenRows
from simsearch.index.flat.row_log import Ints, RowLog
from simsearch.index.index_protocol import ROWS_MAX, HammingMatches
from simsearch.index.ranking import Limits
from simsearch.types import BITS, BITS_BYTES, Bits

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

BLOCK_ROWS = 65_536
"""2 MiB of rows: fewer steps mean less Python between two reads of memory. Chosen, not measured."""

QUERIES_AT_ONCE = 8
"""The eight PDQ hashes of one picture's turns and mirrors. With BLOCK_ROWS this bounds the
distances of one step to 2 MiB."""


HEADS_KEPT: Final = Fraction(999, 1000)
"""Of the rows at the threshold, those whose heads are near enough; see above."""

PAIRS_AT_ONCE: Final = 16_384
"""2 MiB of rows of 1,024 bits, decided in one step."""


class HammingIndex:
    """Appendable index. One thread appends, retires and freezes; any thread may search its views.

    A row costs its bits, 8 bytes of key and 2 of group: 42 where it has 256 bits.
    """

    def __init__(
        self,
        width: int = BITS_BYTES,
        *,
        block_rows: int = BLOCK_ROWS,
        rows_max: int = ROWS_MAX,
    ) -> None:
        """`width`: bytes of a row, a multiple of 32."""
        self._width = width
        self._rows_max = rows_max
        self._log = RowLog((width // BITS_BYTES, BITS_BYTES), np.uint8, block_rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, as allocated."""
        return self._log.nbytes

    def append(self, bits: Bits, keys: Ints, groups: Ints) -> None:
        """Add (n, width) rows, with one key and one group each. Raises BadHash where the width
        differs."""
        _require_width(bits, self._width)
        self._log.append(bits.reshape(-1, *self._log.row_shape), keys, groups)

    def retire(self, keys: Ints, seqs: Ints) -> int:
        """End the rows of keys[i] at seqs[i]; returns how many ended (RowLog.retire)."""
        return self._log.retire(keys, seqs)

    def compact(self, through: int) -> int:
        """Drop rows that ended by `through`; returns how many (RowLog.compact)."""
        return self._log.compact(through)

    def freeze(self, through: int) -> HammingView:
        """The view at log position `through`."""
        return HammingView(self._log.freeze(through), self._width, self._rows_max)


class HammingView:
    """Hamming view of the rows that were alive at `through`; for any number of threads."""

    def __init__(
        self, rows: FrozenRows[np.uint8], width: int = BITS_BYTES, rows_max: int = ROWS_MAX
    ) -> None:
        self._rows = rows
        self._width = width
        self._rows_max = rows_max

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self._width

    @property
    def through(self) -> int:
        """The log position it was frozen at."""
        return self._rows.through

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, queries: Bits, ceilings: Mapping[int, int]) -> HammingMatches:
        """By comparing every row, or the head of every row. Raises BadHash where the width
        differs."""
        _require_width(queries, self._width)
        limits = Limits(ceilings)
        distances = _Distances()
        kernel = _HammingKernel if self._width == BITS_BYTES else _WideKernel
        kernels = (
            kernel(queries[start : start + QUERIES_AT_ONCE], distances)
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        )
        found, truncated = scan_all(self._rows, kernels, limits, self._rows_max)
        bits = found.gap.astype(np.int64)
        return HammingMatches(found.query, found.row, found.key, found.group, bits, truncated)


class _HammingKernel:
    """The gap of a pair is its distance in bits, and exact from the start.

    Most blocks have no match, so pairs are counted first, which writes nothing; distances are
    computed only where there are some. The block after a match is not counted first, as near
    copies stand together. Both routines of FAISS compute in the calling thread, whatever OpenMP is
    set to.
    """

    slack = 0.0

    def __init__(self, queries: Bits, distances: _Distances) -> None:
        self._queries = np.ascontiguousarray(queries[:, :BITS_BYTES])
        self._distances = distances
        self._count = np.zeros(1, np.uint64)
        self._into_faiss = _faiss.swig_ptr(self._queries), _faiss.swig_ptr(self._count)
        self._expects_pairs = False

    @property
    def queries(self) -> int:
        return len(self._queries)

    def propose(self, payload: Bits, widest: float) -> CandidatePairs:
        return self._heads_within(payload[:, 0], int(min(widest, BITS)))

    def _heads_within(self, payload: Bits, limit: int) -> CandidatePairs:
        if not self._expects_pairs and not self._pairs_within(payload, limit):
            return NO_CANDIDATES
        bits = self._distances.between(self._queries, payload)
        flat = np.flatnonzero(bits <= limit)
        self._expects_pairs = len(flat) > 0
        query, at = np.divmod(flat, len(payload))
        return CandidatePairs(query, at, bits[flat].astype(np.float64))

    def _pairs_within(self, payload: Bits, limit: int) -> int:
        queries, count = self._into_faiss
        rows = _faiss.swig_ptr(payload)
        _faiss.hamming_count_thres(
            queries, rows, self.queries, len(payload), limit, BITS_BYTES, count
        )
        return int(self._count[0])

    def decide(self, payload: Bits, pairs: CandidatePairs) -> NDArray[np.float64]:
        return pairs.gap


class _WideKernel(_HammingKernel):
    """The gap of a pair whose heads lie near enough is its distance in all bits."""

    def __init__(self, queries: Bits, distances: _Distances) -> None:
        super().__init__(queries, distances)
        self._whole = np.ascontiguousarray(queries).reshape(len(queries), -1, BITS_BYTES)

    def propose(self, payload: Bits, widest: float) -> CandidatePairs:
        bits = 8 * self._whole[0].size
        limit = int(min(widest, bits))
        near = self._heads_within(payload[:, 0], head_bound(limit, bits))
        gap = np.empty(len(near.query), np.float64)
        for start in range(0, len(gap), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            apart = self._whole[near.query[part]] ^ payload[near.at[part]]
            gap[part] = np.bitwise_count(apart).sum(axis=(1, 2), dtype=np.int64)
        return near._replace(gap=gap).only(gap <= limit)


@lru_cache(maxsize=256)
def head_bound(limit: int, bits: int) -> int:
    """The least distance of heads that HEADS_KEPT of the rows `limit` bits apart in all `bits` keep
    within: a quantile of the hypergeometric distribution."""
    ways, enough = 0, HEADS_KEPT * math.comb(bits, BITS)
    for bound in range(min(limit, BITS) + 1):
        ways += math.comb(limit, bound) * math.comb(bits - limit, BITS - bound)
        if ways >= enough:
            return bound
    return BITS


class _Distances:
    """Distances in one reused buffer: a new one per block would be fresh pages, to be zeroed."""

    def __init__(self) -> None:
        self._bits = np.empty(0, np.int32)

    def between(self, queries: Bits, rows: Bits) -> NDArray[np.int32]:
        """The distance of query i and row j at i * len(rows) + j; valid until the next call."""
        pairs = len(queries) * len(rows)
        if len(self._bits) < pairs:
            self._bits = np.empty(pairs, np.int32)
        bits = self._bits[:pairs]
        q, r, out = map(_faiss.swig_ptr, (queries, rows, bits))
        _faiss.hammings(q, r, len(queries), len(rows), BITS_BYTES, out)
        return bits


def _require_width(bits: Bits, width: int) -> None:
    if bits.dtype != np.uint8 or bits.ndim != 2 or bits.shape[1] != width:
        raise BadHash(
            f"hashes come as {bits.dtype} {bits.shape}, the index holds uint8 (n, {width}): "
            f"send hashes of {8 * width} bits"
        )

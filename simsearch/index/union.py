"""Union of views, searched as one: a base and its edits, or the shards of a base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import InternalFault, SpaceMismatch
from simsearch.index.index_protocol import (
    ROWS_MAX,
    CosineMatches,
    CosineView,
    HammingMatches,
    HammingView,
)
from simsearch.index.query_batch import QueryBatch
from simsearch.index.ranking import NO_PAIRS, Closest, Pairs, cosine_matches
from simsearch.types import Bits, Vectors

V = TypeVar("V", CosineView, HammingView)

PART_ROWS: Final = 1 << 40
"""Rows of part p are numbered from p * PART_ROWS, as a view reports its live rows only and not
how many numbers it uses."""


@runtime_checkable
class BatchSearchable(Protocol):
    """A CosineView that searches a QueryBatch, and so shares its cache with other views."""

    @property
    def probed(self) -> tuple[object, int]:
        """The object that identifies its coarse quantizer, and how many lists a search reads."""
        ...

    def search_batch(self, batch: QueryBatch, floors: Mapping[int, float]) -> CosineMatches:
        """CosineView.search on a shared batch."""
        ...


class UnionView:
    """A CosineView over the rows of `parts` (at least one), in their order.

    The result is that of one index of all rows, but for the numbers of rows, which are only unique.
    Raises SpaceMismatch where the parts differ in dim.
    """

    def __init__(self, parts: Sequence[CosineView], rows_max: int = ROWS_MAX) -> None:
        """`rows_max` must be that of the parts."""
        self._parts: tuple[CosineView, ...] = _flattened(parts)
        self._dim = self._parts[0].dim
        self._rows_max = rows_max
        self._max_nprobe: dict[int, int] = {}
        for part in self._parts:
            if isinstance(part, BatchSearchable):
                centres, nprobe = part.probed
                self._max_nprobe[id(centres)] = max(nprobe, self._max_nprobe.get(id(centres), 0))
        if any(part.dim != self._dim for part in self._parts):
            raise SpaceMismatch(
                f"views of dim {', '.join(str(part.dim) for part in self._parts)} cannot be "
                "searched as one: build them for one space"
            )

    @property
    def parts(self) -> tuple[CosineView, ...]:
        """The views searched; none is a union."""
        return self._parts

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._dim

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def search(self, queries: Vectors, floors: Mapping[int, float]) -> CosineMatches:
        """The closest matches of all parts. Raises SpaceMismatch where dim differs."""
        if queries.ndim != 2 or queries.shape[1] != self._dim:
            self._parts[0].search(queries, floors)  # which refuses them
        batch = QueryBatch(queries, self._max_nprobe)
        found = [_searched(part, batch, floors) for part in self._parts]
        pairs = [Pairs(m.query, m.row, m.key, m.group, -m.cosine) for m in found]
        best, truncated = _closest(pairs, [m.truncated for m in found], self._rows_max)
        return cosine_matches(best, truncated)


class HammingUnionView:
    """A HammingView over the rows of `parts` (at least one), numbered as in UnionView."""

    def __init__(self, parts: Sequence[HammingView], rows_max: int = ROWS_MAX) -> None:
        self._parts: tuple[HammingView, ...] = _flattened(parts)
        self._rows_max = rows_max

    @property
    def parts(self) -> tuple[HammingView, ...]:
        """The views searched; none is a union."""
        return self._parts

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return self._parts[0].width

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def search(self, queries: Bits, ceilings: Mapping[int, int]) -> HammingMatches:
        """The closest matches of all parts."""
        found = [part.search(queries, ceilings) for part in self._parts]
        pairs = [Pairs(m.query, m.row, m.key, m.group, m.hamming.astype(float)) for m in found]
        best, truncated = _closest(pairs, [m.truncated for m in found], self._rows_max)
        bits = best.gap.astype(np.int64)
        return HammingMatches(best.query, best.row, best.key, best.group, bits, truncated)


def _searched(part: CosineView, batch: QueryBatch, floors: Mapping[int, float]) -> CosineMatches:
    if isinstance(part, BatchSearchable):
        return part.search_batch(batch, floors)
    return part.search(batch.given, floors)


def _flattened(parts: Sequence[V]) -> tuple[V, ...]:
    """Nested unions flattened, so that row numbers stay unique."""
    flat = tuple(p for part in parts for p in getattr(part, "parts", (part,)))
    if not flat:
        raise InternalFault("a union of no views has no dim: give it an empty view")
    return flat


def _closest(
    parts: Sequence[Pairs], truncated: Sequence[NDArray[np.bool_]], rows_max: int
) -> tuple[Pairs, NDArray[np.bool_]]:
    """The closest `rows_max` of each query, which are among the closest of each part."""
    cut = np.logical_or.reduce(truncated)
    if not any(map(len, parts)):
        return NO_PAIRS, cut
    closest = Closest(len(cut), rows_max, slack=0.0)
    closest.truncated |= cut
    for number, part in enumerate(parts):
        closest.add(replace(part, row=part.row + number * PART_ROWS))
    return closest.ranked(), closest.truncated

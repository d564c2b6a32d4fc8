"""Query batch: the queries of one search, and a cache of their nearest lists per quantizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsearch.types import Vectors


class NearestLists(NamedTuple):
    """The lists whose centres are nearest to each query, nearest first, and the inner products
    with these centres; both (n, nprobe)."""

    lists: NDArray[np.int64]
    scores: NDArray[np.float32]

    def first(self, nprobe: int) -> NearestLists:
        """The nearest `nprobe` of them."""
        return NearestLists(self.lists[:, :nprobe], self.scores[:, :nprobe])

    def of(self, queries: slice | NDArray[np.bool_]) -> NearestLists:
        """Those of some queries, as contiguous copies."""
        return NearestLists(
            np.ascontiguousarray(self.lists[queries]), np.ascontiguousarray(self.scores[queries])
        )


class QueryBatch:
    """Queries (n, dim) of one search in one thread; `given` as the caller passed them.

    Comparing a query with the centres of 2,048 lists costs about as much as reading 16 of them:
    a segment with the same centres as its base reuses the comparison.
    """

    def __init__(
        self, given: Vectors, max_nprobe: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """`max_nprobe`: per coarse quantizer, by the id of the object that identifies it, the
        largest nprobe of any part of the view."""
        self.given = given
        self._max_nprobe = max_nprobe
        self._nearest: dict[int, tuple[object, NearestLists]] = {}

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def queries(self) -> Vectors:
        """The queries as contiguous float32."""
        return np.ascontiguousarray(self.given, np.float32)

    @cached_property
    def unit(self) -> Vectors:
        """The queries divided by their length."""
        lengths = np.sqrt(np.einsum("ij,ij->i", self.queries, self.queries))
        unit: Vectors = self.queries / lengths[:, np.newaxis]
        return unit

    def nearest(
        self, centres: object, nprobe: int, find: Callable[[int], NearestLists]
    ) -> NearestLists:
        """The `nprobe` lists nearest to each query. `find(count)` computes them; it runs once for
        these `centres`, with the largest nprobe of any part."""
        cached = self._nearest.get(id(centres))
        if cached is None or cached[1].lists.shape[1] < nprobe:
            count = max(nprobe, self._max_nprobe.get(id(centres), 0))
            cached = centres, find(count)  # with the centres, so that no other gets their id
            self._nearest[id(centres)] = cached
        return cached[1].first(nprobe)

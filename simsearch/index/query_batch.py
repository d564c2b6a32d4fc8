"""Queries on their way through the parts of a view; what the parts have in common is done once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsearch.types import Vectors


class NearestLists(NamedTuple):
    """Of each query the numbers of the lists with the nearest centres, nearest first, and their
    scores; both (n, nprobe)."""

    lists: NDArray[np.int64]
    scores: NDArray[np.float32]

    def first(self, nprobe: int) -> NearestLists:
        return NearestLists(self.lists[:, :nprobe], self.scores[:, :nprobe])

    def of(self, queries: slice | NDArray[np.bool_]) -> NearestLists:
        return NearestLists(
            np.ascontiguousarray(self.lists[queries]), np.ascontiguousarray(self.scores[queries])
        )


class QueryBatch:
    """Queries (n, dim), for one search in one thread; `given` as they came.

    Comparing a query with the centres of 2,048 lists costs about as much as reading 16 of them:
    a segment that shares its centres with the base beside it need not do it again.
    """

    def __init__(self, given: Vectors, widest: Mapping[int, int] = MappingProxyType({})) -> None:
        """`widest`: by the id of what stands for centres, how many of their lists any part of the
        view reads."""
        self.given = given
        self._widest = widest
        self._nearest: dict[int, tuple[object, NearestLists]] = {}

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def queries(self) -> Vectors:
        return np.ascontiguousarray(self.given, np.float32)

    @cached_property
    def unit(self) -> Vectors:
        """The queries with length 1."""
        lengths = np.sqrt(np.einsum("ij,ij->i", self.queries, self.queries))
        unit: Vectors = self.queries / lengths[:, np.newaxis]
        return unit

    def nearest(
        self, centres: object, nprobe: int, find: Callable[[int], NearestLists]
    ) -> NearestLists:
        """The `nprobe` lists nearest to each query. `find` finds so many as it is told, the first
        time that these centres are asked for: as many as any part will read."""
        known = self._nearest.get(id(centres))
        if known is None or known[1].lists.shape[1] < nprobe:
            count = max(nprobe, self._widest.get(id(centres), 0))
            known = centres, find(count)  # with the centres, so that no other gets their id
            self._nearest[id(centres)] = known
        return known[1].first(nprobe)

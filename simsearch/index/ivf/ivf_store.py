"""IVF store: the index, rows, keys and groups that all views of a base share; and the live-row
selector that a search passes to FAISS."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from mmap import mmap
from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.errors import Corrupt
from simsearch.index.ivf.mapped_lists import lists_nbytes
from simsearch.index.query_batch import NearestLists, QueryBatch
from simsearch.index.tombstones import contains
from simsearch.types import Vectors

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

K = TypeVar("K")
T = TypeVar("T")

Bitmap = NDArray[np.uint8]
"""A bit for each row, lowest first: what FAISS reads as a selector."""

MEMOIZED_MAX = 8
"""Sets of searched groups whose bitmap is cached; each costs a bit a row. Chosen, not measured."""

FEW_DEAD = 0.01
"""Up to this share of a base, dead rows are dropped after the scan instead of by a selector in it.
Chosen; what a selector costs is at LiveRowSelector.first_parameters."""

EF_PER_PROBE = 4
"""efSearch of an HNSW coarse quantizer, in multiples of nprobe. Chosen, not measured."""


class IvfStore:
    """Rows of one index. In memory are the codes, 1 or 2 bytes of group, and 4 bytes of key where
    keys fit, or none where they are a memmap. The slot of a row is the place of its group in
    `groups`. `outliers` are the rows that are not in the index, ascending. `centres` is any object
    that identifies the coarse quantizer: stores with equal centres of lists may share one.
    """

    def __init__(
        self,
        index: Any,
        rows: NDArray[np.float16],
        keys: NDArray[np.integer],
        groups: NDArray[np.integer],
        outliers: NDArray[np.int64],
        centres: object | None,
    ) -> None:
        _require_same_rows(index, rows, keys, groups, outliers)
        self.index = index
        self.centres = index if centres is None else centres
        self.outliers = outliers
        self.dim = int(index.d)
        self.rows = rows.view(np.ndarray)  # a memmap's own indexing is slow
        self.keys = keys.view(np.ndarray) if _is_on_disk(keys) else _narrowed(keys)
        values, slots = np.unique(groups, return_inverse=True)
        self.groups: tuple[int, ...] = tuple(values.tolist())
        self.group_of_slot = values.astype(np.int64)
        self.slots = slots.astype(np.min_scalar_type(max(len(values) - 1, 0)))
        self._by_key = _order(self.keys)
        self.bitmap: Callable[[bytes], Bitmap] = memoized(partial(_bitmap, self.slots))

    def __len__(self) -> int:
        """Rows in the index."""
        return len(self.keys) - len(self.outliers)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, by length."""
        order = 0 if self._by_key is None else self._by_key.nbytes
        in_memory = (a.nbytes for a in (self.rows, self.keys) if not _is_on_disk(a))
        return int(index_nbytes(self.index) + self.slots.nbytes + order + sum(in_memory))

    def nearest(self, batch: QueryBatch, parameters: Any) -> NearestLists:
        """The lists that a search with `parameters` reads for each query; cached in `batch`."""

        def find(count: int) -> NearestLists:
            coarse = parameters.quantizer_params
            scores, lists = self.index.quantizer.search(batch.unit, count, params=coarse)
            return NearestLists(lists, scores)

        return batch.nearest(self.centres, int(parameters.nprobe), find)

    def scan(
        self, unit: Vectors, nearest: NearestLists, count: int, parameters: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows of the best `count` in the lists `nearest` to each query, (n, count)."""
        scores = np.empty((len(unit), count), np.float32)
        rows = np.empty((len(unit), count), np.int64)
        q, lists, near, best, found = map(
            _faiss.swig_ptr, (unit, nearest.lists, nearest.scores, scores, rows)
        )
        # FAISS's own function: the one it has for Python takes no parameters.
        self.index.search_preassigned_c(
            len(unit), q, count, lists, near, best, found, False, parameters
        )
        return scores, rows

    def rows_of(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """The rows of `keys` in the index, and for each the place of its key in `keys`."""
        fit = np.iinfo(self.keys.dtype)
        place = np.flatnonzero((keys >= fit.min) & (keys <= fit.max))
        # Of one type, or searchsorted would convert all keys to that of the few.
        wanted = keys[place].astype(self.keys.dtype)
        first = np.searchsorted(self.keys, wanted, "left", sorter=self._by_key)
        counts = np.searchsorted(self.keys, wanted, "right", sorter=self._by_key) - first
        ends = np.cumsum(counts)
        at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)
        rows = (at if self._by_key is None else self._by_key[at]).astype(np.int64)
        indexed = ~contains(self.outliers, rows)
        return rows[indexed], np.repeat(place, counts)[indexed]


class LiveRowSelector:
    """Live rows of a store as FAISS search parameters; for any number of threads."""

    def __init__(self, store: IvfStore, dead: NDArray[np.int64], nprobe: int) -> None:
        self.dead = dead
        self.nprobe = min(nprobe, int(store.index.nlist))
        self._count = len(store) - len(dead)
        self.parameters: Callable[[bytes], Any]
        self.parameters = memoized(partial(_parameters, store, dead, nprobe))
        self._unselected = _unselected(store, nprobe)

    def first_parameters(self, slots_searched: bytes) -> Any:
        """As `parameters`, but without a selector where dead rows are few, which then may be
        returned too. A selector costs single queries 5 % (on 1M rows, not in
        benchmarks/README.md), and batches nothing that shows."""
        few_dead = len(self.dead) <= FEW_DEAD * self._count
        return (
            self._unselected
            if few_dead and all(slots_searched)
            else self.parameters(slots_searched)
        )

    def __len__(self) -> int:
        return self._count


def memoized(function: Callable[[K], T]) -> Callable[[K], T]:
    """`function` with an LRU cache of MEMOIZED_MAX results; thread-safe. It must not refer to the
    object that stores the result: that cycle would keep both alive until a garbage collection."""
    return lru_cache(MEMOIZED_MAX)(function)


def _bitmap(slots: NDArray[np.integer], slots_searched: bytes) -> Bitmap:
    """The rows of some groups; `slots_searched` is a bool for each slot."""
    return np.packbits(np.frombuffer(slots_searched, np.bool_)[slots], bitorder="little")


def _parameters(
    store: IvfStore, dead: NDArray[np.int64], nprobe: int, slots_searched: bytes
) -> Any:
    """SearchParametersIVF that select the live rows of the `slots_searched` groups."""
    parameters = _unselected(store, nprobe)
    if len(dead) or not all(slots_searched):
        parameters.sel = _faiss.IDSelectorBitmap(_without(store.bitmap(slots_searched), dead))
    return parameters


def _unselected(store: IvfStore, nprobe: int) -> Any:
    """SearchParametersIVF without a selector; a search only reads it, so threads may share it."""
    # With more lists than there are, a fast scan of residuals returns wrong scores.
    nprobe = min(nprobe, int(store.index.nlist))
    parameters = _faiss.SearchParametersIVF(nprobe=nprobe)
    if isinstance(_faiss.downcast_index(store.index.quantizer), _faiss.IndexHNSW):
        parameters.quantizer_params = _faiss.SearchParametersHNSW(efSearch=EF_PER_PROBE * nprobe)
    return parameters


def _without(bitmap: Bitmap, dead: NDArray[np.int64]) -> Bitmap:
    if not len(dead):
        return bitmap
    alive = bitmap.copy()
    bits = np.left_shift(1, dead & 7).astype(np.uint8)
    at, first = np.unique(dead >> 3, return_index=True)
    alive[at] &= ~np.bitwise_or.reduceat(bits, first)
    return alive


def index_nbytes(index: Any) -> int:
    """Of codes, ids and centroids, by their lengths; FAISS may have allocated more."""
    return lists_nbytes(index) + 4 * int(index.nlist) * int(index.d)


def _narrowed(keys: NDArray[np.integer]) -> NDArray[np.integer]:
    """As uint32 where all fit, to save memory."""
    fits = len(keys) > 0 and int(keys.min()) >= 0 and int(keys.max()) <= np.iinfo(np.uint32).max
    return np.ascontiguousarray(keys, np.uint32 if fits else np.int64)


def _order(keys: NDArray[np.integer]) -> NDArray[np.uint32] | None:
    """The rows ordered by key; None where they are so already, as in a snapshot."""
    if (keys[1:] >= keys[:-1]).all():
        return None
    return np.argsort(keys, kind="stable").astype(np.uint32)


def _is_on_disk(array: NDArray[Any]) -> bool:
    return isinstance(array, np.memmap) or isinstance(array.base, (np.memmap, mmap))


def _require_same_rows(
    index: Any,
    rows: NDArray[np.float16],
    keys: NDArray[np.integer],
    groups: NDArray[np.integer],
    outliers: NDArray[np.int64],
) -> None:
    count = index.ntotal + len(outliers)
    if not count == len(rows) == len(keys) == len(groups) or rows.shape[1] != index.d:
        raise Corrupt(
            f"an index of {index.ntotal} rows of {index.d} numbers and {len(outliers)} outliers "
            f"came with vectors of shape {rows.shape}, {len(keys)} keys and {len(groups)} groups: "
            "rebuild the snapshot"
        )

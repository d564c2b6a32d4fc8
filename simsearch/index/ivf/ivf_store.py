"""What all views of one IVF base share, and which of its rows a search may return."""

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
"""Sets of asked groups that are remembered; each costs a bit a row."""

FEW_DEAD = 0.01
"""Up to this share of a base, dead rows are taken out after the scan instead of in it."""

EF_PER_PROBE = 4
"""How many lists an HNSW over the lists looks at for each that it returns."""


class IvfStore:
    """Rows of one index: resident are the codes, 1 or 2 bytes of group, and 4 of key where keys
    fit, or none where they are a memmap. A group is known by its slot, its place in `groups`.
    `outliers` are the rows that the index does not hold, ascending. Stores with equal centres of
    lists may share one object as `centres`, which stands for them.
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
        order = 0 if self._by_key is None else self._by_key.nbytes
        in_memory = (a.nbytes for a in (self.rows, self.keys) if not _is_on_disk(a))
        return int(index_nbytes(self.index) + self.slots.nbytes + order + sum(in_memory))

    def nearest(self, batch: QueryBatch, parameters: Any) -> NearestLists:
        """The lists that a search with `parameters` reads for each query."""

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
        held = ~contains(self.outliers, rows)
        return rows[held], np.repeat(place, counts)[held]


class LiveRowSelector:
    """A store less its dead rows, as search parameters for FAISS; for any number of threads."""

    def __init__(self, store: IvfStore, dead: NDArray[np.int64], nprobe: int) -> None:
        self.dead = dead
        self.nprobe = min(nprobe, int(store.index.nlist))
        self._count = len(store) - len(dead)
        self.parameters: Callable[[bytes], Any]
        self.parameters = memoized(partial(_parameters, store, dead, nprobe))
        self._unselected = _unselected(store, nprobe)

    def first_parameters(self, asked: bytes) -> Any:
        """As `parameters`, but dead rows may come too where they are few: a selector, were it for
        one row, costs single questions 5 % (1M rows; in batches less than can be measured)."""
        few_dead = len(self.dead) <= FEW_DEAD * self._count
        return self._unselected if few_dead and all(asked) else self.parameters(asked)

    def __len__(self) -> int:
        return self._count


def memoized(function: Callable[[K], T]) -> Callable[[K], T]:
    """`function`, with its latest answers kept; safe for threads. It must not hold on to the owner
    of the memory, or both would outlive their last use until the collector comes by."""
    return lru_cache(MEMOIZED_MAX)(function)


def _bitmap(slots: NDArray[np.integer], asked: bytes) -> Bitmap:
    """The rows of the asked groups; `asked` is a bool for each slot."""
    return np.packbits(np.frombuffer(asked, np.bool_)[slots], bitorder="little")


def _parameters(store: IvfStore, dead: NDArray[np.int64], nprobe: int, asked: bytes) -> Any:
    """SearchParametersIVF that let the living rows of the asked groups pass."""
    parameters = _unselected(store, nprobe)
    if len(dead) or not all(asked):
        parameters.sel = _faiss.IDSelectorBitmap(_without(store.bitmap(asked), dead))
    return parameters


def _unselected(store: IvfStore, nprobe: int) -> Any:
    """SearchParametersIVF, which a search only reads, so that threads may share it."""
    # Asked for more lists than there are, a fast scan of residuals answers nonsense.
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
    """As uint32 where all fit: a store has one key a row, and little else."""
    fits = len(keys) > 0 and int(keys.min()) >= 0 and int(keys.max()) <= np.iinfo(np.uint32).max
    return np.ascontiguousarray(keys, np.uint32 if fits else np.int64)


def _order(keys: NDArray[np.integer]) -> NDArray[np.uint32] | None:
    """None where the rows stand in the order of their keys, as a snapshot is written."""
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
    held = index.ntotal + len(outliers)
    if not held == len(rows) == len(keys) == len(groups) or rows.shape[1] != index.d:
        raise Corrupt(
            f"an index of {index.ntotal} rows of {index.d} numbers and {len(outliers)} outliers "
            f"came with vectors of shape {rows.shape}, {len(keys)} keys and {len(groups)} groups: "
            "rebuild the snapshot"
        )

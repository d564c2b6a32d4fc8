"""What all views of one IVF base share, and which of its rows a search may return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.errors import Corrupt

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

Bitmap = NDArray[np.uint8]
"""A bit for each row, lowest first: what FAISS reads as a selector."""

SELECTIONS_MAX = 8
"""Sets of asked groups that are remembered; each costs a bit a row."""

EF_PER_PROBE = 4
"""How many lists an HNSW over the lists looks at for each that it returns."""


class IvfStore:
    """Rows of one index: resident are the codes, 4 bytes of key where keys fit, 1 or 2 of group.

    A group is known by its slot, its place in `groups`.
    """

    def __init__(
        self,
        index: Any,
        rows: NDArray[np.float16],
        keys: NDArray[np.integer],
        groups: NDArray[np.integer],
    ) -> None:
        _require_same_rows(index, rows, keys, groups)
        self.index = index
        self.dim = int(index.d)
        self.rows = rows.view(np.ndarray)  # a memmap's own indexing is slow
        self.keys = _narrowed(keys)
        values, slots = np.unique(groups, return_inverse=True)
        self.groups: tuple[int, ...] = tuple(values.tolist())
        self.group_of_slot = values.astype(np.int64)
        self.slots = slots.astype(np.min_scalar_type(max(len(values) - 1, 0)))
        self._by_key = _order(self.keys)
        self.bitmap: Callable[[bytes], Bitmap] = lru_cache(SELECTIONS_MAX)(self._bitmap)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        order = 0 if self._by_key is None else self._by_key.nbytes
        rows = 0 if _is_on_disk(self.rows) else self.rows.nbytes
        lists = index_nbytes(self.index)
        return int(lists + self.keys.nbytes + self.slots.nbytes + order + rows)

    def _bitmap(self, asked: bytes) -> Bitmap:
        """The rows of the asked groups; `asked` is a bool for each slot."""
        return np.packbits(np.frombuffer(asked, np.bool_)[self.slots], bitorder="little")

    def rows_of(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """The rows of `keys`, and for each the place of its key in `keys`."""
        fit = np.iinfo(self.keys.dtype)
        place = np.flatnonzero((keys >= fit.min) & (keys <= fit.max))
        # Of one type, or searchsorted would convert all keys to that of the few.
        wanted = keys[place].astype(self.keys.dtype)
        first = np.searchsorted(self.keys, wanted, "left", sorter=self._by_key)
        counts = np.searchsorted(self.keys, wanted, "right", sorter=self._by_key) - first
        ends = np.cumsum(counts)
        at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)
        rows = at if self._by_key is None else self._by_key[at]
        return rows.astype(np.int64), np.repeat(place, counts)


@dataclass(frozen=True)
class Tombs:
    """Which rows ended, ascending, and when."""

    rows: NDArray[np.int64]
    seqs: NDArray[np.int64]
    newest: int = 0

    def until(self, through: int) -> NDArray[np.int64]:
        return self.rows if self.newest <= through else self.rows[self.seqs <= through]

    def joined(self, rows: NDArray[np.int64], seqs: NDArray[np.int64]) -> Tombs:
        """With more rows; of two ends of a row the one already known counts, then the lower."""
        all_rows = np.concatenate((self.rows, rows))
        all_seqs = np.concatenate((self.seqs, seqs))
        is_new = np.arange(len(all_rows)) >= len(self.rows)
        order = np.lexsort((all_seqs, is_new, all_rows))
        kept, first = np.unique(all_rows[order], return_index=True)
        ends = all_seqs[order][first]
        return Tombs(kept, ends, int(ends.max(initial=0)))


NO_TOMBS = Tombs(np.empty(0, np.int64), np.empty(0, np.int64))


class Living:
    """A store less its dead rows, as search parameters for FAISS; for any number of threads."""

    def __init__(self, store: IvfStore, dead: NDArray[np.int64], nprobe: int) -> None:
        self._store = store
        self.dead = dead
        self._nprobe = nprobe
        self.parameters: Callable[[bytes], Any] = lru_cache(SELECTIONS_MAX)(self._parameters)

    def __len__(self) -> int:
        return len(self._store) - len(self.dead)

    def _parameters(self, asked: bytes) -> Any:
        """SearchParametersIVF, which a search only reads, so that threads may share it."""
        parameters = _faiss.SearchParametersIVF(nprobe=self._nprobe)
        if len(self.dead) or not all(asked):
            parameters.sel = _faiss.IDSelectorBitmap(self._alive(asked))
        if isinstance(_faiss.downcast_index(self._store.index.quantizer), _faiss.IndexHNSW):
            ef = EF_PER_PROBE * self._nprobe
            parameters.quantizer_params = _faiss.SearchParametersHNSW(efSearch=ef)
        return parameters

    def _alive(self, asked: bytes) -> Bitmap:
        of_groups = self._store.bitmap(asked)
        if not len(self.dead):
            return of_groups
        alive = of_groups.copy()
        bits = np.left_shift(np.uint8(1), (self.dead & 7).astype(np.uint8))
        np.bitwise_and.at(alive, self.dead >> 3, ~bits)
        return alive


def index_nbytes(index: Any) -> int:
    """Of codes, ids and centroids, by their lengths; FAISS may have allocated more."""
    lists = index.invlists
    sizes = np.array([lists.list_size(number) for number in range(index.nlist)], np.int64)
    packed = getattr(lists, "n_per_block", 0)
    if packed:
        codes = int((-(-sizes // packed)).sum()) * int(lists.block_size)
    else:
        codes = int(sizes.sum()) * int(index.code_size)
    return codes + 8 * int(sizes.sum()) + 4 * int(index.nlist) * int(index.d)


def _narrowed(keys: NDArray[np.integer]) -> NDArray[np.integer]:
    """As uint32 where all fit: a store has one key a row, and little else."""
    fits = len(keys) > 0 and int(keys.min()) >= 0 and int(keys.max()) <= np.iinfo(np.uint32).max
    return np.ascontiguousarray(keys, np.uint32 if fits else np.int64)


def _order(keys: NDArray[np.integer]) -> NDArray[np.uint32] | None:
    """None where the rows stand in the order of their keys, as a snapshot is written."""
    if (keys[1:] >= keys[:-1]).all():
        return None
    return np.argsort(keys, kind="stable").astype(np.uint32)


def _is_on_disk(rows: NDArray[np.float16]) -> bool:
    return isinstance(rows, np.memmap) or isinstance(rows.base, (np.memmap, mmap))


def _require_same_rows(
    index: Any,
    rows: NDArray[np.float16],
    keys: NDArray[np.integer],
    groups: NDArray[np.integer],
) -> None:
    if not index.ntotal == len(rows) == len(keys) == len(groups) or rows.shape[1] != index.d:
        raise Corrupt(
            f"an index of {index.ntotal} rows of {index.d} numbers came with vectors of shape "
            f"{rows.shape}, {len(keys)} keys and {len(groups)} groups: rebuild the snapshot"
        )

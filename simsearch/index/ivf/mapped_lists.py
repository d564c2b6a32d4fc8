"""Memory-mapped inverted lists: the lists of an IVF index in one .npy file of bytes.

FAISS reads its own file into memory, in blocks whose sizes it rounds up to powers of two. A mapped
file costs its own length (benchmarks/README.md, index_memory), is shared by all processes that
serve it, and holds no sizes or addresses that FAISS would trust.

Layout: `nlist` numbers of rows, little-endian int64, filled up to 64 bytes; then list by list its
codes as FAISS scans them and its ids, int64, both filled up to whole packs of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.npy_files import write_npy

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

FEW: Final = 8
"""Rows in a pack of an index that is not scanned in packs: keeps ids aligned."""

ID_BYTES: Final = 8
ALIGNED_TO: Final = 64
"""The alignment that the widest load of a fast scan may need. The header of an .npy file is as
long, or twice."""


def write_lists(path: Path, index: Any) -> None:
    """Write the lists of a filled IVF `index`; its centres and codebooks are not in the file."""
    sizes = sizes_of(index)
    length = _head_bytes(index) + int(_rooms(index, sizes).sum()) * _row_bytes(index)
    write_npy(path, np.uint8, (length,), _chunks(index, sizes))


def map_lists(path: Path, empty: Any) -> None:
    """Give the IVF index `empty` the lists in the file, mapped. Raises ValueError where their
    sizes do not fit it; that they are its lists is what the canary of a shard checks."""
    array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"holds {array.dtype} {array.shape} instead of bytes")
    head = _head_bytes(empty)
    if len(array) < head:
        raise ValueError(f"is too short to say how long {empty.nlist} lists are")
    sizes = array[: 8 * empty.nlist].view("<i8").astype(np.int64)
    if sizes.min(initial=0) < 0 or sizes.max(initial=0) > len(array):
        raise ValueError("has lists with numbers of rows out of range")
    rooms = _rooms(empty, sizes)
    if len(array) != head + int(rooms.sum()) * _row_bytes(empty):
        raise ValueError("is not as long as the lists that it says it holds")
    mapped = _mapped(path, sizes, rooms, int(empty.code_size), array.offset + head)
    empty.replace_invlists(mapped, True)
    mapped.thisown = False  # the index frees it
    empty.ntotal = int(sizes.sum())


def sizes_of(index: Any) -> NDArray[np.int64]:
    """Rows in each list of an IVF index."""
    lists = index.invlists
    return np.array([lists.list_size(number) for number in range(index.nlist)], np.int64)


def lists_nbytes(index: Any) -> int:
    """Of codes and ids, by their lengths in a file; FAISS may have allocated more."""
    return int(_rooms(index, sizes_of(index)).sum()) * _row_bytes(index)


def ids_of(index: Any) -> NDArray[np.int64]:
    """All ids in the lists of an IVF index, one list after the other."""
    lists = index.invlists
    views = [
        _faiss.rev_swig_ptr(lists.get_ids(number), int(size))
        for number, size in enumerate(sizes_of(index))
        if size
    ]
    return np.concatenate([np.empty(0, np.int64), *views])


def _mapped(
    path: Path, sizes: NDArray[np.int64], rooms: NDArray[np.int64], code_size: int, start: int
) -> Any:
    lists = _faiss.OnDiskInvertedLists(len(sizes), code_size, str(path))
    lists.read_only = True
    lists.prefetch_nthread = (
        0  # reading ahead costs three quarters of a search more (not in the README)
    )
    lists.totsize = path.stat().st_size
    lists.do_mmap()
    lists.lists.clear()
    for size, room in zip(sizes.tolist(), rooms.tolist(), strict=True):
        one = _faiss.OnDiskOneList()
        one.size, one.capacity, one.offset = size, room, start
        lists.lists.push_back(one)
        start += room * (code_size + ID_BYTES)
    return lists


def _chunks(index: Any, sizes: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    head = np.zeros(_head_bytes(index), np.uint8)
    head[: 8 * len(sizes)] = sizes.astype("<i8").view(np.uint8)
    yield head
    lists, rooms, in_packs = index.invlists, _rooms(index, sizes), _scanned_at_once(index) > 1
    for number in np.flatnonzero(sizes).tolist():
        size, room = int(sizes[number]), int(rooms[number])
        length = (room if in_packs else size) * index.code_size
        codes = np.zeros(room * index.code_size, np.uint8)
        codes[:length] = _faiss.rev_swig_ptr(lists.get_codes(number), length)
        yield codes
        ids = np.zeros(room, "<i8")
        ids[:size] = _faiss.rev_swig_ptr(lists.get_ids(number), size)
        yield ids.view(np.uint8)


def _head_bytes(index: Any) -> int:
    return -(-8 * int(index.nlist) // ALIGNED_TO) * ALIGNED_TO


def _row_bytes(index: Any) -> int:
    return int(index.code_size) + ID_BYTES


def _rooms(index: Any, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows that each list has room for."""
    pack = max(_scanned_at_once(index), FEW)
    return -(-sizes // pack) * pack


def _scanned_at_once(index: Any) -> int:
    """Rows whose codes FAISS interleaves, to scan them together."""
    return int(getattr(index, "bbs", 1))

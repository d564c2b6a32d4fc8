"""FAISS helpers: reading, copying and deserialising of indexes, and single-threaded calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.ivf.mapped_lists import map_lists

_faiss: Any = faiss  # ships no types, and fills its namespace at run time


def read_trusted(path: Path, lists: Path | None = None) -> Any:
    """The index in a FAISS file that this process's own build wrote; with `lists`, the file of its
    lists, which stays mapped. Nothing is checked: other files are for open_snapshot."""
    index = _faiss.read_index(str(path))
    if lists is not None:
        map_lists(lists, index)
    return index


def from_bytes(written: NDArray[np.uint8]) -> Any:
    """The index in the bytes of a FAISS file that was checked before; a copy."""
    return _faiss.deserialize_index(np.array(written))


def copy_of(index: Any) -> Any:
    """Another index with the same centroids, codebooks and rows."""
    return _faiss.clone_index(index)


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS computes in the calling thread alone, until the block is left.

    OpenMP's setting is per thread. With several OpenMP threads for each of many small searches
    throughput fell from thousands to 30 queries a second (not in benchmarks/README.md).
    """
    before = _faiss.omp_get_max_threads()
    _faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        _faiss.omp_set_num_threads(before)

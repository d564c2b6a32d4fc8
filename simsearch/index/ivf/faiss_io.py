"""Shards of one base begin as copies of one trained index, and so does what is added later."""

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
    """A FAISS file that this process's own build wrote, and the file of `lists` that belong to it,
    which stay there, mapped: not for files from anywhere else, which open_snapshot checks first."""
    index = _faiss.read_index(str(path))
    if lists is not None:
        map_lists(lists, index)
    return index


def from_bytes(written: NDArray[np.uint8]) -> Any:
    """A FAISS file that was checked before; FAISS makes a copy of what it needs."""
    return _faiss.deserialize_index(np.array(written))


def copy_of(index: Any) -> Any:
    """Another index with the same centroids, codebooks and rows."""
    return _faiss.clone_index(index)


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS computes in the calling thread alone; other threads, and this one later, keep theirs.

    OpenMP's setting belongs to the thread that makes it. With more than one on each of many
    small searches, their threads fight: 30 questions a second were answered instead of thousands.
    """
    before = _faiss.omp_get_max_threads()
    _faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        _faiss.omp_set_num_threads(before)

"""Shards of one base: begun from one trained index, filled apart, joined when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss

_faiss: Any = faiss  # ships no types, and fills its namespace at run time


def read_own(path: Path) -> Any:
    """A FAISS file that this process's own build wrote: not for files from anywhere else, which
    open_snapshot checks first."""
    return _faiss.read_index(str(path))


def empty_copy(trained: Any) -> Any:
    """Another index with the same centroids and codebooks, and no rows."""
    return _faiss.clone_index(trained)


def merged(shards: Sequence[Any]) -> Any:
    """One index with the rows of all `shards`, which keep their ids; all but the first are
    emptied. They must have been trained as one."""
    first, *others = shards
    for other in others:
        first.merge_from(other, 0)
    return first

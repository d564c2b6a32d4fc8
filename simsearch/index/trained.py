"""Shards of one base begin as copies of one trained index."""

from __future__ import annotations

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

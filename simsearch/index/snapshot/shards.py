"""Shards: written without losing errors, and trusted only after they find their own rows.

A shard is the index that all shards of a space were begun with, a FAISS file without rows, and a
file of its lists. FAISS checks little of what it reads: of damaged files 38 % load and answer with
other neighbours. So nothing here reads a file whose SHA-256 has not been checked before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from simsearch.index.ivf.faiss_io import one_thread
from simsearch.index.ivf.mapped_lists import ids_of, map_lists
from simsearch.index.rescore import exact_cosines
from simsearch.index.snapshot.manifest import SpacePart

CANARY_ROWS = 16
CANARY_CANDIDATES = 64
CANARY_COSINE = 0.9
"""What the best candidate for a stored row must reach at least. Not 1: among hundreds of
near-copies the row itself may not be proposed, while in a broken shard the best lies far away."""

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

TRAINED_BYTES_FACTOR = 64
"""FAISS counts a table of the inner products of centres and codebooks as if it made one: of 8-bit
codes it is 43 times as large as the centres, which are nearly all of an index without rows."""

_WRITE_BYTES = 1 << 20
_LIMIT = threading.Lock()


def write_index(path: Path, index: Any) -> None:
    """Through Python's file, which says when the disk is full; FAISS's own may lose the last
    error when it closes."""
    with path.open("wb") as file:
        _faiss.write_index(index, _faiss.PyCallbackIOWriter(file.write, _WRITE_BYTES))


def read_shards(
    paths: Sequence[Path],
    part: SpacePart,
    rows: NDArray[np.float16],
    outliers: Sequence[NDArray[np.int64]],
) -> list[tuple[Any, slice]]:
    """Each shard of `part` with its stretch of `rows`, checked against them; none holds the rows
    of its stretch that are numbered in its `outliers`.

    The lists stay in their files, mapped. Raises ValueError with what is wrong.
    """
    found = []
    start = 0
    for path, count, own in zip(paths, part.shard_rows, outliers, strict=True):
        shard = _begun(path.parent / part.trained, part)
        at = slice(start, start + count)
        try:
            map_lists(path, shard)
            _check(shard, rows[at], own)
        except ValueError as fault:
            raise ValueError(f"{path.name} {fault}") from None
        found.append((shard, at))
        start = at.stop
    return found


def _begun(path: Path, part: SpacePart) -> Any:
    """The index without rows that the shards of `part` were begun with, its nprobe set to the
    part's."""
    trained = _read(path)
    try:
        _check_kind(trained, part)
    except ValueError as fault:
        raise ValueError(f"{path.name} {fault}") from None
    trained.nprobe = part.nprobe
    return trained


def _check(shard: Any, rows: NDArray[np.float16], outliers: NDArray[np.int64]) -> None:
    held = np.ones(len(rows), np.bool_)
    held[outliers] = False
    if not _holds_each(ids_of(shard), held):
        raise ValueError(f"has other ids than those of its rows, 0 to {len(rows) - 1}")
    _check_canary(shard, rows, np.flatnonzero(held))


def _read(path: Path) -> Any:
    """No vector in the file is longer than the file, and the tables that FAISS thinks of are not
    endless: it is told before it allocates one."""
    with _LIMIT:  # the limit is one for the whole process
        before = _faiss.get_deserialization_vector_byte_limit()
        limit = TRAINED_BYTES_FACTOR * path.stat().st_size
        _faiss.set_deserialization_vector_byte_limit(limit)
        try:
            return _faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path.name} is no FAISS index that this release reads") from error
        finally:
            _faiss.set_deserialization_vector_byte_limit(before)


def _check_kind(trained: Any, part: SpacePart) -> None:
    if not isinstance(trained, _faiss.IndexIVF):
        raise ValueError("is no IVF")
    if trained.d != part.dim:
        raise ValueError(f"holds vectors of dim {trained.d}, not {part.dim}")
    if trained.metric_type != _faiss.METRIC_INNER_PRODUCT:
        raise ValueError("does not search by inner product")
    if not trained.is_trained:
        raise ValueError("is not trained")
    if trained.ntotal:
        raise ValueError(f"holds {trained.ntotal} vectors instead of none")
    if part.nprobe < 1:
        raise ValueError("is an IVF, and the manifest gives it no nprobe")


def _holds_each(ids: NDArray[np.int64], held: NDArray[np.bool_]) -> bool:
    """Whether `ids` are the numbers of the rows that are `held`, each once and in any order."""
    if len(ids) != held.sum():
        return False
    seen = np.zeros(len(held), np.bool_)
    seen[ids[(ids >= 0) & (ids < len(held))]] = True
    return np.array_equal(seen, held)


# ---------------------------------------------------------------- the canary


def _check_canary(shard: Any, rows: NDArray[np.float16], held: NDArray[np.int64]) -> None:
    """Some of the rows that it holds, asked for as they are, must be found or have a near-copy
    found."""
    if not len(held):
        return
    some = held[np.linspace(0, len(held) - 1, CANARY_ROWS).astype(np.int64)]
    queries = rows[some].astype(np.float32)
    with one_thread():  # a few queries on many threads stall a server that is busy
        found = shard.search(queries, min(CANARY_CANDIDATES, len(rows)))[1]
    for query, row, candidates in zip(queries, some, found, strict=True):
        if row not in candidates and _best_cosine(query, rows, candidates) < CANARY_COSINE:
            raise ValueError(f"does not find its row {row} when asked for that row")


def _best_cosine(
    query: NDArray[np.float32], rows: NDArray[np.float16], candidates: NDArray[np.int64]
) -> float:
    near = rows[candidates[candidates >= 0]].astype(np.float32)
    return float(exact_cosines(np.broadcast_to(query, near.shape), near).max(initial=-1.0))

"""Index shards on disk: written without losing errors, and checked by a canary when they are read.

A shard is the trained index that all shards of a space have in common, a FAISS file without rows,
and a file of its own lists. FAISS checks little of what it reads: of damaged files 38 % load and
return other neighbours. So the SHA-256 of a file must have been checked before it is read here.
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
"""The least cosine of the best candidate for a stored row. Not 1: among hundreds of near copies
the row itself may not be a candidate, while in a broken shard the best one is far away. Chosen."""

_faiss: Any = faiss  # ships no types, and fills its namespace at run time

TRAINED_BYTES_FACTOR = 64
"""FAISS counts a table of the inner products of centres and codebooks against the limit: for 8-bit
codes it is 43 times as large as the centres, which are nearly all of an index without rows."""

_WRITE_BYTES = 1 << 20
_LIMIT = threading.Lock()


def write_index(path: Path, index: Any) -> None:
    """Write a FAISS index through a Python file, which reports a full disk; FAISS's own writer may
    lose the error of its last write."""
    with path.open("wb") as file:
        _faiss.write_index(index, _faiss.PyCallbackIOWriter(file.write, _WRITE_BYTES))


def read_shards(
    paths: Sequence[Path],
    part: SpacePart,
    rows: NDArray[np.float16],
    outliers: Sequence[NDArray[np.int64]],
) -> list[tuple[Any, slice]]:
    """Each shard of `part` with its range of `rows`, checked against them; the rows numbered in
    its `outliers` must not be in it.

    The lists stay in their files, mapped. Raises ValueError with what is wrong.
    """
    found = []
    start = 0
    for path, count, own in zip(paths, part.shard_rows, outliers, strict=True):
        shard = _trained_index(path.parent / part.trained, part)
        at = slice(start, start + count)
        try:
            map_lists(path, shard)
            _check(shard, rows[at], own)
        except ValueError as fault:
            raise ValueError(f"{path.name} {fault}") from None
        found.append((shard, at))
        start = at.stop
    return found


def _trained_index(path: Path, part: SpacePart) -> Any:
    """The trained index without rows of `part`, with the part's nprobe."""
    trained = _read(path)
    try:
        _check_kind(trained, part)
    except ValueError as fault:
        raise ValueError(f"{path.name} {fault}") from None
    trained.nprobe = part.nprobe
    return trained


def _check(shard: Any, rows: NDArray[np.float16], outliers: NDArray[np.int64]) -> None:
    indexed = np.ones(len(rows), np.bool_)
    indexed[outliers] = False
    if not _has_each_once(ids_of(shard), indexed):
        raise ValueError(f"has other ids than those of its rows, 0 to {len(rows) - 1}")
    _check_canary(shard, rows, np.flatnonzero(indexed))


def _read(path: Path) -> Any:
    """A FAISS index, read with a limit on what FAISS allocates: no vector in the file is longer
    than the file itself, and its tables are bounded (TRAINED_BYTES_FACTOR)."""
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


def _has_each_once(ids: NDArray[np.int64], indexed: NDArray[np.bool_]) -> bool:
    """Whether `ids` are the numbers of the rows in the mask, each once and in any order."""
    if len(ids) != indexed.sum():
        return False
    seen = np.zeros(len(indexed), np.bool_)
    seen[ids[(ids >= 0) & (ids < len(indexed))]] = True
    return np.array_equal(seen, indexed)


# ---------------------------------------------------------------- the canary


def _check_canary(shard: Any, rows: NDArray[np.float16], indexed: NDArray[np.int64]) -> None:
    """A search for a sample of its rows must find each of them, or a near copy."""
    if not len(indexed):
        return
    some = indexed[np.linspace(0, len(indexed) - 1, CANARY_ROWS).astype(np.int64)]
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

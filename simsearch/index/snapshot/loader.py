"""Snapshot loader: opens an immutable directory with the index at one seq of the bank's log.

It re-exports the other modules: `writer.py` makes snapshots, `directory.py` lists and switches
them, `manifest.py` describes one. FAISS and numpy read a file only after its size and SHA-256 were
checked against the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsearch.index.flat.cosine import LENGTH_TOLERANCE
from simsearch.index.npy_files import load_npy, map_npy
from simsearch.index.snapshot.directory import (
    bad,
    broken_snapshots,
    check_files,
    collect,
    current,
    list_snapshots,
    set_current,
)
from simsearch.index.snapshot.manifest import (
    FileSeal,
    Manifest,
    ManifestDraft,
    SignalPart,
    SpacePart,
)
from simsearch.index.snapshot.shards import CANARY_ROWS, read_shards
from simsearch.index.snapshot.writer import SnapshotWriter
from simsearch.types import BINARY_BYTES, Bits, Signal

__all__ = [
    "FileSeal",
    "Manifest",
    "ManifestDraft",
    "Shard",
    "SignalPart",
    "SignalRows",
    "Snapshot",
    "SnapshotWriter",
    "SpacePart",
    "SpaceRows",
    "broken_snapshots",
    "collect",
    "current",
    "list_snapshots",
    "open_snapshot",
    "set_current",
]


@dataclass(frozen=True, eq=False)
class Shard:
    """A FAISS index and its range of a space's rows: id i in the index is row i here. The rows
    numbered `outliers` (ascending) are not in the index."""

    index: Any
    rows: NDArray[np.float16]
    keys: NDArray[np.int64]
    groups: NDArray[np.uint32]
    outliers: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpaceRows:
    """The vectors of one space; row i of all arrays belong together.

    `rows` (n, dim) float16, `keys` int64, never descending, and `groups` uint32 are mapped from
    their files. `shards` split all three into ranges, in order; there are none where the part is
    searched exactly. `trained` is mapped too: the file of the trained index without rows, for
    faiss_io.from_bytes; None without shards.
    """

    part: SpacePart
    rows: NDArray[np.float16]
    keys: NDArray[np.int64]
    groups: NDArray[np.uint32]
    shards: tuple[Shard, ...]
    trained: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class SignalRows:
    """The hashes of one binary signal: `bits` (n, width) uint8, with `keys` and `groups` as in
    SpaceRows; all mapped."""

    part: SignalPart
    bits: Bits
    keys: NDArray[np.int64]
    groups: NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An open snapshot: read-only, for any number of threads. Mapped arrays stay readable when the
    directory is removed."""

    path: Path
    manifest: Manifest
    spaces: Mapping[str, SpaceRows]
    signals: Mapping[Signal, SignalRows]


def open_snapshot(path: Path) -> Snapshot:
    """The snapshot at `path`, every file checked. Raises BadSnapshot where a file is not as it was
    published, NewerFormat."""
    manifest = check_files(path)
    try:
        spaces = {part.space: _open_space(path, part) for part in manifest.spaces}
        signals = {part.signal: _open_signal(path, part) for part in manifest.signals}
    except (ValueError, EOFError, OSError) as error:
        raise bad(path, str(error)) from error
    return Snapshot(path, manifest, spaces, signals)


def _open_space(path: Path, part: SpacePart) -> SpaceRows:
    rows = map_npy(path / part.rows, np.float16, (part.count, part.dim))
    _require_unit(part.rows, rows)
    keys, groups = _open_owners(path, part)
    if not part.shards:
        return SpaceRows(part, rows, keys, groups, (), None)
    outliers = list(_open_outliers(path, part))
    read = read_shards([path / name for name in part.shards], part, rows, outliers)
    shards = tuple(
        Shard(index, rows[at], keys[at], groups[at], own)
        for (index, at), own in zip(read, outliers, strict=True)
    )
    trained = np.memmap(path / part.trained, np.uint8, "r")
    return SpaceRows(part, rows, keys, groups, shards, trained)


def _open_outliers(path: Path, part: SpacePart) -> Iterator[NDArray[np.int64]]:
    for name, count, rows in zip(part.outliers, part.outlier_counts, part.shard_rows, strict=True):
        outliers = load_npy(path / name, np.int64, (count,))
        if count and (outliers[0] < 0 or outliers[-1] >= rows or (np.diff(outliers) <= 0).any()):
            raise ValueError(f"{name} does not hold ascending numbers of rows")
        yield outliers


def _open_signal(path: Path, part: SignalPart) -> SignalRows:
    bits = map_npy(path / part.bits, np.uint8, (part.count, BINARY_BYTES[part.signal]))
    return SignalRows(part, bits, *_open_owners(path, part))


def _open_owners(
    path: Path, part: SpacePart | SignalPart
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    keys = map_npy(path / part.keys, np.int64, (part.count,))
    if (keys[1:] < keys[:-1]).any():
        raise ValueError(f"{part.keys} is not in order")
    return keys, map_npy(path / part.groups, np.uint32, (part.count,))


def _require_unit(name: str, rows: NDArray[np.float16]) -> None:
    """Checks a sample of rows: a builder normalises all rows or none."""
    some = rows[:: max(1, len(rows) // CANARY_ROWS)].astype(np.float32)
    if not (np.abs(np.linalg.norm(some, axis=1) - 1) <= LENGTH_TOLERANCE).all():
        raise ValueError(f"{name} holds vectors that are not of unit length")

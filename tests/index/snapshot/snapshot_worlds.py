"""Small snapshots with everything in them: an IVF-PQ of two shards, an exact space, hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np

from simsearch.index.ivf.faiss_io import copy_of
from simsearch.index.snapshot.disk import REAL_DISK, Disk
from simsearch.index.snapshot.loader import (
    ManifestDraft,
    SignalPart,
    Snapshot,
    SnapshotWriter,
    SpacePart,
)
from simsearch.index.snapshot.manifest import MANIFEST_FILE
from simsearch.types import Signal, Vectors
from tests.index.oracle import clustered_bits

_faiss: Any = faiss

STORE = "3f0e7c56-2d5c-4f4a-9a57-0d9f3f1d2b6c"
FINE, PLAIN = "fine@0123456789ab/none/16", "plain@ba9876543210/none/8"
SHARD_ROWS = 200
FACTORY = "IVF4,PQ8x4fs"
OUTLIERS = ((7, 50), (7, 50))

Document: TypeAlias = dict[str, Any]


def unit(seed: int, rows: int, dim: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    half: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return half.astype(np.float32)


def shard_of(
    vectors: Vectors,
    factory: str = FACTORY,
    outliers: Sequence[int] = (),
    begun_with: Any = None,
) -> Any:
    """With the ids 0 to n-1 less `outliers`."""
    index = trained_on(vectors, factory) if begun_with is None else copy_of(begun_with)
    held = np.setdiff1d(np.arange(len(vectors)), np.array(outliers, np.int64))
    threads = _faiss.omp_get_max_threads()
    _faiss.omp_set_num_threads(1)
    index.add_with_ids(vectors[held], held)
    _faiss.omp_set_num_threads(threads)
    return index


def trained_on(vectors: Vectors, factory: str = FACTORY) -> Any:
    """The few training rows are enough here, and FAISS need not warn."""
    index = _faiss.index_factory(vectors.shape[1], factory, _faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    threads = _faiss.omp_get_max_threads()
    _faiss.omp_set_num_threads(1)
    index.train(vectors)
    _faiss.omp_set_num_threads(threads)
    return index


def write_space(writer: SnapshotWriter, part: SpacePart, vectors: Vectors) -> None:
    writer.save_array(part.rows, vectors.astype(np.float16))
    writer.save_array(part.keys, np.arange(part.count, dtype=np.int64) // 2 + 1)
    writer.save_array(part.groups, (np.arange(part.count) % 3).astype(np.uint32))


def write_fine(writer: SnapshotWriter, seed: int) -> SpacePart:
    part = SpacePart.named(
        0,
        FINE,
        16,
        2 * SHARD_ROWS,
        factory=FACTORY,
        outlier_counts=tuple(map(len, OUTLIERS)),
        nprobe=4,
        score_sd=0.02,
    )
    vectors = unit(seed, part.count, part.dim)
    write_space(writer, part, vectors)
    trained = trained_on(vectors)
    writer.save_index(part.trained, trained)
    for shard, rows in enumerate(np.split(vectors, 2)):
        index = shard_of(rows, outliers=OUTLIERS[shard], begun_with=trained)
        writer.save_lists(part.shards[shard], index)
        writer.save_array(part.outliers[shard], np.array(OUTLIERS[shard]))
    return part


def write_plain(writer: SnapshotWriter, seed: int) -> SpacePart:
    part = SpacePart.named(1, PLAIN, 8, 40)
    write_space(writer, part, unit(seed, part.count, part.dim))
    return part


def write_hashes(writer: SnapshotWriter, seed: int) -> SignalPart:
    part = SignalPart.named(Signal.PDQ, 150)
    writer.save_array(part.bits, clustered_bits(np.random.default_rng(seed), part.count))
    writer.save_array(part.keys, np.arange(part.count, dtype=np.int64) // 2 + 1)
    writer.save_array(part.groups, np.ones(part.count, np.uint32))
    return part


def built(snapshots: Path, snapshot_id: str, seed: int = 0, disk: Disk = REAL_DISK) -> Path:
    """A published snapshot with all kinds of parts; built through seq 100 + seed."""
    writer = SnapshotWriter(snapshots, snapshot_id, disk)
    spaces = (write_fine(writer, seed), write_plain(writer, seed))
    return writer.publish(draft(seed, spaces, (write_hashes(writer, seed),)))


def built_small(snapshots: Path, snapshot_id: str, seed: int = 0, disk: Disk = REAL_DISK) -> Path:
    """A published snapshot without FAISS files."""
    writer = SnapshotWriter(snapshots, snapshot_id, disk)
    return writer.publish(draft(seed, (write_plain(writer, seed),), ()))


def draft(
    seed: int, spaces: tuple[SpacePart, ...], signals: tuple[SignalPart, ...]
) -> ManifestDraft:
    return ManifestDraft(
        STORE, 100 + seed, 1_000_000 + seed, spaces, signals, report={"recall": 0.999}
    )


def contents(snapshot: Snapshot) -> list[bytes]:
    """All rows, keys and groups: two snapshots of one seed have the same."""
    spaces = [a.tobytes() for s in snapshot.spaces.values() for a in (s.rows, s.keys, s.groups)]
    return spaces + [
        a.tobytes() for s in snapshot.signals.values() for a in (s.bits, s.keys, s.groups)
    ]


def edit_manifest(
    path: Path, change: Callable[[Document], None], *, reseal: bool = True, files: bool = False
) -> None:
    """Change the manifest as someone would who knows its format, own hash included or not.

    `files`: also take the files' sizes and hashes as they are now.
    """
    document = json.loads((path / MANIFEST_FILE).read_bytes())
    said = document.pop("sha256")
    change(document)
    if files:
        document["files"] = {
            name: {
                "bytes": len(data := (path / name).read_bytes()),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            for name in document["files"]
        }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["sha256"] = hashlib.sha256(canonical.encode()).hexdigest() if reseal else said
    (path / MANIFEST_FILE).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")

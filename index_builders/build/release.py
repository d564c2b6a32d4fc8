"""Release of snapshots: seal a build, publish it, roll back, collect what is not needed."""

from __future__ import annotations

from pathlib import Path

from index_builders.build.build_state import SCRATCH
from index_builders.build.resume import clear, removed_when_full
from index_builders.report.progress import Progress, count_progress, silent
from simsearch.errors import BadRequest, BadSnapshot
from simsearch.index.snapshot.loader import (
    Manifest,
    ManifestDraft,
    SnapshotWriter,
    current,
    list_snapshots,
    open_snapshot,
    set_current,
)


def seal(writer: SnapshotWriter, draft: ManifestDraft, progress: Progress = silent) -> Path:
    """Put the snapshot in place and open it once as a server would; CURRENT is untouched.

    Raises BadSnapshot, SnapshotFull; a build that there is no room for is removed.
    """
    files = [path for path in writer.path("").iterdir() if path.name not in SCRATCH]
    total = sum(path.stat().st_size for path in files)
    hashed = count_progress(progress, "hashing", total, "bytes")
    with removed_when_full(writer):
        path = writer.publish(draft, SCRATCH, hashed)
    progress("opening as a server would", 0, 0)
    open_snapshot(path)
    return path


def publish(snapshots: Path, snapshot_id: str, keep: int) -> list[str]:
    """Make it the current snapshot and remove old ones; returns the names of those removed."""
    set_current(snapshots, snapshot_id)
    return clear(snapshots, keep)


def rollback(snapshots: Path, to: str | None = None) -> str:
    """Serve an older snapshot: the one before the current, or `to`. The bank's log brings its
    answers up to date, so no edit is lost. Raises BadRequest, BadSnapshot."""
    chosen = to or _before(snapshots).id
    open_snapshot(snapshots / chosen)
    set_current(snapshots, chosen)
    return chosen


def named_or_current(snapshots: Path, name: str) -> str:
    """`name`, or the current snapshot where it is empty. Raises BadSnapshot if there is none."""
    chosen = name or current(snapshots)
    if chosen is None:
        raise BadSnapshot(f"nothing was published in {snapshots}: build a snapshot first")
    return chosen


def _before(snapshots: Path) -> Manifest:
    served = named_or_current(snapshots, "")
    ids = [manifest.id for manifest in list_snapshots(snapshots)]
    if served not in ids or ids.index(served) == 0:
        raise BadRequest(f"there is no snapshot older than {served}: name one, or build one")
    return list_snapshots(snapshots)[ids.index(served) - 1]

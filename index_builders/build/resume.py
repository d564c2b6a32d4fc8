"""Resumption and removal of dead builds.

A build that was killed, or refused for its recall, leaves its rows and finished shards. One that
the disk had no room for leaves nothing: the same disk must store the next ban.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from index_builders.build import build_state
from index_builders.build.build_state import BuildState
from index_builders.report import build_report
from simsearch.errors import BadSnapshot, BankLocked, NewerFormat, SnapshotFull
from simsearch.index.snapshot.directory import read_manifest
from simsearch.index.snapshot.disk import full_disk_named
from simsearch.index.snapshot.loader import SnapshotWriter, collect, current
from simsearch.index.snapshot.writer import BUILDING, REPORTS


def resumable_build(
    snapshots: Path, store_id: str, seq: int, fits: Callable[[BuildState], bool]
) -> tuple[SnapshotWriter, BuildState] | None:
    """The newest dead build of this bank that `fits`, is not ahead of `seq`, and is not behind the
    current snapshot; None if there is none.

    All other dead builds are removed: each would keep its rows on the disk for ever.
    """
    found = None
    oldest = _served_through(snapshots)
    for directory in sorted(snapshots.glob(f"{BUILDING}*"), reverse=True):
        try:
            writer = SnapshotWriter(snapshots, _id_of(directory))
        except BankLocked:
            continue  # its builder is alive
        done = build_state.load(directory)
        if (
            found is None
            and done is not None
            and done.store_id == store_id
            and oldest <= done.built_through <= seq
            and fits(done)
        ):
            found = writer, done
        else:
            writer.abandon()
    return found


@contextmanager
def removed_when_full(writer: SnapshotWriter) -> Iterator[None]:
    """Raises SnapshotFull for a full disk, after removing the build and its report."""
    directory = writer.path("")
    try:
        with full_disk_named(directory):
            yield
    except SnapshotFull:
        writer.abandon()
        build_report.remove(directory.parent, _id_of(directory))
        raise


def clear(snapshots: Path, keep: int) -> list[str]:
    """Remove old snapshots as `collect` does, and the reports of removed ones. The report of a
    refused build stays until a newer build is served. Returns the names removed."""
    removed = collect(snapshots, keep)
    served = current(snapshots) or ""
    for path in sorted((snapshots / REPORTS).glob("*")):
        if not _is_wanted(path, snapshots, served):
            path.unlink()
    return removed


def _is_wanted(path: Path, snapshots: Path, served: str) -> bool:
    name = Path(path.name.removesuffix(".tmp")).stem  # the builder may be alive, and writing it
    if name.endswith(build_report.REFUSED):
        return name > served
    return (snapshots / name).is_dir() or (snapshots / f"{BUILDING}{name}").is_dir()


def _served_through(snapshots: Path) -> int:
    try:
        served = current(snapshots)
        return read_manifest(snapshots / served).built_through if served else 0
    except (BadSnapshot, NewerFormat):
        return 0  # a new snapshot is what mends it


def _id_of(building: Path) -> str:
    return building.name.removeprefix(BUILDING)

"""Snapshot directory: listing, the CURRENT pointer, checking and garbage collection.

`CURRENT` holds the id that is served. `<id>/` is a snapshot: manifest.json and the files it lists,
never changed. `.building-<id>/` is being built, `.removing-<id>/` is being removed, `reports/`
holds the build reports.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from simsearch.errors import (
    BadRequest,
    BadSnapshot,
    BankLocked,
    NewerFormat,
    SimsearchError,
)
from simsearch.index.snapshot.disk import REAL_DISK, DirectoryLock, Disk, full_disk_named
from simsearch.index.snapshot.manifest import (
    MANIFEST_BYTES_MAX,
    MANIFEST_FILE,
    WHAT_TO_DO,
    Manifest,
    is_id,
    parse,
    require_id,
)
from simsearch.index.snapshot.writer import BUILDING, REMOVING, REPORTS, seal_of

CURRENT_FILE = "CURRENT"
CURRENT_BYTES_MAX = 128

_TEMPORARY = f"{CURRENT_FILE}.tmp"


def current(snapshots: Path) -> str | None:
    """The id of the snapshot that is served; None where there is no CURRENT.

    Raises BadSnapshot where CURRENT holds no id, or that of a snapshot that is not there.
    """
    path = snapshots / CURRENT_FILE
    try:
        with path.open("rb") as file:
            content = file.read(CURRENT_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadSnapshot(f"{path} cannot be read ({error.strerror}): {_POINT_IT}") from error
    snapshot_id = content.decode("ascii", "replace").removesuffix("\n")
    if content != f"{snapshot_id}\n".encode() or not is_id(snapshot_id):
        raise BadSnapshot(f"{path} holds no snapshot id: {_POINT_IT}")
    if not (snapshots / snapshot_id).is_dir():
        raise BadSnapshot(f"{path} names {snapshot_id}, which is not there: {_POINT_IT}")
    return snapshot_id


_POINT_IT = "point it at a snapshot that is there"


def set_current(snapshots: Path, snapshot_id: str, disk: Disk = REAL_DISK) -> None:
    """Make this the snapshot that is served; durable on return, and atomic in a power cut.

    Raises BadRequest for an invalid id, BadSnapshot or NewerFormat where its files are not those of
    its manifest, BankLocked while another process works on the directory, SnapshotFull.
    """
    require_id(snapshot_id)
    with _locked(snapshots), full_disk_named(snapshots):
        check_files(snapshots / snapshot_id)
        temporary = snapshots / _TEMPORARY
        try:
            disk.write(temporary, f"{snapshot_id}\n".encode())
            disk.sync_file(temporary)
            disk.rename(temporary, snapshots / CURRENT_FILE)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        disk.sync_directory(snapshots)


def list_snapshots(snapshots: Path) -> list[Manifest]:
    """The snapshots whose manifest and file sizes are valid, newest last; contents are not read."""
    found = (_sound(path) for path in _published(snapshots))
    manifests = [manifest for manifest in found if isinstance(manifest, Manifest)]
    return sorted(manifests, key=lambda manifest: (manifest.created_us, manifest.id))


def broken_snapshots(snapshots: Path) -> dict[str, SimsearchError]:
    """The snapshots that list_snapshots leaves out, each with its BadSnapshot or NewerFormat."""
    found = ((path.name, _sound(path)) for path in _published(snapshots))
    return {name: fault for name, fault in found if isinstance(fault, SimsearchError)}


def _published(snapshots: Path) -> Iterator[Path]:
    if snapshots.is_dir():
        ids = (p for p in snapshots.iterdir() if is_id(p.name) and p.name != REPORTS)
        yield from sorted(p for p in ids if p.is_dir())


def _sound(path: Path) -> Manifest | SimsearchError:
    try:
        manifest = read_manifest(path)
        _check_listing(path, manifest)
    except (BadSnapshot, NewerFormat) as fault:
        return fault
    return manifest


# ---------------------------------------------------------------- checking one


def check_files(path: Path) -> Manifest:
    """The manifest of the snapshot at `path`, after every file's size and SHA-256 was checked.

    Raises BadSnapshot or NewerFormat.
    """
    manifest = read_manifest(path)
    _check_listing(path, manifest)
    try:
        changed = [n for n, seal in manifest.files.items() if seal_of(path / n) != seal]
    except OSError as error:
        raise bad(path, f"cannot be read ({error.strerror})") from error
    if changed:
        raise bad(path, f"{changed[0]} is not what was published: its SHA-256 is another")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of the snapshot at `path`; no other file is read. Raises BadSnapshot,
    NewerFormat."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise bad(path, "is no directory")
        size = _regular_size(path, MANIFEST_FILE)
        if size > MANIFEST_BYTES_MAX:
            raise bad(path, f"{MANIFEST_FILE} has {size} bytes")
        data = (path / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise bad(path, f"{MANIFEST_FILE} cannot be read ({error.strerror})") from error
    manifest = parse(data, f"snapshot {path}")
    if manifest.id != path.name:
        raise bad(path, f"{MANIFEST_FILE} is that of snapshot {manifest.id}")
    return manifest


def bad(path: Path, what: str) -> BadSnapshot:
    """The error for the snapshot at `path`, with what to do."""
    return BadSnapshot(f"snapshot {path}: {what}: {WHAT_TO_DO}")


def _check_listing(path: Path, manifest: Manifest) -> None:
    """Raises BadSnapshot unless the files are those listed: regular, and of the listed sizes."""
    try:
        found = set(os.listdir(path)) - {MANIFEST_FILE}
        if wrong := sorted(found ^ manifest.files.keys()):
            raise bad(path, f"{wrong[0]} is {'extra' if wrong[0] in found else 'missing'}")
        for name, seal in manifest.files.items():
            size = _regular_size(path, name)
            if size != seal.bytes:
                raise bad(path, f"{name} has {size} bytes instead of {seal.bytes}")
    except OSError as error:
        raise bad(path, f"cannot be read ({error.strerror})") from error


def _regular_size(path: Path, name: str) -> int:
    status = (path / name).lstat()
    if not stat.S_ISREG(status.st_mode):
        raise bad(path, f"{name} is no regular file")
    return status.st_size


# ---------------------------------------------------------------- removing


def collect(snapshots: Path, keep: int, disk: Disk = REAL_DISK) -> list[str]:
    """Garbage collection: remove snapshots that are neither served nor among the newest `keep`, and
    the directories of builds that died.

    A broken snapshot is removed too, unless it is served; one of a newer release stays. Returns the
    names that were removed. Raises BadSnapshot where CURRENT cannot be read.
    """
    if keep < 0:
        raise BadRequest(f"cannot keep {keep} snapshots: give 0 or more")
    if not snapshots.is_dir():
        return []
    with _locked(snapshots):
        (snapshots / _TEMPORARY).unlink(missing_ok=True)
        removed = [_mark_removed(path, disk) for path in _superfluous(snapshots, keep)]
        removed += list(_abandoned_builds(snapshots, disk))
        # After a power cut a half-removed snapshot must not reappear under its own name.
        disk.sync_directory(snapshots)
        for path in snapshots.glob(f"{REMOVING}*"):
            shutil.rmtree(path)
    return removed


def _superfluous(snapshots: Path, keep: int) -> list[Path]:
    good = [manifest.id for manifest in list_snapshots(snapshots)]
    broken = [
        name
        for name, fault in broken_snapshots(snapshots).items()
        if isinstance(fault, BadSnapshot) and (snapshots / name / MANIFEST_FILE).exists()
    ]
    old = good[: max(0, len(good) - keep)]
    served = current(snapshots)
    return [snapshots / name for name in (*old, *broken) if name != served]


def _abandoned_builds(snapshots: Path, disk: Disk) -> Iterator[str]:
    for path in sorted(snapshots.glob(f"{BUILDING}*")):
        try:
            with DirectoryLock(path):
                yield _mark_removed(path, disk)
        except BankLocked:
            continue  # its builder is alive


def _mark_removed(path: Path, disk: Disk) -> str:
    marked = path.with_name(f"{REMOVING}{path.name}")
    shutil.rmtree(marked, ignore_errors=True)
    disk.rename(path, marked)
    return path.name


def _locked(snapshots: Path) -> DirectoryLock:
    try:
        return DirectoryLock(snapshots)
    except FileNotFoundError:
        raise BadSnapshot(f"there is no directory {snapshots}: build a snapshot first") from None

"""The directory of snapshots: which there are, which one is served, which may go.

`CURRENT` holds the id that is served. `<id>/` is a snapshot: manifest.json and the files it lists,
never changed. `.building-<id>/` is being built, `.removing-<id>/` is being removed, `reports/` is
what builders tell of their snapshots.
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
    """The id that is served; None where none ever was.

    Raises BadSnapshot where CURRENT holds no id, or that of a snapshot that is not there.
    """
    path = snapshots / CURRENT_FILE
    try:
        with path.open("rb") as file:
            said = file.read(CURRENT_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadSnapshot(f"{path} cannot be read ({error.strerror}): {_POINT_IT}") from error
    snapshot_id = said.decode("ascii", "replace").removesuffix("\n")
    if said != f"{snapshot_id}\n".encode() or not is_id(snapshot_id):
        raise BadSnapshot(f"{path} holds no snapshot id: {_POINT_IT}")
    if not (snapshots / snapshot_id).is_dir():
        raise BadSnapshot(f"{path} names {snapshot_id}, which is not there: {_POINT_IT}")
    return snapshot_id


_POINT_IT = "point it at a snapshot that is there"


def set_current(snapshots: Path, snapshot_id: str, disk: Disk = REAL_DISK) -> None:
    """Serve this one from now on; durable on return, and all or nothing in a power cut.

    Raises BadRequest, BadSnapshot or NewerFormat where the id is none or its files are not what
    its manifest says, BankLocked while another process works on the directory, SnapshotFull.
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
    """Those whose manifest and file sizes are sound, newest last; contents are not read."""
    found = (_sound(path) for path in _published(snapshots))
    manifests = [manifest for manifest in found if isinstance(manifest, Manifest)]
    return sorted(manifests, key=lambda manifest: (manifest.created_us, manifest.id))


def broken_snapshots(snapshots: Path) -> dict[str, SimsearchError]:
    """What list_snapshots leaves out, with the reason: BadSnapshot or NewerFormat."""
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
    """As it stands in the directory; the other files are not looked at."""
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
    return BadSnapshot(f"snapshot {path}: {what}: {WHAT_TO_DO}")


def _check_listing(path: Path, manifest: Manifest) -> None:
    """No file missing, none too many, none a link, each as long as it was."""
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
    """Remove what is neither served nor among the newest `keep`, and what dead builds left.

    A broken snapshot goes too, unless it is served; one of a newer release stays. Returns the
    names of what was removed. Raises BadSnapshot where it is not clear which one is served.
    """
    if keep < 0:
        raise BadRequest(f"cannot keep {keep} snapshots: give 0 or more")
    if not snapshots.is_dir():
        return []
    with _locked(snapshots):
        (snapshots / _TEMPORARY).unlink(missing_ok=True)
        removed = [_set_aside(path, disk) for path in _superfluous(snapshots, keep)]
        removed += list(_abandoned_builds(snapshots, disk))
        # What half a removal leaves must not come back under a snapshot's name.
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
                yield _set_aside(path, disk)
        except BankLocked:
            continue  # its builder is alive


def _set_aside(path: Path, disk: Disk) -> str:
    aside = path.with_name(f"{REMOVING}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    disk.rename(path, aside)
    return path.name


def _locked(snapshots: Path) -> DirectoryLock:
    try:
        return DirectoryLock(snapshots)
    except FileNotFoundError:
        raise BadSnapshot(f"there is no directory {snapshots}: build a snapshot first") from None

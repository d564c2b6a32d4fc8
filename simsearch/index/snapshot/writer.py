"""Snapshot writer: files are written to a hidden directory, hashed, and published by one rename.

Before that rename there is no snapshot; after it there is a complete one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadRequest, BadSnapshot
from simsearch.index.ivf.mapped_lists import write_lists
from simsearch.index.npy_files import write_npy
from simsearch.index.snapshot.disk import REAL_DISK, DirectoryLock, Disk, full_disk_named
from simsearch.index.snapshot.manifest import (
    MANIFEST_FILE,
    FileSeal,
    ManifestDraft,
    render,
    require_id,
    sealed,
)
from simsearch.index.snapshot.shards import write_index

BUILDING = ".building-"
REMOVING = ".removing-"

REPORTS = "reports"
"""The directory of build reports, beside the snapshots: no snapshot may have this name."""

HASH_BYTES = 1 << 20


class SnapshotWriter:
    """Fills `<snapshots>/.building-<id>/` and publishes it as `<snapshots>/<id>/`.

    A directory left by a build that died is resumed, with the files in it. One process at a time:
    the directory is locked until publish, abandon or the end of the process.
    """

    def __init__(self, snapshots: Path, snapshot_id: str, disk: Disk = REAL_DISK) -> None:
        """Raises BadRequest for an id that is invalid or taken, BankLocked, SnapshotFull."""
        require_id(snapshot_id)
        self._id = snapshot_id
        self._snapshots = snapshots
        self._disk = disk
        self._require_new()
        self._building = snapshots / f"{BUILDING}{snapshot_id}"
        with full_disk_named(self._building):
            make_durable_directory(snapshots, disk)
            with suppress(FileExistsError):
                disk.make_directory(self._building)
        self._lock = DirectoryLock(self._building)

    def path(self, name: str) -> Path:
        """Where the file `name` is to be written."""
        return self._building / name

    def save_array(self, name: str, array: NDArray[Any]) -> None:
        """Write an array. Raises SnapshotFull."""
        self.save_rows(name, array.dtype.type, array.shape, [array])

    def save_rows(
        self,
        name: str,
        dtype: type[np.generic],
        shape: tuple[int, ...],
        chunks: Iterable[NDArray[Any]],
    ) -> None:
        """Write an array of `shape` that need not fit into memory. Raises SnapshotFull."""
        with full_disk_named(self._building):
            write_npy(self.path(name), dtype, shape, chunks)

    def save_index(self, name: str, index: Any) -> None:
        """Write a FAISS index without rows. Raises SnapshotFull, unlike faiss.write_index."""
        with full_disk_named(self._building):
            write_index(self.path(name), index)

    def save_lists(self, name: str, index: Any) -> None:
        """Write the lists of a filled copy of a saved index. Raises SnapshotFull."""
        with full_disk_named(self._building):
            write_lists(self.path(name), index)

    def publish(
        self,
        manifest: ManifestDraft,
        scratch: Collection[str] = (),
        progress: Callable[[int], None] = lambda _: None,
    ) -> Path:
        """Hash the files that `manifest` names and publish the snapshot: it is durable on return,
        and not served yet. Raises SnapshotFull; BadSnapshot where files are missing or unexpected.

        `scratch` are files of the build itself: they are removed last, so that a build which dies
        while files are hashed can be resumed. `progress` is called with how many more bytes were
        hashed.
        """
        self._require_new()
        self._require_files(manifest.file_names(), scratch)
        with full_disk_named(self._building):
            files = {name: self._seal(name, progress) for name in manifest.file_names()}
            for name in scratch:
                self.path(name).unlink(missing_ok=True)
            self._write_manifest(render(sealed(self._id, manifest, files)))
            target = self._snapshots / self._id
            self._disk.rename(self._building, target)
            self._disk.sync_directory(self._snapshots)
        self._lock.release()
        return target

    def abandon(self) -> None:
        """Remove the unpublished files; after publish there are none.

        Renamed first: a half-removed build must not be taken for one that can be resumed.
        """
        removing = self._snapshots / f"{REMOVING}{self._building.name}"
        with suppress(FileNotFoundError):
            shutil.rmtree(removing, ignore_errors=True)
            self._building.rename(removing)
        shutil.rmtree(removing, ignore_errors=True)
        self._lock.release()

    # ------------------------------------------------------------ steps

    def _require_new(self) -> None:
        if self._id == REPORTS or os.path.lexists(self._snapshots / self._id):
            raise BadRequest(
                f"there is a snapshot {self._id} in {self._snapshots}: choose another id"
            )

    def _require_files(self, names: Iterable[str], scratch: Collection[str]) -> None:
        found = {entry.name for entry in self._building.iterdir()} - {MANIFEST_FILE, *scratch}
        if wrong := sorted(found ^ set(names)):
            there = "is there and not in the manifest" if wrong[0] in found else "was not written"
            raise BadSnapshot(f"snapshot {self._building}: {wrong[0]} {there}: build it again")

    def _seal(self, name: str, progress: Callable[[int], None]) -> FileSeal:
        path = self.path(name)
        self._disk.sync_file(path)
        return seal_of(path, progress)

    def _write_manifest(self, data: bytes) -> None:
        path = self.path(MANIFEST_FILE)
        self._disk.write(path, data)
        self._disk.sync_file(path)
        self._disk.sync_directory(self._building)


def seal_of(path: Path, progress: Callable[[int], None] = lambda _: None) -> FileSeal:
    """Size and SHA-256 of a file, which may not be a link; `progress` gets the bytes read."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", opener=_open_no_link) as file:
        while data := file.read(HASH_BYTES):
            digest.update(data)
            size += len(data)
            progress(len(data))
    return FileSeal(size, digest.hexdigest())


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def make_durable_directory(path: Path, disk: Disk = REAL_DISK) -> None:
    """Make the directory and its parents; durable on return."""
    if not path.is_dir():
        make_durable_directory(path.parent, disk)
        with suppress(FileExistsError):
            disk.make_directory(path)
        disk.sync_directory(path.parent)

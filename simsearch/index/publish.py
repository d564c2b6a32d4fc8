"""The batch side of a snapshot: files are gathered in a hidden directory, sealed, and put in place.

Whatever happens before the last rename, there is no snapshot; after it there is a whole one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simsearch.errors import BadRequest, BadSnapshot
from simsearch.index.disk import REAL_DISK, DirectoryLock, Disk, full_disk_named
from simsearch.index.manifest import (
    MANIFEST_FILE,
    FileSeal,
    ManifestDraft,
    render,
    require_id,
    sealed,
)
from simsearch.index.npy_files import write_npy
from simsearch.index.shard_files import write_shard

BUILDING = ".building-"


class SnapshotWriter:
    """Fills `<snapshots>/.building-<id>/` and publishes it as `<snapshots>/<id>/`.

    A directory left by a build that died is taken up again, with the files in it. One process
    at a time: the directory is locked until publish, abandon or the end of the process.
    """

    def __init__(self, snapshots: Path, snapshot_id: str, disk: Disk = REAL_DISK) -> None:
        """Raises BadRequest for an id that is none or is taken, BankLocked, SnapshotFull."""
        require_id(snapshot_id)
        self._id = snapshot_id
        self._snapshots = snapshots
        self._disk = disk
        self._require_new()
        self._building = snapshots / f"{BUILDING}{snapshot_id}"
        with full_disk_named(self._building):
            _make_durable_directory(disk, snapshots)
            with suppress(FileExistsError):
                disk.make_directory(self._building)
        self._lock = DirectoryLock(self._building)

    def path(self, name: str) -> Path:
        """Where the file `name` is to be written."""
        return self._building / name

    def save_array(self, name: str, array: NDArray[Any]) -> None:
        """Raises SnapshotFull."""
        self.save_rows(name, array.dtype.type, array.shape, [array])

    def save_rows(
        self,
        name: str,
        dtype: type[np.generic],
        shape: tuple[int, ...],
        chunks: Iterable[NDArray[Any]],
    ) -> None:
        """An array of `shape` that need not fit into memory at once. Raises SnapshotFull."""
        with full_disk_named(self._building):
            write_npy(self.path(name), dtype, shape, chunks)

    def save_index(self, name: str, index: Any) -> None:
        """A FAISS index. Raises SnapshotFull, where faiss.write_index may stay silent."""
        with full_disk_named(self._building):
            write_shard(self.path(name), index)

    def publish(self, manifest: ManifestDraft) -> Path:
        """Seal the files that `manifest` names and put the snapshot in place; it is durable, and
        not yet served. Raises SnapshotFull; BadSnapshot where files are missing or too many."""
        self._require_new()
        self._require_files(manifest.file_names())
        with full_disk_named(self._building):
            files = {name: self._seal(name) for name in manifest.file_names()}
            self._write_manifest(render(sealed(self._id, manifest, files)))
            target = self._snapshots / self._id
            self._disk.rename(self._building, target)
            self._disk.sync_directory(self._snapshots)
        self._lock.release()
        return target

    def abandon(self) -> None:
        """Remove what was gathered; after publish there is nothing left to remove."""
        shutil.rmtree(self._building, ignore_errors=True)
        self._lock.release()

    # ------------------------------------------------------------ steps

    def _require_new(self) -> None:
        if os.path.lexists(self._snapshots / self._id):
            raise BadRequest(
                f"there is a snapshot {self._id} in {self._snapshots}: choose another id"
            )

    def _require_files(self, names: Iterable[str]) -> None:
        found = {entry.name for entry in self._building.iterdir()} - {MANIFEST_FILE}
        if wrong := sorted(found ^ set(names)):
            there = "is there and not in the manifest" if wrong[0] in found else "was not written"
            raise BadSnapshot(f"snapshot {self._building}: {wrong[0]} {there}: build it again")

    def _seal(self, name: str) -> FileSeal:
        path = self.path(name)
        self._disk.sync_file(path)
        return seal_of(path)

    def _write_manifest(self, data: bytes) -> None:
        path = self.path(MANIFEST_FILE)
        self._disk.write(path, data)
        self._disk.sync_file(path)
        self._disk.sync_directory(self._building)


def seal_of(path: Path) -> FileSeal:
    """Size and SHA-256 of a file, which may not be a link."""
    with open(path, "rb", opener=_open_no_link) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSeal(file.tell(), digest)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _make_durable_directory(disk: Disk, path: Path) -> None:
    if not path.is_dir():
        _make_durable_directory(disk, path.parent)
        with suppress(FileExistsError):
            disk.make_directory(path)
        disk.sync_directory(path.parent)

"""File system operations of publishing, as a protocol that tests replace to simulate power cuts;
and the lock of a directory."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from simsearch.errors import BankLocked, SnapshotFull

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Disk(Protocol):
    """The operations whose order decides what a power cut leaves behind."""

    def make_directory(self, path: Path) -> None:
        """Raises FileExistsError where it is there already."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Make or replace a file. Not durable before sync_file and sync_directory."""
        ...

    def sync_file(self, path: Path) -> None:
        """The file's content survives a power cut; its name in the directory may not."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Names made, renamed and removed in the directory survive a power cut."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Atomic. Not durable before sync_directory."""
        ...


class RealDisk:
    """Disk that uses the operating system's file system."""

    def make_directory(self, path: Path) -> None:
        """With mode 700."""
        path.mkdir(mode=0o700)

    def write(self, path: Path, data: bytes) -> None:
        """Without fsync."""
        path.write_bytes(data)

    def sync_file(self, path: Path) -> None:
        """By fsync."""
        _sync(path)

    def sync_directory(self, path: Path) -> None:
        """By fsync."""
        _sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """By rename(2)."""
        old.rename(new)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


REAL_DISK = RealDisk()


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns the OSErrors of a full disk into SnapshotFull, which names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise SnapshotFull(
            f"no disk space for the snapshot at {path}: free some or collect old snapshots, then "
            "build again; the snapshot that is served was not touched"
        ) from error


class DirectoryLock:
    """Exclusive flock on a directory; the kernel releases it when the process dies."""

    def __init__(self, path: Path) -> None:
        """Does not wait. Raises BankLocked where another process holds it."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(self._descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            same = False
        except BaseException:
            self.release()
            raise
        if not same:  # held, or replaced between opening and locking
            self.release()
            raise BankLocked(f"another process is at work on {path}: wait for it, then try again")

    def release(self) -> None:
        """Unlock; may be called more than once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        with suppress(AttributeError):  # the directory could not be opened
            self.release()

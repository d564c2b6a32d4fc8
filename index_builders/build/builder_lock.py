"""Builder lock: one build at a time on one data_dir, since two could resume the same dead build."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simsearch.errors import BankLocked
from simsearch.index.snapshot.disk import full_disk_named
from simsearch.index.snapshot.writer import make_durable_directory

LOCK_FILE = ".builder.lock"


@contextmanager
def only_builder(snapshots: Path) -> Iterator[None]:
    """Hold an flock on a file in `snapshots`; the kernel releases it when the process dies.

    Does not wait. Raises BankLocked with the pid of the running builder, SnapshotFull.
    """
    with full_disk_named(snapshots):
        make_durable_directory(snapshots)
        path = snapshots / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, snapshots)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, snapshots: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise BankLocked(
            f"process {holder} is building in {snapshots}: wait until it has ended, or stop it; "
            "the next build takes up what it leaves"
        ) from None
    with full_disk_named(snapshots):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

"""Who may do what when: one writing process, and no read while the memory map moves."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simsearch.bank.records.keys import WRITER_LOCK_FILE
from simsearch.errors import BankLocked, Overloaded


class WriterLock:
    """An flock on a file of the data directory, let go by the kernel when its holder dies.

    A child forked without exec would keep it: open the store after forking.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, directory: Path) -> WriterLock:
        """Raises BankLocked, with the pid of the holder."""
        path = directory / WRITER_LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BankLocked(
                f"process {holder} is writing to {directory}: send edits to that server, or stop "
                "it first"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Releases the lock; to be called once."""
        os.close(self._descriptor)


class MapResizeLock:
    """Lets many in together, or one alone. Not re-entrant: who is in must not enter again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._is_exclusive = False

    def __enter__(self) -> None:
        with self._changed:
            while self._is_exclusive:
                self._changed.wait()
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._readers -= 1
            if self._is_exclusive:
                self._changed.notify_all()

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """Keeps others out and waits until those inside have left; raises Overloaded."""
        with self._changed:
            self._wait_for(lambda: not self._is_exclusive, timeout_s)
            self._is_exclusive = True
        try:
            with self._changed:
                self._wait_for(lambda: self._readers == 0, timeout_s)
            yield
        finally:
            with self._changed:
                self._is_exclusive = False
                self._changed.notify_all()

    def _wait_for(self, free: Callable[[], bool], timeout_s: float) -> None:
        if not self._changed.wait_for(free, timeout_s):
            raise Overloaded(f"reads have not ended in {timeout_s:g} s: try again")

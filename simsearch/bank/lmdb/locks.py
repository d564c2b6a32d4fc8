"""Locks: one writing process per store, and no transaction while the memory map is resized."""

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
    """An flock on a file of the data directory; the kernel releases it when the process dies.

    A child forked without exec inherits it, so open the store after forking.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, directory: Path) -> WriterLock:
        """Raises BankLocked, with the pid of the process that has the lock."""
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
    """A shared lock for transactions, exclusive for resizing the map. Not re-entrant."""

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
        """Blocks new shared holders and waits for the present ones. Raises Overloaded after
        `timeout_s`."""
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

"""File reloader: a value read from files, and read again when they change.

A change that cannot be read is logged, and the last good value stays.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from simsearch.errors import SimsearchError
from simsearch.telemetry import EventLog

log = EventLog(__name__)

T = TypeVar("T")
_Mark: TypeAlias = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class ReloadCounts:
    """Changes of the files that were applied, and that could not be read."""

    taken: int = 0
    refused: int = 0


class FileReloader(Generic[T]):
    """Checks its files in `current`, at most once in `every_s` seconds; safe from any thread."""

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`what` names the files in the log. Raises what `read` raises, so that a server does not
        start with a broken file."""
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._marks = self._look()
        self._value = read()
        self._taken = self._refused = 0

    @property
    def counts(self) -> ReloadCounts:
        """Reloads since the start."""
        return ReloadCounts(self._taken, self._refused)

    def current(self) -> T:
        """The value of the newest files that could be read."""
        if self._clock() - self._looked >= self._every_s and self._lock.acquire(blocking=False):
            try:
                self._reload_if_changed()
            finally:
                self._lock.release()
        return self._value

    def _reload_if_changed(self) -> None:
        self._looked = self._clock()
        marks = self._look()
        if marks == self._marks:
            return
        self._marks = marks  # before reading: a change during it is seen the next time
        try:
            self._value = self._read()
        except SimsearchError as fault:
            self._refused += 1
            log.error("reload_refused", what=self._what, fault=fault.message)
        else:
            self._taken += 1
            log.warning("reloaded", what=self._what)

    def _look(self) -> list[_Mark]:
        return [_mark(path) for path in self._paths]


def _mark(path: Path) -> _Mark:
    """Differs once a file is written to or replaced, or a link to it points elsewhere."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

"""Resources of a build: seconds by stage, and peak memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")
EVERY_S = 0.2


class Stopwatch:
    """Seconds by stage. A stage inside another stops the clock of the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage `name`."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        """Add the time since the last turn to the innermost stage."""
        now = time.monotonic()
        if self._running:
            stage = self._running[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


class MemoryPeak:
    """Peak of anonymous memory within the block, sampled on a thread of its own.

    Mapped files do not count: they are page cache, which the system can reclaim.
    """

    def __init__(self, status: Path = STATUS, every_s: float = EVERY_S) -> None:
        self._status = status
        self._every_s = every_s
        self._highest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-peak", daemon=True)

    @property
    def bytes(self) -> int | None:
        """The peak; None where the system does not report it."""
        return self._highest or None

    def __enter__(self) -> MemoryPeak:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return
        held = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
        self._highest = max(self._highest, 1024 * int(next(held, "0")))

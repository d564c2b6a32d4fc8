"""What a build costs: seconds by stage, and the most memory that it held."""

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
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        """What passed since the last turn was the innermost stage's."""
        now = time.monotonic()
        if self._running:
            stage = self._running[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now


class MemoryPeak:
    """The most anonymous memory seen while it is entered, sampled on a thread of its own.

    Anonymous, since mapped files are page cache: the system takes that back whenever it wants.
    """

    def __init__(self, status: Path = STATUS, every_s: float = EVERY_S) -> None:
        self._status = status
        self._every_s = every_s
        self._highest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-peak", daemon=True)

    @property
    def bytes(self) -> int | None:
        """None where the system does not say."""
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

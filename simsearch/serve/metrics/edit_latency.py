"""Edit latency: the time from a commit to the first view that shows the edit."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from prometheus_client import Histogram

from simsearch.bank.store import BankStore
from simsearch.live.follower import Follower

EDITS_WATCHED_MAX: Final = 10_000
"""Edits that are timed at the same time; of more, the oldest are not timed."""

WAIT_S: Final = 1.0
"""Longest wait for the view before the thread looks whether it should stop."""


class EditLatency:
    """Observes the latency of every edit of this process, in a thread, until `close`."""

    def __init__(self, store: BankStore, follower: Follower, seconds: Histogram) -> None:
        """`seconds` gets one observation an edit."""
        self._seconds = seconds
        self._follower = follower
        self._edits: deque[tuple[int, float]] = deque(maxlen=EDITS_WATCHED_MAX)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="edit-latency", daemon=True)
        self._thread.start()
        store.subscribe(self._edited)

    def close(self) -> None:
        """Stop the thread; edits that are not visible yet are not observed."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _edited(self, seq: int) -> None:
        self._edits.append((seq, time.monotonic()))
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            while self._edits and not self._stopping:
                self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        if not self._follower.wait_for(self._edits[0][0], WAIT_S):
            return
        seen, now = self._follower.view.seq, time.monotonic()
        while self._edits and self._edits[0][0] <= seen:
            self._seconds.observe(now - self._edits.popleft()[1])

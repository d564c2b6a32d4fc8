"""Expiry worker: retracts bans that have expired and ends quarantines that are over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from simsearch.bank.store import BankStore
from simsearch.errors import SimsearchError
from simsearch.telemetry import EventLog

log = EventLog(__name__)

INTERVAL_S: Final = 1.0


class ExpiryWorker:
    """A thread that runs once a second, from `start` to `close`."""

    def __init__(self, store: BankStore, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._store = store
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="expiry-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            try:
                self.run_once()
            except SimsearchError as fault:  # such as a full disk: the next run tries again
                log.error("due_entries_failed", reason=fault.reason)

    def run_once(self) -> None:
        """Expire what is due now. Raises the faults of an edit."""
        expired = self._store.apply_due(int(self._clock() * 1e6))
        if expired:
            log.info("due_entries_settled", rows=expired)

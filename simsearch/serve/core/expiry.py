"""What happens because its time has come: bans expire, quarantines end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from simsearch.bank.store import BankStore
from simsearch.errors import SimsearchError
from simsearch.telemetry import EventLog

log = EventLog(__name__)

LOOK_S: Final = 1.0


class ExpiryWorker:
    """Looks once a second, in a thread of its own, from `start` to `close`."""

    def __init__(self, store: BankStore, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._store = store
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timekeeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except SimsearchError as fault:  # as of a full disk: it is tried again
                log.error("due_entries_failed", reason=fault.reason)

    def look(self) -> None:
        """Do what is due. Raises what an edit raises."""
        done = self._store.settle_due(int(self._clock() * 1e6))
        if done:
            log.info("due_entries_settled", rows=done)

"""Keeps the view up with the bank's log: an acknowledged edit is matchable without a restart.

One thread moves a replica along the log and replaces one reference. It is woken by commits of
this process and polls for those of others.
"""

from __future__ import annotations

import threading
import time

from simsearch.bank.store import BankStore
from simsearch.errors import InternalFault, NotReady, SimsearchError
from simsearch.live.replica import Replica
from simsearch.live.view import View
from simsearch.telemetry import EventLog

log = EventLog(__name__)

POLL_S = 0.5
READER_CHECK_S = 60.0


class Follower:
    """Owns the current view. `start` loads it; `view` is a plain attribute read, no lock."""

    def __init__(self, store: BankStore) -> None:
        self._store = store
        self._replica: Replica | None = None
        self._view: View | None = None
        self._wake = threading.Event()
        self._moved = threading.Condition()
        self._stopping = False
        self._fault: SimsearchError | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    @property
    def view(self) -> View:
        """The newest view. Raises NotReady before `start` is through."""
        if self._view is None:
            raise NotReady("the index is still loading: ask again in a moment")
        return self._view

    @property
    def fault(self) -> SimsearchError | None:
        """Why the view no longer moves; None while it does."""
        return self._fault

    def start(self) -> None:
        """Load every active entry, then follow the log in the background."""
        self._store.subscribe(lambda _: self._wake.set())
        self._publish(self._loaded())
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait_for(self, seq: int, timeout_s: float) -> bool:
        """True once searches see the change `seq`; False when that took longer than allowed."""
        with self._moved:
            return self._moved.wait_for(lambda: self.view.seq >= seq, timeout_s)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        checked = time.monotonic()
        while not self._stopping:
            self._wake.wait(POLL_S)
            self._wake.clear()
            self._catch_up()
            if time.monotonic() - checked > READER_CHECK_S:
                self._store.clear_stale_readers()
                checked = time.monotonic()

    def _catch_up(self) -> None:
        """Apply what there is; after a fault start over from the bank, which is the truth."""
        try:
            replica = self._replica or self._loaded()
            if replica is not self._replica:
                self._publish(replica)
            while not self._stopping and replica.step():
                self._publish(replica)
            self._fault = None
        except SimsearchError as fault:
            self._failed(fault)
        except Exception as fault:
            # The thread's edge: without this it would die and the view stand still in silence.
            self._failed(InternalFault(f"the follower failed: {type(fault).__name__}"))

    def _failed(self, fault: SimsearchError) -> None:
        """Keep the view; what the replica holds may be half a step."""
        self._fault = fault
        self._replica = None
        log.error("follower_failed", exc_info=True, reason=fault.reason, message=fault.message)

    def _loaded(self) -> Replica:
        started = time.perf_counter()
        replica = Replica.from_bank(self._store)
        spent_ms = round((time.perf_counter() - started) * 1e3)
        log.info("replica_loaded", snapshot=replica.snapshot, through=replica.seq, ms=spent_ms)
        return replica

    def _publish(self, replica: Replica) -> None:
        view = replica.view()
        with self._moved:
            self._replica, self._view = replica, view
            self._moved.notify_all()

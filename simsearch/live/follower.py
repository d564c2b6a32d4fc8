"""Keeps the view up with the bank's log: an acknowledged edit is matchable without a restart.

One thread reads the changes after the view's position, appends and retires rows, and replaces
one reference. It is woken by commits of this process and polls for those of others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from simsearch.bank.reading import Reading
from simsearch.bank.store import BankStore
from simsearch.errors import InternalFault, NotReady, SimsearchError
from simsearch.live.rows import Added, LiveRows
from simsearch.live.view import View
from simsearch.telemetry import EventLog
from simsearch.types import Bank, Change, ChangeKind

log = EventLog(__name__)

LOAD_ENTRIES = 4096
CHANGES_AT_ONCE = 1024
POLL_S = 0.5
READER_CHECK_S = 60.0


class Follower:
    """Owns the current view. `start` loads it; `view` is a plain attribute read, no lock."""

    def __init__(self, store: BankStore) -> None:
        self._store = store
        self._rows = LiveRows()
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
        self._load()
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

    # ------------------------------------------------------------ the view

    def _load(self) -> None:
        started = time.perf_counter()
        with self._store.reading() as reading:
            count = 0
            for chunk in _chunks(reading.active_entries(), LOAD_ENTRIES):
                self._rows.append(chunk)
                count += len(chunk)
            self._publish(reading.seq, reading.banks(), snapshot=f"bank-{reading.seq}")
        spent_ms = round((time.perf_counter() - started) * 1e3)
        log.info("view_loaded", entries=count, through=self.view.seq, ms=spent_ms)

    def _publish(self, seq: int, banks: Sequence[Bank], snapshot: str) -> None:
        cosine, hamming = self._rows.freeze(seq)
        by_name = {bank.name: bank for bank in banks}
        view = View(seq, snapshot, by_name, cosine, hamming, self._store)
        with self._moved:
            self._view = view
            self._moved.notify_all()

    # ------------------------------------------------------------ following

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
            if self._fault is not None:
                self._rows = LiveRows()
                self._load()
            while not self._stopping and self._step():
                pass
            self._fault = None
        except SimsearchError as fault:
            self._failed(fault)
        except Exception as fault:
            # The thread's edge: without this it would die and the view stand still in silence.
            self._failed(InternalFault(f"the follower failed: {type(fault).__name__}"))

    def _failed(self, fault: SimsearchError) -> None:
        self._fault = fault
        log.error("follower_failed", exc_info=True, reason=fault.reason, message=fault.message)

    def _step(self) -> bool:
        """Apply the next changes, if there are any, and publish one new view."""
        if self._store.seq() == self.view.seq:
            return False
        with self._store.reading() as reading:
            changes = reading.changes(self.view.seq, CHANGES_AT_ONCE)
            if not changes:
                return False
            added = _added(reading, changes)
            banks = reading.banks()
        self._rows.append(added)
        gone = [c for c in changes if c.kind is ChangeKind.ENTRY_RETRACTED]
        if gone:
            self._rows.retire([c.entry_key for c in gone], [c.seq for c in gone])
        self._publish(changes[-1].seq, banks, self.view.snapshot)
        if gone:
            self._rows.compact(self.view.seq)
        return True


def _added(reading: Reading, changes: Sequence[Change]) -> list[Added]:
    new = [c for c in changes if c.kind is ChangeKind.ENTRY_ADDED]
    prints = reading.fingerprints([c.entry_key for c in new])
    return [(c.entry_key, c.bank_id, prints[c.entry_key]) for c in new]


def _chunks(entries: Iterator[Added], size: int) -> Iterator[list[Added]]:
    while chunk := list(islice(entries, size)):
        yield chunk

"""Log follower: keeps the current view up to date with the bank's log and the published snapshot.

One thread applies changes to a replica and replaces one reference to its newest view, so that an
acknowledged edit is searched without a restart. It is woken by commits of this process, and polls
for those of others and for a newly published snapshot: a second thread loads that beside the old
one, while edits continue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container
from pathlib import Path

from simsearch.bank.store import BankStore
from simsearch.errors import (
    BadSnapshot,
    Corrupt,
    InternalFault,
    NewerFormat,
    NotReady,
    SimsearchError,
)
from simsearch.index.gpu.dispatcher import GpuStatus
from simsearch.index.gpu.gpu_view import Gpus
from simsearch.index.snapshot.loader import current
from simsearch.live.replica import Replica
from simsearch.live.view import View
from simsearch.telemetry import EventLog

log = EventLog(__name__)

POLL_S = 0.5
READER_CHECK_S = 60.0
LOAD_PAUSE_S = 0.005
"""Pause between two steps of a snapshot that is being loaded, so that searches get the interpreter
lock. What loading costs them is in benchmarks/README.md, index_swap."""


class Follower:
    """Owns the current view. `start` loads it; reading `view` takes no lock."""

    def __init__(
        self,
        store: BankStore,
        snapshots: Path,
        spaces: Container[str] | None = None,
        gpus: Gpus | None = None,
    ) -> None:
        """`spaces`: ids of the spaces with an encoder, None for all; rows of other spaces are not
        loaded. Snapshots are searched on `gpus` where possible; `stop` stops those, too."""
        self._store = store
        self._snapshots = snapshots
        self._spaces = spaces
        self._gpus = gpus
        self._incoming: Replica | None = None
        self._loader: threading.Thread | None = None
        self._refused: dict[str, SimsearchError] = {}
        self._replica: Replica | None = None
        self._view: View | None = None
        self._wake = threading.Event()
        self._moved = threading.Condition()
        self._stopping = False
        self._fault: SimsearchError | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    @property
    def view(self) -> View:
        """The newest view. Raises NotReady before `start` has returned."""
        if self._view is None:
            raise NotReady("the index is still loading: ask again in a moment")
        return self._view

    @property
    def fault(self) -> SimsearchError | None:
        """Why the view is no longer updated, or why the published snapshot is not in use; None
        while neither is so."""
        return self._fault or next(iter(self._refused.values()), None)

    @property
    def gpus(self) -> tuple[GpuStatus, ...]:
        """The state of each GPU; empty where none is used."""
        return self._gpus.status() if self._gpus else ()

    def start(self) -> None:
        """Load the current snapshot, or every active entry; then follow the log."""
        self._store.subscribe(lambda _: self._wake.set())
        self._publish(self._loaded())
        self._thread.start()

    def stop(self) -> None:
        """End both threads and wait for them; then stop the GPUs."""
        self._stopping = True
        self._wake.set()
        for thread in (self._thread, self._loader):
            if thread is not None and thread.is_alive():
                thread.join()
        if self._gpus:
            self._gpus.stop()

    def wait_for(self, seq: int, timeout_s: float) -> bool:
        """Wait until the view contains the change `seq`; False after `timeout_s`."""
        with self._moved:
            return self._moved.wait_for(lambda: self.view.seq >= seq, timeout_s)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        checked = time.monotonic()
        while not self._stopping:
            self._wake.wait(POLL_S)
            self._wake.clear()
            self._look_for_snapshot()
            self._catch_up()
            if time.monotonic() - checked > READER_CHECK_S:
                self._store.clear_stale_readers()
                checked = time.monotonic()

    def _catch_up(self) -> None:
        """Apply all new changes; after a fault, load again from the snapshot or the bank."""
        try:
            replica = self._incoming or self._replica or self._loaded()
            while replica is not self._replica and replica.step():
                pass
            if replica is not self._replica:
                self._publish(replica)
                self._incoming = None
            while not self._stopping and replica.step():
                self._publish(replica)
            if replica.maintain():
                self._publish(replica)
            self._fault = None
        except SimsearchError as fault:
            self._failed(fault)
        except Exception as fault:
            # Otherwise the thread would end, and the view would stop moving without a report.
            self._failed(InternalFault(f"the follower failed: {type(fault).__name__}"))

    def _failed(self, fault: SimsearchError) -> None:
        """Keep the view, drop the replica: a step may have been applied in part."""
        self._fault = fault
        self._replica = None
        log.error("follower_failed", exc_info=True, reason=fault.reason, message=fault.message)

    def _loaded(self) -> Replica:
        """A replica of the current snapshot; where there is no valid one, of the bank itself."""
        started = time.perf_counter()
        served = self._served()
        replica = (served and self._from_snapshot(served)) or Replica.from_bank(
            self._store, self._spaces
        )
        while replica.step():
            pass
        spent_ms = round((time.perf_counter() - started) * 1e3)
        log.info("replica_loaded", snapshot=replica.snapshot, through=replica.seq, ms=spent_ms)
        return replica

    # ------------------------------------------------------------ snapshots

    def _served(self) -> str | None:
        """The id in CURRENT; None where there is none, or it cannot be read."""
        try:
            served = current(self._snapshots)
        except BadSnapshot as fault:
            self._refused = {"": fault}
            return None
        self._refused = {name: why for name, why in self._refused.items() if name == served}
        return served

    def _from_snapshot(self, snapshot_id: str) -> Replica | None:
        try:
            path = self._snapshots / snapshot_id
            return Replica.from_snapshot(self._store, path, self._spaces, self._gpus)
        except (BadSnapshot, NewerFormat, Corrupt) as refused:
            self._refused = {snapshot_id: refused}
            log.error("snapshot_refused", snapshot=snapshot_id, message=refused.message)
            return None

    def _look_for_snapshot(self) -> None:
        """Start loading a snapshot that was published or rolled back to; one at a time."""
        served = self._served()
        if served is None or served in self._refused or self._incoming is not None:
            return
        if self._replica is None or self._replica.snapshot == served:
            return
        if self._loader is None or not self._loader.is_alive():
            self._loader = threading.Thread(target=self._load, args=(served,), daemon=True)
            self._loader.start()

    def _load(self, snapshot_id: str) -> None:
        """In its own thread: open a snapshot and apply changes, then pass it to the follower."""
        try:
            replica = self._from_snapshot(snapshot_id)
            while replica is not None and not self._stopping and replica.step():
                time.sleep(LOAD_PAUSE_S)
            if replica is not None and not self._stopping:
                replica.wait_until_sealed()
            self._incoming = replica
        except Exception as fault:
            # Otherwise the thread would end, and the new snapshot be ignored without a report.
            named = InternalFault(f"snapshot {snapshot_id} failed to load: {fault!r}")
            self._refused = {snapshot_id: named}
            log.error("snapshot_failed", exc_info=True, snapshot=snapshot_id)
        self._wake.set()

    def _publish(self, replica: Replica) -> None:
        view = replica.view()
        with self._moved:
            self._replica, self._view = replica, view
            self._moved.notify_all()

"""Worker pool: a fixed number of decode workers, lent in order of arrival; dead ones are replaced.

One thread, the keeper, starts them all: the system ends a worker with the thread that started it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from simsearch.encode.sandbox.process import WORKER_MODULE, Worker
from simsearch.encode.sandbox.wire_format import WorkerSettings
from simsearch.errors import DeadlinePassed, NoSandbox, NotReady, Overloaded
from simsearch.telemetry import EventLog
from simsearch.types import CallContext

log = EventLog(__name__)

WAITING_MAX = 512
WAIT_S_MAX = 30.0
"""For a free worker, for those who have more time than that."""

POLL_S = 0.05
"""How often one who waits looks whether anybody still wants it."""

SWEEP_S = 1.0
"""How often idle workers are looked at; a dead one is replaced before it is asked."""

RETRY_S = 1.0
"""Between starts that fail."""

STARTS_TRIED = 3
"""In a row, before those who wait are told that none will come: one may have been killed."""


class WorkerPool:
    """Thread-safe. `images_per_worker`: then a worker goes, once another one has come."""

    def __init__(
        self,
        settings: WorkerSettings,
        count: int,
        images_per_worker: int,
        module: str = WORKER_MODULE,
    ) -> None:
        assert count >= 1
        self._settings = settings
        self._count = count
        self._images_per_worker = images_per_worker
        self._module = module
        self._changed = threading.Condition()
        self._alive: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._waiting: deque[object] = deque()
        self._started = 0
        self._failures = 0
        self._fault: NoSandbox | None = None
        self._closed = False
        self._keeper = threading.Thread(target=self._keep, name="sandbox-keeper", daemon=True)

    def open(self) -> None:
        """Returns once all are ready. Raises NoSandbox."""
        self._keeper.start()
        with self._changed:
            self._changed.wait_for(lambda: self._fault or len(self._alive) == self._count)
            fault = self._fault
        if fault:
            self.close()
            raise fault

    def close(self) -> None:
        """Kills every worker, in the middle of an image too."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._keeper.join()
        with self._changed:
            idle, busy = list(self._idle), self._alive.difference(self._idle)
            self._alive.clear()
            self._idle.clear()
        for worker in busy:
            worker.process.kill()  # whoever has it gives back what is left of it
        for worker in idle:
            worker.kill()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def restarts(self) -> int:
        """Workers started in the place of others."""
        return max(self._started - self._count, 0)

    @property
    def pids(self) -> list[int]:
        """Of the workers that are there, oldest first."""
        with self._changed:
            return sorted(worker.process.pid for worker in self._alive)

    @contextmanager
    def lend(self, call: CallContext) -> Iterator[Worker]:
        """A worker for one image. Raises Overloaded, DeadlinePassed, NotReady."""
        worker = self._take(call)
        try:
            yield worker
        finally:
            self._give_back(worker)

    # ------------------------------------------------------------ those who wait

    def _take(self, call: CallContext) -> Worker:
        """In the order in which they came: nobody overtakes."""
        give_up = time.monotonic() + WAIT_S_MAX
        ticket = object()
        with self._changed:
            if len(self._waiting) >= WAITING_MAX:
                raise Overloaded(f"{WAITING_MAX} images wait to be decoded: retry")
            self._waiting.append(ticket)
            try:
                while not (self._waiting[0] is ticket and self._idle):
                    self._check(call, give_up)
                    self._changed.wait(POLL_S)
                self._check(call, give_up)
                return self._idle.popleft()
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _check(self, call: CallContext, give_up: float) -> None:
        now = time.monotonic()
        if self._closed:
            raise NotReady("the server is shutting down: ask another one")
        if not call.is_wanted():
            raise NotReady("the call was given up before its image was decoded")
        if now >= call.deadline:
            raise DeadlinePassed("the deadline passed before the image could be decoded")
        if self._fault and not self._alive:
            raise NotReady(self._fault.message)
        if now >= give_up:
            raise Overloaded(f"no decode worker was free within {WAIT_S_MAX:g} s: retry later")

    def _give_back(self, worker: Worker) -> None:
        fit = worker.fit
        with self._changed:
            if fit and worker in self._alive:
                self._idle.append(worker)
                doomed = self._surplus()
            else:
                self._alive.discard(worker)
                doomed = [worker]
            self._changed.notify_all()
        for each in doomed:
            each.kill()

    # ------------------------------------------------------------ the keeper

    def _keep(self) -> None:
        while missing := self._missing():
            try:
                fresh = self._start(missing)
            except NoSandbox as fault:
                self._failed(fault)
            else:
                self._add(fresh)

    def _missing(self) -> int:
        """Waits until some are; 0 once the pool is closed."""
        while True:
            self._bury()
            with self._changed:
                if self._closed:
                    return 0
                missing = self._count - len(self._alive)
                if missing == 0:
                    missing = int(any(self._is_worn(worker) for worker in self._alive))
                if missing > 0:
                    return missing
                self._changed.wait(SWEEP_S)

    def _bury(self) -> None:
        """Idle workers that died or began to talk unasked."""
        with self._changed:
            dead = [worker for worker in self._idle if not worker.fit]
            for worker in dead:
                self._idle.remove(worker)
                self._alive.discard(worker)
        for worker in dead:
            log.warning("decode_worker_lost", loss="idle", status=worker.process.returncode)
            worker.kill()

    def _start(self, count: int) -> list[Worker]:
        """All or none. Raises NoSandbox."""
        begun: list[Worker] = []
        try:
            for _ in range(count):
                begun.append(Worker.start(self._settings, self._module))
            for worker in begun:
                worker.wait_ready()
        except BaseException:
            for worker in begun:
                worker.kill()
            raise
        return begun

    def _failed(self, fault: NoSandbox) -> None:
        log.error("decode_workers_do_not_start", reason=fault.reason, cause=fault.message)
        with self._changed:
            self._failures += 1
            if not self._started or self._failures >= STARTS_TRIED:
                self._fault = fault
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, RETRY_S)

    def _add(self, fresh: list[Worker]) -> None:
        with self._changed:
            self._fault, self._failures = None, 0
            self._started += len(fresh)
            self._alive.update(fresh)
            self._idle.extend(fresh)
            doomed = self._surplus()
            self._changed.notify_all()
        for worker in doomed:
            worker.kill()

    def _surplus(self) -> list[Worker]:
        """Idle workers that are worn and have been replaced, taken out of the pool."""
        worn = [worker for worker in self._idle if self._is_worn(worker)]
        doomed = worn[: max(len(self._alive) - self._count, 0)]
        for worker in doomed:
            self._idle.remove(worker)
            self._alive.discard(worker)
        return doomed

    def _is_worn(self, worker: Worker) -> bool:
        return worker.images >= self._images_per_worker

"""GPU dispatcher: one thread per GPU, as FAISS's GPU indexes allow one caller at a time.

It batches without a timer: whenever the GPU is free, all waiting searches of the same index with
the same k and nprobe are run as one. A single search is run at once; under load, batches grow.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from simsearch.index.gpu.device import Device, DeviceIndex, GpuFault, ScoredRows
from simsearch.index.gpu.device_health import Health
from simsearch.index.gpu.tensors import Queries, is_tensor

QUERIES_MAX: Final = 4096
RESULTS_MAX: Final = 1 << 21
"""Queries of one batch, and candidates of all of them: 24 MiB of scores and rows. Chosen."""

WAITING_QUERIES_MAX: Final = 4 * QUERIES_MAX
WAIT_S: Final = 1.0
"""Chosen, not measured."""

UPLOAD_WAIT_S: Final = 600.0
"""Copying a hundred million rows to a GPU should take tens of seconds. Unverified on a GPU."""

STOP_WAIT_S: Final = 5.0


class WrongAnswer(GpuFault):
    """A device returned an impossible or wrong result."""


@dataclass(eq=False)
class _Search:
    device_index: DeviceIndex
    queries: Queries
    k: int
    nprobe: int
    future: Future[ScoredRows] = field(default_factory=Future)

    def joins(self, other: _Search) -> bool:
        """Whether both can be run as one search."""
        return (self.device_index, self.k, self.nprobe, is_tensor(self.queries)) == (
            other.device_index,
            other.k,
            other.nprobe,
            is_tensor(other.queries),
        )


@dataclass(eq=False)
class _Task:
    """Work on the device other than a search; it goes first and is never dropped. Meanwhile
    searches fail with `refusal`; where it is empty they wait."""

    run: Callable[[], Any]
    refusal: str = ""
    future: Future[Any] = field(default_factory=Future)


_Step: TypeAlias = list[_Search] | _Task


@dataclass(frozen=True)
class GpuStatus:
    """State of one GPU. `reason`: why it is not used now, empty where it is. `nbytes`: of its
    indexes, by length."""

    name: str
    reason: str
    batches: int
    queries: int
    faults: int
    waiting_queries: int
    nbytes: int


class Dispatcher:
    """Owns `device` and the thread that uses it. All methods are thread-safe.

    They raise GpuFault, with the reason, where the caller must use another device or the CPU.
    """

    def __init__(
        self,
        device: Device,
        *,
        wait_s: float = WAIT_S,
        waiting_queries_max: int = WAITING_QUERIES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._wait_s = wait_s
        self._waiting_queries_max = waiting_queries_max
        self._clock = clock
        self.health = Health(device.name, clock)
        self._changed = threading.Condition()  # reentrant: see `drop`
        self._searches: deque[_Search] = deque()
        self._tasks: deque[_Task] = deque()
        self._waiting_queries = 0
        self._begun: float | None = None
        self._doing = ""
        self._stopped = False
        self._batches = self._queries = self._nbytes = 0
        self._thread = threading.Thread(target=self._work, name=device.name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The device's."""
        return self._device.name

    @property
    def load(self) -> int:
        """Queries that wait."""
        return self._waiting_queries

    def status(self) -> GpuStatus:
        """Counters, and why it is not used now."""
        with self._changed:
            return GpuStatus(
                self.name,
                self.health.refusal() or self._refusal(),
                self._batches,
                self._queries,
                self.health.faults,
                self._waiting_queries,
                self._nbytes,
            )

    # ------------------------------------------------------------ searching

    def search(
        self, device_index: DeviceIndex, queries: Queries, k: int, nprobe: int
    ) -> ScoredRows:
        """DeviceIndex.search, in one batch with others. Raises GpuFault after `wait_s`."""
        search = _Search(device_index, queries, k, nprobe)
        self._admit(search)
        try:
            return search.future.result(timeout=self._wait_s)
        except TimeoutError:
            search.future.cancel()
            reason = f"no answer within {self._wait_s:g} s"
            self.health.fault(reason)
            raise GpuFault(f"{self.name}: {reason}") from None

    def _admit(self, search: _Search) -> None:
        if refusal := self.health.refusal():
            raise GpuFault(refusal)
        with self._changed:
            waiting = self._waiting_queries + len(search.queries)
            refusal = self._refusal()
            if not refusal and self._waiting_queries and waiting > self._waiting_queries_max:
                refusal = f"{self.name}: {self._waiting_queries} queries wait already"
            if refusal:
                raise GpuFault(refusal)
            self._searches.append(search)
            self._waiting_queries = waiting
            self._changed.notify()

    def _refusal(self) -> str:
        """Why no search is admitted; these reasons do not count as faults."""
        name = self.name
        if self._stopped or not self._thread.is_alive():
            return f"{name}: its thread has ended"
        if self._doing:
            return f"{name}: {self._doing}"
        if self._begun is not None and self._clock() - self._begun > self._wait_s:
            return f"{name}: busy with one search for more than {self._wait_s:g} s"
        return ""

    # ------------------------------------------------------------ indexes

    def upload(self, index: Any) -> DeviceIndex:
        """Copy a CPU index to the device; searches fail with GpuFault meanwhile."""
        if self.health.is_off:
            raise GpuFault(self.health.refusal())
        task = _Task(lambda: self._device.upload(index), "an index is being loaded")
        if not self._put(task):
            raise GpuFault(f"{self.name}: its thread has ended")
        try:
            device_index: DeviceIndex = task.future.result(timeout=UPLOAD_WAIT_S)
        except TimeoutError:
            task.future.cancel()
            raise GpuFault(f"{self.name}: not loaded in {UPLOAD_WAIT_S:g} s") from None
        with self._changed:
            self._nbytes += device_index.nbytes
        return device_index

    def drop(self, indexes: list[DeviceIndex]) -> None:
        """Empty a list of indexes that are no longer searched, on the device's thread: freeing
        one is not thread-safe either. May be called by the garbage collector at any point."""

        def forget() -> None:
            with self._changed:
                self._nbytes -= sum(one.nbytes for one in indexes)
            indexes.clear()

        if not self._put(_Task(forget)):
            indexes.clear()  # no other thread uses the device any more

    def _put(self, task: _Task) -> bool:
        """Queue a task; False where the thread has ended."""
        with self._changed:
            if self._stopped or not self._thread.is_alive():
                return False
            self._tasks.append(task)
            self._changed.notify()
            return True

    def stop(self) -> None:
        """Refuse new searches, fail waiting ones; wait up to STOP_WAIT_S for the current batch."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_WAIT_S)
        self._fail_waiting()

    # ------------------------------------------------------------ the thread

    def _work(self) -> None:
        try:
            while (step := self._next()) is not None:
                if isinstance(step, _Task):
                    self._do(step)
                elif step:
                    self._answer(step)
                with self._changed:
                    self._begun, self._doing = None, ""
                del step  # it may hold the last reference to an index
        finally:  # no caller may wait for a thread that has ended
            self._stopped = True
            self._fail_waiting()

    def _next(self) -> _Step | None:
        """The next batch or task; None when stopped; an empty list where all had been cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._tasks or self._searches)
            if self._stopped:
                return None
            self._begun = self._clock()
            if not self._tasks:
                return self._batch()
            task = self._tasks.popleft()
            self._doing = task.refusal
            return task

    def _batch(self) -> list[_Search]:
        """The first waiting search, and those that can be run with it while there is room."""
        batch: list[_Search] = []
        left: deque[_Search] = deque()
        queries = 0
        while self._searches:
            search = self._searches.popleft()
            size = queries + len(search.queries)
            fits = size <= QUERIES_MAX and size * search.k <= RESULTS_MAX
            if batch and not (fits and search.joins(batch[0])):
                left.append(search)
                continue
            self._waiting_queries -= len(search.queries)
            if search.future.set_running_or_notify_cancel():
                batch.append(search)
                queries = size
        self._searches = left
        return batch

    def _answer(self, batch: list[_Search]) -> None:
        first, begun = batch[0], self._clock()
        try:
            scores, rows = first.device_index.search(
                [s.queries for s in batch], first.k, first.nprobe
            )
        except BaseException as error:  # of any kind: the CPU can answer instead
            self._blame(error)
            for search in batch:
                search.future.set_exception(GpuFault(f"{self.name}: {_message_of(error)}"))
            return
        if self._clock() - begun <= self._wait_s:
            self.health.worked()
        self._batches += 1
        self._queries += len(scores)
        start = 0
        for search in batch:
            part = slice(start, start := start + len(search.queries))
            search.future.set_result((scores[part], rows[part]))

    def _do(self, task: _Task) -> None:
        if not task.future.set_running_or_notify_cancel():
            return
        try:
            task.future.set_result(task.run())
        except BaseException as error:
            # Not counted: a lack of memory for one index affects no other.
            task.future.set_exception(GpuFault(f"{self.name}: {_message_of(error)}"))

    def _blame(self, error: BaseException) -> None:
        blame = self.health.off if isinstance(error, WrongAnswer) else self.health.fault
        blame(_message_of(error))

    def _fail_waiting(self) -> None:
        with self._changed:
            waiting: list[_Search | _Task] = [*self._searches, *self._tasks]
            self._searches.clear()
            self._tasks.clear()
            self._waiting_queries = 0
        for one in waiting:
            if one.future.set_running_or_notify_cancel():
                one.future.set_exception(GpuFault(f"{self.name}: its thread has ended"))


def _message_of(error: BaseException) -> str:
    """The text of an exception, or the name of its type."""
    return str(error).strip() or type(error).__name__

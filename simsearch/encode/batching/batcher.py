"""Dynamic batching: the items of many calls go through one worker thread in shared batches.

Whenever the worker is free it takes the batch that `item_queue.py` chooses, without delay unless
the bounds have it linger. A single item is served at once; under load, batches grow by themselves.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, Generic, TypeVar, cast

from simsearch.encode.batching.bisection import run_bisected
from simsearch.encode.batching.item_queue import (
    Bounds,
    Dropped,
    Queue,
    QueuedItem,
    Taken,
    cost_of,
    sift,
)
from simsearch.errors import (
    DeadlinePassed,
    InternalFault,
    LimitExceeded,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.types import NO_CALL, CallContext, Priority

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

RETRY_MS_MIN: Final = 10
RETRY_MS_MAX: Final = 5_000

BATCH_SIZES: Final = 12
"""Buckets of the histogram of batch sizes, by powers of two; the last is open."""


@dataclass(frozen=True)
class BatcherCounts:
    """Totals since the start. A batch is one run; a failed run and each of its parts count too.
    `units` are the sizes of the items that ran and `cost` those with padding; `batch_sizes[k]`
    counts batches of 2**k to 2**(k + 1) - 1 items. Items that never ran are `expired`, `cancelled`
    (their caller was gone) or `refused` (the queue was full)."""

    batches: int = 0
    failed_batches: int = 0
    items: int = 0
    units: int = 0
    cost: int = 0
    expired: int = 0
    cancelled: int = 0
    refused: int = 0
    waiting_interactive: int = 0
    waiting_bulk: int = 0
    run_s: float = 0.0
    batch_sizes: tuple[int, ...] = (0,) * BATCH_SIZES


class _Job(Generic[T, R]):
    """The items of one call, which may go in several batches. With `each`, an item's error is its
    answer, and the other items go on."""

    def __init__(self, items: Sequence[T], call: CallContext, *, each: bool = False) -> None:
        self.items = items
        self.call = call
        self.future: Future[list[R]] = Future()
        self._each = each
        self._answers: dict[int, R] = {}
        self._settled = False
        self._settling = threading.Lock()

    def is_wanted(self) -> bool:
        """False once it is answered, failed or cancelled, or its caller has gone."""
        return not self.future.done() and self.call.is_wanted()

    def is_given_up(self) -> bool:
        return self.future.cancelled() or not self.call.is_wanted()

    def deliver(self, position: int, answer: R) -> None:
        self._answers[position] = answer
        if len(self._answers) == len(self.items) and self._settles():
            self.future.set_result([self._answers[n] for n in range(len(self.items))])

    def fail_at(self, position: int, error: BaseException) -> None:
        if self._each and isinstance(error, Exception):
            self.deliver(position, cast(R, error))
        else:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if self._settles():
            self.future.set_exception(error)

    def _settles(self) -> bool:
        """True once, unless it was cancelled: the worker and `abort` may both settle it."""
        with self._settling:
            first, self._settled = not self._settled, True
        return first and self.future.set_running_or_notify_cancel()


class _RunRate:
    """Moving average of milliseconds per unit; long runs weigh more, old ones less."""

    DECAY: Final = 0.8

    def __init__(self) -> None:
        self._ms = self._units = 0.0

    def add(self, ms: float, units: int) -> None:
        self._ms = self.DECAY * self._ms + ms
        self._units = self.DECAY * self._units + units

    def ms_for(self, units: int) -> float:
        """0 before anything was measured."""
        return units * self._ms / self._units if self._units else 0.0


class Batcher(Generic[T, R]):
    """Calls `run` on batches within `bounds`; `size` is what an item takes of a batch's cost.

    `run` gets items of ascending size and gives one answer each, in order. If it raises, the batch
    is run again in halves, and in single items once half of them no longer helps, so that one bad
    item fails its own caller only: at most twice the logarithm of the batch more runs for one bad
    item, and that many and one for each item whatever fails. `clock` is that of
    CallContext.deadline; `is_wanted` of a call is asked under a lock and must be quick.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        size: Callable[[T], int],
        bounds: Bounds,
        name: str = "batcher",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._size = size
        self._name = name
        self._clock = clock
        self._queue: Queue[_Job[T, Any]] = Queue(bounds)
        self._changed = threading.Condition()
        self._closed = False
        self._counts = BatcherCounts()
        self._rate = _RunRate()
        self._units_running = 0
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker.start()

    @property
    def counts(self) -> BatcherCounts:
        """Totals since the start, and the items waiting now."""
        with self._changed:
            return replace(
                self._counts,
                waiting_interactive=self._queue.waiting(Priority.INTERACTIVE),
                waiting_bulk=self._queue.waiting(Priority.BULK),
            )

    def estimated_wait_ms(self, priority: Priority = Priority.INTERACTIVE) -> float:
        """How long an item that arrives now may wait for its batch, at the recent rate."""
        with self._changed:
            return self._rate.ms_for(self._units_running + self._queue.units_before(priority))

    def run(self, items: Sequence[T], call: CallContext = NO_CALL) -> list[R]:
        """The answers to `items`, in order. Waits until the deadline or `wait_s_max` at most.
        Raises what `submit` and its future raise."""
        return self._answers_of(_Job[T, R](items, call))

    def run_each(self, items: Sequence[T], call: CallContext = NO_CALL) -> list[R | Exception]:
        """The answers to `items`, in order, where the answer of an item that failed is its error.
        Raises what concerns the whole call."""
        return self._answers_of(_Job[T, R | Exception](items, call, each=True))

    def _answers_of(self, job: _Job[T, S]) -> list[S]:
        call, until = job.call, self._until(job.call)
        future = self._submit(job)
        try:
            return future.result(timeout=until - self._clock())
        except TimeoutError:
            if not future.cancel() and future.done():
                return future.result()
            raise self._too_late(call, until) from None

    def _until(self, call: CallContext) -> float:
        return min(call.deadline, self._clock() + self._queue.bounds.wait_s_max)

    def submit(self, items: Sequence[T], call: CallContext = NO_CALL) -> Future[list[R]]:
        """The answers to `items`, in order, or the error of one that failed. Cancelling the future
        drops the items that no batch has taken.

        Raises Overloaded when the priority is full, LimitExceeded for more items than it could ever
        hold, NotReady after `close`. These, at once or from the future: DeadlinePassed, Overloaded
        after waiting too long, NotReady once the caller is gone.
        """
        return self._submit(_Job[T, R](items, call))

    def _submit(self, job: _Job[T, S]) -> Future[list[S]]:
        items, call = job.items, job.call
        sizes = [max(1, self._size(item)) for item in items]
        self._make_room(call.priority, len(items))
        with self._changed:
            self._admit(job)
            if items:
                waits_for = replace(call, is_wanted=job.is_wanted)
                self._queue.put(job, sizes, waits_for, self._clock())
                self._changed.notify()
        if not items:
            job.future.set_result([])
        return job.future

    def close(self) -> None:
        """Refuse new items and finish the queued ones."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def abort(self) -> None:
        """Refuse new items and fail the queued ones with NotReady; finish the running batch."""
        self._fail_waiting()
        self.close()

    # ------------------------------------------------------------ admission

    def _make_room(self, priority: Priority, items: int) -> None:
        """Drop items that will not run, before a new one is refused for lack of room."""
        with self._changed:
            if self._queue.has_room(priority, items):
                return
            dropped = self._queue.drop(self._clock())
        self._dismiss(dropped)

    def _admit(self, job: _Job[T, Any]) -> None:
        items, priority = len(job.items), job.call.priority
        if self._closed:
            raise self._is_closed()
        if job.call.deadline <= self._clock():
            self._count(expired=items)
            raise self._too_late(job.call, job.call.deadline)
        if not job.call.is_wanted():
            self._count(cancelled=items)
            raise self._given_up()
        items_max = self._queue.bounds.items_max
        if items > items_max:
            raise LimitExceeded(
                f"{items} items at once: {self._name} holds {items_max}, send fewer"
            )
        if not self._queue.has_room(priority, items):
            self._count(refused=items)
            raise Overloaded(
                f"{self._name} has {self._queue.waiting(priority)} items waiting, {items_max} at "
                "most: try again later or add servers",
                retry_after_ms=self._retry_ms(priority),
            )

    def _retry_ms(self, priority: Priority) -> int:
        wait_ms = self._rate.ms_for(self._units_running + self._queue.units_before(priority))
        return min(max(int(wait_ms), RETRY_MS_MIN), RETRY_MS_MAX)

    # ------------------------------------------------------------ the worker

    def _work(self) -> None:
        try:
            while self._serve():
                pass
        finally:  # whatever ended this thread, no caller may wait for it for ever
            self._fail_waiting()

    def _serve(self) -> bool:
        """Serve one batch; False once closed and empty. Its own frame ends with the batch, so that
        an idle worker keeps no content."""
        taken = self._next()
        if taken is None:
            return False
        self._dismiss(taken.dropped)
        run_bisected(taken.batch, self._attempt)
        self._units_running = 0
        return True

    def _next(self) -> Taken[_Job[T, Any]] | None:
        """None only when closed and nothing waits."""
        with self._changed:
            while (due_at := self._queue.due_at()) > (now := self._clock()) and not self._closed:
                self._changed.wait(None if due_at == math.inf else due_at - now)
            if due_at == math.inf:
                return None
            taken = self._queue.take(now)
            self._units_running = _units(taken.batch)
            return taken

    def _sifted(self, group: Sequence[QueuedItem[_Job[T, Any]]]) -> list[QueuedItem[_Job[T, Any]]]:
        """Without the items that expired or were given up since the batch was taken."""
        kept, dropped = sift(group, self._clock())
        self._dismiss(dropped)
        return kept

    def _attempt(self, batch: Sequence[QueuedItem[_Job[T, Any]]]) -> bool:
        """Run and deliver what is still wanted of a batch; False where it must be run in parts."""
        if not (group := self._sifted(batch)):
            return True
        begun = self._clock()
        try:
            answers = self._run_checked([one.slot.owner.items[one.position] for one in group])
        except BaseException as error:
            self._count_batch(group, self._clock() - begun, failed=1)
            if len(group) == 1:
                group[0].slot.owner.fail_at(group[0].position, error)
            return len(group) == 1
        self._count_batch(group, self._clock() - begun, failed=0)
        for one, answer in zip(group, answers, strict=True):
            one.slot.owner.deliver(one.position, answer)
        return True

    def _run_checked(self, items: Sequence[T]) -> Sequence[R]:
        answers = self._run(items)
        if len(answers) != len(items):
            raise InternalFault(f"{self._name} got {len(answers)} answers to {len(items)} items")
        return answers

    # ------------------------------------------------------------ dropped items

    def _dismiss(self, dropped: Dropped[_Job[T, Any]]) -> None:
        """Tell each caller why; not under the lock, since futures call back."""
        given_up = sum(one.slot.owner.is_given_up() for one in dropped.unwanted)
        if dropped.expired or given_up:
            with self._changed:
                self._count(expired=len(dropped.expired), cancelled=given_up)
        for slot, _ in groupby(dropped.expired, key=lambda one: one.slot):
            slot.owner.fail(self._too_late(slot.call, slot.until))
        for slot, _ in groupby(dropped.unwanted, key=lambda one: one.slot):
            slot.owner.fail(self._given_up())

    def _fail_waiting(self) -> None:
        with self._changed:
            self._closed = True
            jobs = self._queue.clear()
            self._changed.notify()
        for job in jobs:
            job.fail(self._is_closed())

    def _too_late(self, call: CallContext, until: float) -> SimsearchError:
        if call.deadline <= until:
            return DeadlinePassed(
                f"the deadline passed before {self._name} came to it: give it more time, or try "
                "again when there is less to do"
            )
        wait_ms = round(1000 * self._queue.bounds.wait_s_max)
        return Overloaded(
            f"{self._name} gave no answer in {wait_ms} ms: try again later",
            retry_after_ms=min(wait_ms, RETRY_MS_MAX),
        )

    def _given_up(self) -> NotReady:
        return NotReady(f"the call was given up before {self._name} came to it")

    def _is_closed(self) -> NotReady:
        return NotReady(f"{self._name} is closed: ask another server")

    # ------------------------------------------------------------ counts

    def _count(self, *, expired: int = 0, cancelled: int = 0, refused: int = 0) -> None:
        """With the lock held."""
        was = self._counts
        self._counts = replace(
            was,
            expired=was.expired + expired,
            cancelled=was.cancelled + cancelled,
            refused=was.refused + refused,
        )

    def _count_batch(
        self, group: Sequence[QueuedItem[_Job[T, Any]]], seconds: float, *, failed: int
    ) -> None:
        power = min(len(group).bit_length(), BATCH_SIZES) - 1
        with self._changed:
            was = self._counts
            sizes = was.batch_sizes
            self._counts = replace(
                was,
                batches=was.batches + 1,
                failed_batches=was.failed_batches + failed,
                items=was.items + len(group),
                units=was.units + _units(group),
                cost=was.cost + cost_of(group),
                run_s=was.run_s + seconds,
                batch_sizes=(*sizes[:power], sizes[power] + 1, *sizes[power + 1 :]),
            )
            if not failed:
                self._rate.add(1000 * seconds, _units(group))


def _units(batch: Iterable[QueuedItem[_Job[T, Any]]]) -> int:
    return sum(one.size for one in batch)

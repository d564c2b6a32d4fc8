"""Dynamic batching: many callers' items go through one worker in the largest batches at hand.

Greedy and without delay: whenever the worker is free it takes what waits, up to a cost. Alone, an
item is served at once; under load, batches grow by themselves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Generic, TypeVar

from simsearch.errors import InternalFault, LimitExceeded, NotReady, Overloaded

T = TypeVar("T")
R = TypeVar("R")

_RETRY_MS_MIN: Final = 10
_RETRY_MS_MAX: Final = 5_000


@dataclass(eq=False)
class _Job(Generic[T, R]):
    """What one caller submitted; its items may go in several batches."""

    items: Sequence[T]
    future: Future[list[R]] = field(default_factory=Future)
    answers: list[R] = field(default_factory=list)

    def wanted(self) -> bool:
        """False once its caller has cancelled or an item has failed; from the first batch on
        it cannot be cancelled any more."""
        if self.future.running():
            return True
        return not self.future.done() and self.future.set_running_or_notify_cancel()

    def deliver(self, answers: Sequence[R]) -> None:
        self.answers += answers
        if len(self.answers) == len(self.items):
            self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        if self.wanted():
            self.future.set_exception(error)


@dataclass(frozen=True)
class _Waiting(Generic[T, R]):
    job: _Job[T, R]
    item: T
    cost: int


class Batcher(Generic[T, R]):
    """Calls `run` on batches of at most `cost_max` (or one item that alone costs more).

    `run` gives one answer per item, in order. If it raises, the batch is run again item by item,
    so that one bad item fails its own caller only.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        cost: Callable[[T], int],
        cost_max: int,
        queue_items_max: int,
        name: str = "batcher",
    ) -> None:
        self._run = run
        self._cost = cost
        self._cost_max = cost_max
        self._queue_items_max = queue_items_max
        self._name = name
        self._queue: deque[_Waiting[T, R]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._item_ms = 1.0
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker.start()

    def submit(self, items: Sequence[T]) -> Future[list[R]]:
        """The answers to `items`, in order, or the error of the first that failed. Cancelling
        the future drops items that no batch has taken. Raises Overloaded when the queue is full,
        LimitExceeded for more items than it could ever hold, NotReady after `close`."""
        job: _Job[T, R] = _Job(items)
        waiting = [_Waiting(job, item, self._cost(item)) for item in items]
        with self._changed:
            self._admit(len(items))
            self._queue.extend(waiting)
            self._changed.notify()
        if not items:
            job.future.set_result([])
        return job.future

    def close(self) -> None:
        """Refuse what comes, finish what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def abort(self) -> None:
        """Refuse what comes, fail what waits with NotReady; the batch in progress is finished."""
        self._fail_waiting()
        self.close()

    def _admit(self, items: int) -> None:
        if self._closed:
            raise self._not_ready()
        if items > self._queue_items_max:
            raise LimitExceeded(
                f"{items} items at once: {self._name} holds {self._queue_items_max}, send fewer"
            )
        if len(self._queue) + items > self._queue_items_max:
            wait_ms = int(self._item_ms * len(self._queue))
            raise Overloaded(
                f"{self._name} has {len(self._queue)} items waiting, {self._queue_items_max} at "
                "most: try again later or add servers",
                retry_after_ms=min(max(wait_ms, _RETRY_MS_MIN), _RETRY_MS_MAX),
            )

    # ------------------------------------------------------------ the worker

    def _work(self) -> None:
        try:
            while batch := self._next_batch():
                self._answer(batch)
        finally:  # whatever ended this thread, nobody may wait for it for ever
            self._fail_waiting()

    def _next_batch(self) -> list[_Waiting[T, R]]:
        """Empty only when closed and nothing waits."""
        with self._changed:
            batch: list[_Waiting[T, R]] = []
            while not batch and (self._queue or not self._closed):
                self._changed.wait_for(lambda: self._queue or self._closed)
                batch = self._take()
            return batch

    def _take(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        cost = 0
        while self._queue:
            first = self._queue[0]
            if first.job.wanted():
                cost += first.cost
                if batch and cost > self._cost_max:
                    break
                batch.append(first)
            self._queue.popleft()
        return batch

    def _answer(self, batch: Sequence[_Waiting[T, R]]) -> None:
        begun = time.perf_counter()
        try:
            answers = self._run_checked([waiting.item for waiting in batch])
        except BaseException as error:
            self._answer_one_by_one(batch, error)
            return
        self._item_ms = 1000 * (time.perf_counter() - begun) / len(batch)
        self._deliver(batch, answers)

    def _answer_one_by_one(self, batch: Sequence[_Waiting[T, R]], error: BaseException) -> None:
        if len(batch) == 1:
            batch[0].job.fail(error)
            return
        for waiting in batch:
            if waiting.job.wanted():
                self._answer([waiting])

    def _run_checked(self, items: Sequence[T]) -> Sequence[R]:
        answers = self._run(items)
        if len(answers) != len(items):
            raise InternalFault(f"{self._name} got {len(answers)} answers to {len(items)} items")
        return answers

    def _deliver(self, batch: Sequence[_Waiting[T, R]], answers: Sequence[R]) -> None:
        """A job's items stand together in the queue, so they do in a batch."""
        by_job = groupby(zip(batch, answers, strict=True), key=lambda pair: pair[0].job)
        for job, pairs in by_job:
            job.deliver([answer for _, answer in pairs])

    # ------------------------------------------------------------ the end

    def _fail_waiting(self) -> None:
        with self._changed:
            self._closed = True
            jobs = dict.fromkeys(waiting.job for waiting in self._queue)
            self._queue.clear()
        for job in jobs:
            job.fail(self._not_ready())

    def _not_ready(self) -> NotReady:
        return NotReady(f"{self._name} is closed: ask another server")

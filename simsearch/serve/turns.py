"""Whose turn it is: the match threads, and the jobs that wait for one.

A job works in steps. Between two of them it goes back into the queue, so that an upload in flight
never waits for more than one step of a stocktaking.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeAlias, TypeVar

from simsearch.errors import DeadlinePassed, NotReady
from simsearch.serve.admission import BULK_TIME
from simsearch.types import CallContext, Lane

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work that may be stopped or overtaken wherever it yields; it returns the answer."""

OWED_MAX_S: Final = 1.0
BULK_STEP_S: Final = 0.05
"""How long a step of bulk work takes, before one was seen."""


class Job(Generic[T]):
    """Work on its way through the match threads. `spent_s` is what it took of one so far.

    It works in the context that it was made in. `settle` is called once, in any thread, with the
    answer or the error.
    """

    def __init__(
        self,
        begin: Callable[[CallContext], Steps[T]],
        lane: Lane,
        deadline: float,
        settle: Callable[[T | None, BaseException | None], None],
    ) -> None:
        self.call = CallContext(lane, deadline, self.is_wanted)
        self.spent_s = 0.0
        self._steps: Steps[T] | None = begin(self.call)
        self._settle = settle
        self._wanted = True
        self._context = contextvars.copy_context()

    def is_wanted(self) -> bool:
        """False for good once nobody waits for the answer."""
        return self._wanted

    def abandon(self) -> None:
        """Nobody waits any more: let go of the request, also while it is queued."""
        self._wanted = False
        self._steps = None

    def step(self) -> bool:
        """Work up to the next yield; False where there is nothing left to do."""
        steps = self._steps
        if steps is None:
            return False
        begun = time.monotonic()
        try:
            if begun >= self.call.deadline:
                raise expired()
            self._context.run(next, steps)
        except StopIteration as end:
            self._end(begun, end.value, None)
        except BaseException as error:  # whatever it is, it is the caller's answer
            self._end(begun, None, error)
        else:
            self.spent_s += time.monotonic() - begun
            return True
        return False

    def refuse(self, error: BaseException) -> None:
        """The answer, where no thread will come to one."""
        if self._wanted:
            self._settle(None, error)

    def _end(self, begun: float, answer: T | None, error: BaseException | None) -> None:
        self.spent_s += time.monotonic() - begun
        self._steps = None
        self._settle(answer, error)


def expired() -> DeadlinePassed:
    return DeadlinePassed(
        "the deadline passed before there was an answer: send less at once, later, or wait longer"
    )


class Turns:
    """Threads that work jobs off, earliest deadline first, interactive ones before bulk. While
    both wait, bulk is owed a part of the time, so that it never stands still."""

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._queues: dict[Lane, list[tuple[float, int, Job[Any]]]] = {lane: [] for lane in Lane}
        self._numbers = itertools.count()
        self._owed_s = 0.0
        self._bulk_step_s = BULK_STEP_S
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"match-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Jobs that wait for a thread."""
        return sum(map(len, self._queues.values()))

    def put(self, job: Job[Any]) -> None:
        """Raises NotReady once closed."""
        with self._changed:
            if self._closed:
                raise NotReady("the server is shutting down: ask another one")
            entry = (job.call.deadline, next(self._numbers), job)
            heapq.heappush(self._queues[job.call.lane], entry)
            self._changed.notify()

    def drop(self, job: Job[Any]) -> None:
        """Take a job out whose caller has gone, if it waits: its place is not kept."""
        with self._changed:
            queue = self._queues[job.call.lane]
            kept = [entry for entry in queue if entry[2] is not job]
            if len(kept) < len(queue):
                heapq.heapify(kept)
                self._queues[job.call.lane] = kept

    def close(self) -> None:
        """Take no more; the threads end after the step that they are at."""
        with self._changed:
            self._closed = True
            for queue in self._queues.values():
                queue.clear()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads to end; False where one did not in time."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # ------------------------------------------------------------ the threads

    def _work(self) -> None:
        while (job := self._next()) is not None:
            before_s = job.spent_s
            unfinished = job.step()
            self._account(job.call.lane, job.spent_s - before_s)
            if unfinished:
                self._put_back(job)
            del job  # an idle thread holds on to nobody's request

    def _next(self) -> Job[Any] | None:
        """None once closed."""
        with self._changed:
            while not (self._closed or any(self._queues.values())):
                self._changed.wait()
            if self._closed:
                return None
            return heapq.heappop(self._queues[self._turn()])[2]

    def _turn(self) -> Lane:
        if not self._queues[Lane.BULK]:
            return Lane.INTERACTIVE
        if not self._queues[Lane.INTERACTIVE] or self._owed_s > self._bulk_step_s:
            return Lane.BULK
        return Lane.INTERACTIVE

    def _account(self, lane: Lane, spent_s: float) -> None:
        """Time is owed and paid where one lane holds the other up."""
        with self._changed:
            if lane is Lane.BULK:
                self._bulk_step_s = min(spent_s, OWED_MAX_S / 2)
            if lane is Lane.INTERACTIVE and self._queues[Lane.BULK]:
                self._owed_s = min(self._owed_s + spent_s * BULK_TIME, OWED_MAX_S)
            elif lane is Lane.BULK and self._queues[Lane.INTERACTIVE]:
                self._owed_s = max(self._owed_s - spent_s, -OWED_MAX_S)

    def _put_back(self, job: Job[Any]) -> None:
        try:
            self.put(job)
        except NotReady as closed:
            job.refuse(closed)

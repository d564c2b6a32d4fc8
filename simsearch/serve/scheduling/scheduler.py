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

from simsearch.encode.fair_share import FairShare
from simsearch.errors import DeadlinePassed, NotReady
from simsearch.types import CallContext, Priority

T = TypeVar("T")

Steps: TypeAlias = Generator[None, None, T]
"""Work that may be stopped or overtaken wherever it yields; it returns the answer."""

TOGETHER_S: Final = 0.1
"""About what an encoder takes for the largest batch that is worth making."""

OWED_MAX_S: Final = 1.0
BULK_STEP_S: Final = 0.05
"""How long a step of bulk work takes, before one was seen."""


class Job(Generic[T]):
    """Work on its way through the match threads. `cost_s` is what it is expected to take of the
    server alone; `spent_s` is how long it was worked on so far, and `share_s` its share of that
    time: of two jobs at once, half each.

    It works in the context that it was made in. `settle` is called once, in any thread, with the
    answer or the error.
    """

    def __init__(
        self,
        begin: Callable[[CallContext], Steps[T]],
        priority: Priority,
        deadline: float,
        settle: Callable[[T | None, BaseException | None], None],
        cost_s: float = 0.0,
    ) -> None:
        self.call = CallContext(priority, deadline, self.is_wanted)
        self.cost_s = cost_s
        self.spent_s = 0.0
        self.share_s = 0.0
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

    def step(self, shared_s: Callable[[], float]) -> bool:
        """Work up to the next yield; False where there is nothing left to do. `shared_s` is a
        clock that goes the slower, the more jobs are worked on."""
        steps = self._steps
        if steps is None:
            return False
        begun, share_begun = time.monotonic(), shared_s()
        try:
            if begun >= self.call.deadline:
                raise expired()
            self._context.run(next, steps)
        except StopIteration as end:
            answer, error = end.value, None
        except BaseException as fault:  # whatever it is, it is the caller's answer
            answer, error = None, fault
        else:
            self._spend(begun, shared_s() - share_begun)
            return True
        self._spend(begun, shared_s() - share_begun)
        self._steps = None
        self._settle(answer, error)
        return False

    def refuse(self, error: BaseException) -> None:
        """The answer, where no thread will come to one."""
        if self._wanted:
            self._settle(None, error)

    def _spend(self, begun: float, share_s: float) -> None:
        self.spent_s += time.monotonic() - begun
        self.share_s += share_s


def expired() -> DeadlinePassed:
    return DeadlinePassed(
        "the deadline passed before there was an answer: send less at once, later, or wait longer"
    )


class _Bell:
    """Wakes one thread, once for each ring."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


class Turns:
    """Threads that work jobs off, earliest deadline first, interactive ones before bulk. While
    both wait, bulk is owed a part of the time, so that it never stands still.

    Many jobs at once let an encoder take them together; so many that each of them takes a second
    would let all of them be late. A job is begun beside others while what all of them cost is
    under TOGETHER_S, or fewer than `together_min` are worked on.
    """

    def __init__(self, threads: int, together_min: int = 2) -> None:
        self._together_min = together_min
        self._working = 0
        self._working_s = 0.0
        self._shared_s = 0.0
        self._shared_at = time.monotonic()
        self._lock = threading.Lock()
        self._idle: list[_Bell] = []
        self._queues: dict[Priority, list[tuple[float, int, Job[Any]]]] = {
            priority: [] for priority in Priority
        }
        self._numbers = itertools.count()
        self._fair_share = FairShare(OWED_MAX_S)
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
        with self._lock:
            if self._closed:
                raise NotReady("the server is shutting down: ask another one")
            entry = (job.call.deadline, next(self._numbers), job)
            heapq.heappush(self._queues[job.call.priority], entry)
            self._call_a_thread()

    def drop(self, job: Job[Any]) -> None:
        """Take a job out whose caller has gone, if it waits: its place is not kept."""
        with self._lock:
            queue = self._queues[job.call.priority]
            kept = [entry for entry in queue if entry[2] is not job]
            if len(kept) < len(queue):
                heapq.heapify(kept)
                self._queues[job.call.priority] = kept

    def close(self) -> None:
        """Take no more; the threads end after the step that they are at."""
        with self._lock:
            self._closed = True
            for queue in self._queues.values():
                queue.clear()
            while self._idle:
                self._idle.pop().ring()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads to end; False where one did not in time."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # ------------------------------------------------------------ the threads

    def _work(self) -> None:
        bell = _Bell()
        while (job := self._next(bell)) is not None:
            before_s = job.spent_s
            unfinished = job.step(self._share)
            self._account(job, job.spent_s - before_s)
            if unfinished:
                self._put_back(job)
            del job  # an idle thread holds on to nobody's request

    def _next(self, bell: _Bell) -> Job[Any] | None:
        """Waits for a job that may be begun; None once closed."""
        while True:
            with self._lock:
                if self._closed:
                    return None
                if self._may_begin():
                    job = heapq.heappop(self._queues[self._turn()])[2]
                    self._work_on(job, 1)
                    self._call_a_thread()  # this one takes the next job by itself
                    return job
                self._idle.append(bell)
            bell.wait()

    def _call_a_thread(self) -> None:
        """With the lock held: where a job may be begun, the thread that worked last begins it,
        whose memory is still at hand. In turn, sixteen threads take twice the time of one."""
        if self._idle and self._may_begin():
            self._idle.pop().ring()

    def _may_begin(self) -> bool:
        if not any(self._queues.values()):
            return False
        job = self._queues[self._turn()][0][2]
        return self._working < self._together_min or self._working_s + job.cost_s <= TOGETHER_S

    def _work_on(self, job: Job[Any], sign: int) -> None:
        """With the lock held: one job more or less is worked on."""
        self._advance()
        self._working += sign
        self._working_s = self._working_s + sign * job.cost_s if self._working else 0.0

    def _share(self) -> float:
        """Seconds of the server that each job worked on has had so far."""
        with self._lock:
            self._advance()
            return self._shared_s

    def _advance(self) -> None:
        now = time.monotonic()
        self._shared_s += (now - self._shared_at) / max(1, self._working)
        self._shared_at = now

    def _turn(self) -> Priority:
        if not self._queues[Priority.BULK]:
            return Priority.INTERACTIVE
        if not self._queues[Priority.INTERACTIVE] or self._fair_share.owes(self._bulk_step_s):
            return Priority.BULK
        return Priority.INTERACTIVE

    def _account(self, job: Job[Any], spent_s: float) -> None:
        """Time is owed and paid where one priority holds the other up."""
        priority = job.call.priority
        with self._lock:
            self._work_on(job, -1)
            if priority is Priority.BULK:
                self._bulk_step_s = min(spent_s, OWED_MAX_S / 2)
            other = Priority.INTERACTIVE if priority is Priority.BULK else Priority.BULK
            if self._queues[other]:
                self._fair_share.spend(priority, spent_s)

    def _put_back(self, job: Job[Any]) -> None:
        try:
            self.put(job)
        except NotReady as closed:
            job.refuse(closed)

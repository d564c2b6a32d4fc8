"""Match scheduler: a fixed thread pool; earliest deadline first, interactive before bulk.

A job works in steps. Between two of them it goes back into the queue, so that an interactive call
never waits for more than one step of a bulk job.
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
"""Work that may be stopped or overtaken at each yield; it returns the answer."""

TOGETHER_S: Final = 0.1
"""About the time an encoder takes for the largest useful batch."""

OWED_MAX_S: Final = 1.0
BULK_STEP_S: Final = 0.05
"""How long a step of bulk work takes, before one was seen."""


class Job(Generic[T]):
    """A task on the match threads. `cost_s` is the time it is expected to take on an otherwise idle
    server; `spent_s` is how long it has run so far, and `share_s` its share of that time: of two
    jobs at once, half each.

    It runs in the context it was made in. `post` is called once, in any thread, with the answer or
    the error.
    """

    def __init__(
        self,
        begin: Callable[[CallContext], Steps[T]],
        priority: Priority,
        deadline: float,
        post: Callable[[T | None, BaseException | None], None],
        cost_s: float = 0.0,
    ) -> None:
        self.call = CallContext(priority, deadline, self.is_wanted)
        self.cost_s = cost_s
        self.spent_s = 0.0
        self.share_s = 0.0
        self._steps: Steps[T] | None = begin(self.call)
        self._post = post
        self._wanted = True
        self._context = contextvars.copy_context()

    def is_wanted(self) -> bool:
        """Whether the answer is still wanted; once False, it stays so."""
        return self._wanted

    def abandon(self) -> None:
        """The answer is not wanted any more: release the request, also while the job is queued."""
        self._wanted = False
        self._steps = None

    def step(self, shared_s: Callable[[], float]) -> bool:
        """Run to the next yield; False where nothing is left to do. `shared_s` is a clock that
        runs the slower, the more jobs run at once."""
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
        except BaseException as fault:  # every error is the caller's answer
            answer, error = None, fault
        else:
            self._spend(begun, shared_s() - share_begun)
            return True
        self._spend(begun, shared_s() - share_begun)
        self._steps = None
        self._post(answer, error)
        return False

    def refuse(self, error: BaseException) -> None:
        """Post an error as the answer, where no thread will come to one."""
        if self._wanted:
            self._post(None, error)

    def _spend(self, begun: float, share_s: float) -> None:
        self.spent_s += time.monotonic() - begun
        self.share_s += share_s


def expired() -> DeadlinePassed:
    """The error of a job whose deadline has passed."""
    return DeadlinePassed(
        "the deadline passed before there was an answer: send less at once, later, or wait longer"
    )


class MatchScheduler:
    """Threads that run jobs, earliest deadline first, interactive before bulk. While both wait,
    bulk gets a fixed part of the time, so that it never starves.

    Jobs that run at once are encoded in one batch; too many of them would all be late. A job
    begins beside others while their costs together are under TOGETHER_S, or fewer than
    `together_min` run.
    """

    def __init__(self, threads: int, together_min: int = 2) -> None:
        self._together_min = together_min
        self._working = 0
        self._working_s = 0.0
        self._shared_s = 0.0
        self._shared_at = time.monotonic()
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []
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
            self._wake_thread()

    def drop(self, job: Job[Any]) -> None:
        """Remove a job whose answer is not wanted, if it is queued."""
        with self._lock:
            queue = self._queues[job.call.priority]
            kept = [entry for entry in queue if entry[2] is not job]
            if len(kept) < len(queue):
                heapq.heapify(kept)
                self._queues[job.call.priority] = kept

    def close(self) -> None:
        """Take no more jobs; the threads end after their present step."""
        with self._lock:
            self._closed = True
            for queue in self._queues.values():
                queue.clear()
            while self._idle:
                self._idle.pop().release()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads to end; False where one did not in time."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # ------------------------------------------------------------ the threads

    def _work(self) -> None:
        wake = threading.Lock()  # a binary semaphore: threading.Semaphore is made in Python
        wake.acquire()
        while (job := self._next(wake)) is not None:
            before_s = job.spent_s
            unfinished = job.step(self._share)
            self._account(job, job.spent_s - before_s)
            if unfinished:
                self._put_back(job)
            del job  # an idle thread must not hold a request

    def _next(self, wake: threading.Lock) -> Job[Any] | None:
        """Wait for a job that may begin; None once closed."""
        while True:
            with self._lock:
                if self._closed:
                    return None
                if self._may_begin():
                    job = heapq.heappop(self._queues[self._turn()])[2]
                    self._work_on(job, 1)
                    self._wake_thread()  # when this one is done, it takes a job without being woken
                    return job
                self._idle.append(wake)
            wake.acquire()

    def _wake_thread(self) -> None:
        """With the lock held: where a job may begin, wake the most recently idle thread (warm
        caches). Round-robin over 16 threads doubled the time per job."""
        if self._idle and self._may_begin():
            self._idle.pop().release()

    def _may_begin(self) -> bool:
        if not any(self._queues.values()):
            return False
        job = self._queues[self._turn()][0][2]
        return self._working < self._together_min or self._working_s + job.cost_s <= TOGETHER_S

    def _work_on(self, job: Job[Any], sign: int) -> None:
        """With the lock held: one job more or less runs."""
        self._advance()
        self._working += sign
        self._working_s = self._working_s + sign * job.cost_s if self._working else 0.0

    def _share(self) -> float:
        """The shared clock: seconds that a job would have had that ran all the time."""
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

"""How many jobs are worked on at once, and what each is said to have cost."""

from __future__ import annotations

import math
import threading
import time

import pytest

from simsearch.serve.scheduling.scheduler import TOGETHER_S, Job, MatchScheduler, Steps
from simsearch.types import CallContext, Priority

THREADS = 4


class World:
    """Jobs that stay at work until they are let go; `most` is how many there were at a time."""

    def __init__(self, together_min: int) -> None:
        self.turns = MatchScheduler(THREADS, together_min)
        self.let_go = threading.Event()
        self.jobs: list[Job[int]] = []
        self.done = threading.Semaphore(0)
        self.most = self.now = 0
        self._lock = threading.Lock()

    def put(self, cost_s: float) -> None:
        job = Job(
            self._steps, Priority.INTERACTIVE, math.inf, lambda *_: self.done.release(), cost_s
        )
        self.jobs.append(job)
        self.turns.put(job)

    def _steps(self, call: CallContext) -> Steps[int]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.let_go.wait(10)
        with self._lock:
            self.now -= 1
        return 0
        yield

    def most_of(self, jobs: int, cost_s: float) -> int:
        for _ in range(jobs):
            self.put(cost_s)
        until = time.monotonic() + 0.3
        while self.most < THREADS and time.monotonic() < until:
            time.sleep(0.005)
        self.let_go.set()
        for _ in range(jobs):
            assert self.done.acquire(timeout=10)
        self.turns.close()
        assert self.turns.join(10)
        return self.most


@pytest.mark.parametrize("together_min", [1, 2])
def test_jobs_that_cost_much_are_not_begun_all_at_once(together_min: int) -> None:
    """All of them would be late; in turn, those in front are in time."""
    assert World(together_min).most_of(6, TOGETHER_S) == together_min


def test_jobs_that_cost_little_are_worked_on_together() -> None:
    """So that an encoder can take them in one batch."""
    assert World(1).most_of(6, TOGETHER_S / 10) == THREADS


def test_two_jobs_at_once_are_said_to_have_cost_half_the_time_each() -> None:
    """What calls cost is added up to how long a queue is: it must not count time twice."""
    world = World(2)
    for _ in range(2):
        world.put(1.0)
    while world.now < 2:
        time.sleep(0.001)
    time.sleep(0.1)
    world.let_go.set()
    assert world.done.acquire(timeout=10)
    assert world.done.acquire(timeout=10)
    shares, times = ([getattr(job, name) for job in world.jobs] for name in ("share_s", "spent_s"))
    assert sum(shares) <= max(times) + 0.02
    assert sum(shares) >= 0.09
    assert sum(times) >= 0.19
    world.turns.close()
    assert world.turns.join(10)


def test_the_thread_that_worked_last_works_next() -> None:
    """Its memory is at hand; in turn, many threads that have little to do take twice the time."""
    turns, names, done = MatchScheduler(THREADS), set[str](), threading.Semaphore(0)

    def steps(call: CallContext) -> Steps[None]:
        names.add(threading.current_thread().name)
        return
        yield

    for _ in range(20):
        turns.put(Job(steps, Priority.INTERACTIVE, math.inf, lambda *_: done.release()))
        assert done.acquire(timeout=10)
        time.sleep(0.005)  # it goes to rest
    turns.close()
    assert turns.join(10)
    assert len(names) == 1

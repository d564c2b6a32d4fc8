"""Executors of blocking work: match threads, with admission and a queue; a pool of edit threads.

A call that is given up must cost nothing more: a waiting one releases its request at once, a
running one is told to stop, and does so between two steps of its work.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from simsearch.config import ServerConfig
from simsearch.errors import DeadlinePassed, NotReady, Overloaded, SimsearchError
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.admission import (
    AdmissionCounts,
    Bounds,
    Cause,
    Demand,
    Limiter,
    Permit,
    Rejection,
)
from simsearch.serve.scheduling.scheduler import Job, MatchScheduler, Steps, expired
from simsearch.types import CallContext, Priority
from simsearch.wire.request_weight import Weight

T = TypeVar("T")

Task: TypeAlias = Callable[[Core, CallContext], Steps[T]]

EDIT_THREADS: Final = 16
WAIT_MAX_S: Final = 0.1
"""A call that waits for room checks again at least this often."""

_REJECTIONS: Final = {
    Cause.QUEUE: "calls queue for as long as this server lets them: retry after the hinted delay",
    Cause.DEADLINE: "the deadline would pass before the answer: retry later, or wait longer for it",
    Cause.SPACE: "as many items or bytes are in flight as this server takes: retry after the delay",
}


class _Executor:
    """Runs work on the core off the event loop, from `begin`."""

    def __init__(self) -> None:
        self._core: Core | None = None

    def begin(self, core: Core) -> None:
        """The core is loaded: work is taken from now on."""
        self._core = core

    def loaded(self) -> Core:
        """Raises NotReady before `begin`."""
        if self._core is None:
            raise NotReady("the server is still loading its index and encoders: ask again soon")
        return self._core


class MatchExecutor(_Executor):
    """Runs match tasks on the match threads, after admission. Before `begin`, raises NotReady."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__()
        self.config = config
        self.limiter = Limiter(
            Bounds(
                workers=1,  # costs are shares of the whole server
                queue_time_max_s=config.queue_time_max_s,
                items_max=config.items_in_flight_max,
                bytes_max=config.bytes_in_flight_max,
            )
        )
        self.draining = asyncio.Event()
        self._scheduler = MatchScheduler(config.match_threads, config.search_threads)
        self._jobs: dict[Job[Any], asyncio.Future[Any]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    def drain(self) -> None:
        """From now on admit nothing; what was admitted goes on."""
        self.limiter.drain()
        self.draining.set()

    @property
    def counts(self) -> AdmissionCounts:
        """What admission has counted."""
        return self.limiter.counts

    @property
    def waiting(self) -> int:
        """Jobs that wait for a match thread."""
        return len(self._scheduler)

    def demand(self, weight: Weight, priority: Priority, remaining_s: float | None) -> Demand:
        """A demand whose deadline is the caller's, or else the default, within the bound of one
        call."""
        wanted_s = self.config.default_deadline_s if remaining_s is None else remaining_s
        allowed_s = min(wanted_s, self.config.match_timeout_s)
        return Demand(weight, priority, time.monotonic() + allowed_s)

    async def match(self, task: Task[T], demand: Demand) -> T:
        """The task's answer. Raises Overloaded at once where it could not come in time,
        DeadlinePassed where it did not, and what the task raises."""
        core = self.loaded()
        return await self._run(core, task, self._permit(demand))

    async def match_in_turn(self, task: Task[T], demand: Demand) -> T:
        """As `match`, but waits for room. Raises Overloaded where the deadline leaves no time."""
        core = self.loaded()
        await self._room(demand)
        return await self._run(core, task, self._permit(demand))

    async def probe(self, task: Task[T], timeout_s: float) -> T:
        """The answer of a job of the server's own, without admission: overload is no fault.
        Raises DeadlinePassed where it was not done in time, and what the task raises."""
        core, loop = self.loaded(), asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        post, deadline = partial(_post_result, loop, answer), time.monotonic() + timeout_s
        job = Job(partial(task, core), Priority.INTERACTIVE, deadline, post)
        self._scheduler.put(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise expired() from None
        finally:
            job.abandon()
            self._scheduler.drop(job)

    def close(self, timeout_s: float) -> bool:
        """Stop what runs and wait for it; False where some of it did not end in time."""
        for job in list(self._jobs):
            job.refuse(NotReady("the server is shutting down: ask another one"))
            job.abandon()
        self._scheduler.close()
        return self._scheduler.join(timeout_s)

    def _permit(self, demand: Demand) -> Permit:
        outcome = self.limiter.admit(demand, time.monotonic())
        if isinstance(outcome, Rejection):
            raise _error(outcome)
        return outcome

    async def _room(self, demand: Demand) -> None:
        """Returns once the demand would be admitted, or never will be."""
        while rejection := self.limiter.check(demand, time.monotonic()):
            if rejection.cause in (Cause.DEADLINE, Cause.DRAINING):
                return
            left = asyncio.get_running_loop().create_future()
            self._waiting.append(left)
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_MAX_S):
                    await left

    async def _run(self, core: Core, task: Task[T], permit: Permit) -> T:
        """The answer to an admitted call; its permit is given back in any case."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        demand, post = permit.demand, partial(_post_result, loop, answer)
        job = Job(partial(task, core), demand.priority, demand.deadline, post, permit.cost_s)
        self._jobs[job] = answer
        completed = False
        try:
            self._scheduler.put(job)
            async with asyncio.timeout(demand.deadline - time.monotonic()):
                value = await answer
            completed = True
            return value
        except (TimeoutError, DeadlinePassed):
            self.limiter.expired()
            raise expired() from None
        except asyncio.CancelledError:
            self.limiter.cancelled()
            raise
        finally:
            del self._jobs[job]
            job.abandon()
            if not completed:
                self._scheduler.drop(job)
            # An unfinished job cost at least what it has spent: too low an estimate learns of it.
            learnt = completed or job.share_s > permit.cost_s
            self.limiter.give_back(permit, job.share_s if learnt else None)
            self._wake_next_waiter()

    def _wake_next_waiter(self) -> None:
        while self._waiting:
            left = self._waiting.popleft()
            if not left.done():
                left.set_result(None)
                return


class EditExecutor(_Executor):
    """Runs edits and look-ups on a thread pool of their own. Before `begin`, raises NotReady."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(EDIT_THREADS, thread_name_prefix="edit")

    async def run(self, task: Callable[[Core], T]) -> T:
        """What the task returns or raises, in the context of the running call."""
        core, context = self.loaded(), contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, task, core)

    def stop(self) -> None:
        """Take no more work, and drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self, timeout_s: float) -> bool:
        """Stop, and wait for what runs; False where some of it did not end in time."""
        self.stop()
        until = time.monotonic() + timeout_s
        for thread in self._pool._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._pool._threads)


class Executors:
    """The two executors of one server."""

    def __init__(self, config: ServerConfig) -> None:
        self.matches = MatchExecutor(config)
        self.edits = EditExecutor()

    def begin(self, core: Core) -> None:
        """The core is loaded: work is taken from now on."""
        self.matches.begin(core)
        self.edits.begin(core)

    def close(self, timeout_s: float) -> bool:
        """Stop both and wait for what runs; False where some of it did not end in time."""
        until = time.monotonic() + timeout_s
        self.edits.stop()
        matched = self.matches.close(timeout_s)
        return self.edits.close(max(0.0, until - time.monotonic())) and matched


def _post_result(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[T],
    value: T | None,
    error: BaseException | None,
) -> None:
    """Resolve the future, from any thread."""
    with suppress(RuntimeError):  # the loop is closed, and with it the call
        loop.call_soon_threadsafe(_resolve, answer, value, error)


def _resolve(answer: asyncio.Future[T], value: T | None, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)  # type: ignore[arg-type]  # None only where T is None


def _error(rejection: Rejection) -> SimsearchError:
    if rejection.cause is Cause.DRAINING:
        return NotReady("the server is shutting down: ask another one")
    return Overloaded(_REJECTIONS[rejection.cause], retry_after_ms=rejection.retry_after_ms)

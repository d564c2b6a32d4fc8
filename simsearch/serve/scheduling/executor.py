"""Where blocking work runs: match threads, for which calls are admitted and queue; edit threads.

A call that is given up must cost nothing more: one that waits lets go of its request at once, one
that runs is told to stop and does so between two steps of its work.
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
    Refusal,
    Ticket,
)
from simsearch.serve.scheduling.scheduler import Job, Steps, Turns, expired
from simsearch.types import CallContext, Priority
from simsearch.wire.request_weight import Weight

T = TypeVar("T")

Task: TypeAlias = Callable[[Core, CallContext], Steps[T]]

EDIT_THREADS: Final = 16
WAIT_MAX_S: Final = 0.1
"""How long one who waits for room sleeps at most before looking again."""

_REFUSALS: Final = {
    Cause.QUEUE: "calls queue for as long as this server lets them: retry after the hinted delay",
    Cause.DEADLINE: "the deadline would pass before the answer: retry later, or wait longer for it",
    Cause.SPACE: "as many items or bytes are in flight as this server takes: retry after the delay",
}


class Work:
    """Runs work on the core off the event loop. Before `begin`, refuses with NotReady."""

    def __init__(self, config: ServerConfig) -> None:
        self._core: Core | None = None
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
        self._turns = Turns(config.match_threads, config.search_threads)
        self._jobs: dict[Job[Any], asyncio.Future[Any]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._edit_pool = ThreadPoolExecutor(EDIT_THREADS, thread_name_prefix="edit")

    def begin(self, core: Core) -> None:
        self._core = core

    def drain(self) -> None:
        """From now on admit nothing; what was admitted goes on."""
        self.limiter.drain()
        self.draining.set()

    @property
    def counts(self) -> AdmissionCounts:
        return self.limiter.counts

    def demand(self, weight: Weight, priority: Priority, remaining_s: float | None) -> Demand:
        """With a deadline for the caller who set none, and none beyond what one call may take."""
        wanted_s = self.config.default_deadline_s if remaining_s is None else remaining_s
        allowed_s = min(wanted_s, self.config.match_timeout_s)
        return Demand(weight, priority, time.monotonic() + allowed_s)

    # ------------------------------------------------------------ matching

    async def match(self, task: Task[T], demand: Demand) -> T:
        """Raises Overloaded at once where it would not be answered in time, DeadlinePassed where
        it was not."""
        core = self.loaded()
        return await self._serve(core, task, self._admitted(demand))

    async def match_in_turn(self, task: Task[T], demand: Demand) -> T:
        """As `match`, but waits for room. Raises Overloaded where the deadline leaves no time."""
        core = self.loaded()
        await self._room(demand)
        return await self._serve(core, task, self._admitted(demand))

    def _admitted(self, demand: Demand) -> Ticket:
        outcome = self.limiter.admit(demand, time.monotonic())
        if isinstance(outcome, Refusal):
            raise _error(outcome)
        return outcome

    async def _room(self, demand: Demand) -> None:
        """Returns once the demand would be admitted, or never will be."""
        while refusal := self.limiter.check(demand, time.monotonic()):
            if refusal.cause in (Cause.DEADLINE, Cause.DRAINING):
                return
            left = asyncio.get_running_loop().create_future()
            self._waiting.append(left)
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_MAX_S):
                    await left

    async def _serve(self, core: Core, task: Task[T], ticket: Ticket) -> T:
        """The answer to an admitted call; its ticket is given back whatever happens."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        demand = ticket.demand

        settle = partial(_tell, loop, answer)
        job = Job(
            lambda call: task(core, call), demand.priority, demand.deadline, settle, ticket.cost_s
        )
        self._jobs[job] = answer
        came_to_an_end = False
        try:
            self._turns.put(job)
            async with asyncio.timeout(demand.deadline - time.monotonic()):
                value = await answer
            came_to_an_end = True
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
            if not came_to_an_end:
                self._turns.drop(job)
            # What was given up unfinished costs as much at least, or nothing would be learnt of it.
            learnt = came_to_an_end or job.share_s > ticket.cost_s
            self.limiter.give_back(ticket, job.share_s if learnt else None)
            self._call_who_waits()

    def _call_who_waits(self) -> None:
        while self._waiting:
            left = self._waiting.popleft()
            if not left.done():
                left.set_result(None)
                return

    async def probe(self, task: Task[T], timeout_s: float) -> T:
        """One job of the server's own, past admission: having too much to do is not being broken.
        Raises DeadlinePassed where it was not done in time, and whatever the task raises."""
        core, loop = self.loaded(), asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        settle = partial(_tell, loop, answer)
        deadline = time.monotonic() + timeout_s
        job = Job(lambda call: task(core, call), Priority.INTERACTIVE, deadline, settle)
        self._turns.put(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise expired() from None
        finally:
            job.abandon()
            self._turns.drop(job)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a match thread."""
        return len(self._turns)

    # ------------------------------------------------------------ edits

    async def edit(self, task: Callable[[Core], T]) -> T:
        core, context = self.loaded(), contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._edit_pool, context.run, task, core
        )

    def loaded(self) -> Core:
        """Raises NotReady before `begin`."""
        if self._core is None:
            raise NotReady("the server is still loading its index and encoders: ask again soon")
        return self._core

    def close(self, timeout_s: float) -> bool:
        """Stop what runs and wait for it; False where some of it did not end in time."""
        for job in list(self._jobs):
            job.refuse(NotReady("the server is shutting down: ask another one"))
            job.abandon()
        self._turns.close()
        self._edit_pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + timeout_s
        matching = self._turns.join(timeout_s)
        for thread in self._edit_pool._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return matching and not any(thread.is_alive() for thread in self._edit_pool._threads)


def _tell(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[T],
    value: T | None,
    error: BaseException | None,
) -> None:
    """From any thread."""
    with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
        loop.call_soon_threadsafe(_settle, answer, value, error)


def _settle(answer: asyncio.Future[T], value: T | None, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)  # type: ignore[arg-type]  # None only where T is None


def _error(refusal: Refusal) -> SimsearchError:
    if refusal.cause is Cause.DRAINING:
        return NotReady("the server is shutting down: ask another one")
    return Overloaded(_REFUSALS[refusal.cause], retry_after_ms=refusal.retry_after_ms)

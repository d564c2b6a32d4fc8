"""Where blocking work runs: match threads and edit threads, each a bounded pool.

A call that is given up must cost nothing more: one that waits lets go of its request at once, one
that runs is told to stop and does so between two slices of its work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from simsearch.errors import NotReady, Overloaded
from simsearch.serve.core import Core

T = TypeVar("T")

EDIT_THREADS = 16


class Stop:
    """Asked between slices of long work: does anybody still want it?"""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        self._asked.set()

    def check(self) -> None:
        """Raises NotReady once nobody waits for the answer any more."""
        if self._asked.is_set():
            raise NotReady("the call was given up or the server is shutting down")


class _Job(Generic[T]):
    """A task on its way through a pool. Pools keep cancelled items queued: this one lets go."""

    def __init__(self, task: Callable[[Core, Stop], T]) -> None:
        self._task: Callable[[Core, Stop], T] | None = task
        self.stop = Stop()

    def __call__(self, core: Core) -> T:
        task = self._task
        self.stop.check()
        assert task is not None  # abandon() asks to stop first
        return task(core, self.stop)

    def abandon(self) -> None:
        self.stop.ask()
        self._task = None


class Work:
    """Runs a function of the core off the event loop. Before `begin`, refuses with NotReady."""

    def __init__(self, match_threads: int, match_timeout_s: float) -> None:
        self._core: Core | None = None
        self._match_timeout_s = match_timeout_s
        self._match_pool = ThreadPoolExecutor(match_threads, thread_name_prefix="match")
        self._edit_pool = ThreadPoolExecutor(EDIT_THREADS, thread_name_prefix="edit")
        self._jobs: set[_Job[Any]] = set()

    def begin(self, core: Core) -> None:
        self._core = core

    async def match(self, task: Callable[[Core, Stop], T]) -> T:
        """Raises Overloaded where it takes longer than one call may."""
        try:
            return await asyncio.wait_for(self._run(self._match_pool, task), self._match_timeout_s)
        except TimeoutError:
            raise Overloaded(
                f"no answer within {self._match_timeout_s:g} s: send smaller batches, or later"
            ) from None

    async def edit(self, task: Callable[[Core], T]) -> T:
        return await self._run(self._edit_pool, lambda core, _: task(core))

    async def _run(self, pool: ThreadPoolExecutor, task: Callable[[Core, Stop], T]) -> T:
        core = self._core
        if core is None:
            raise NotReady("the server is still loading its index and encoders: ask again soon")
        job = _Job(task)
        self._jobs.add(job)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, job, core)
        finally:
            job.abandon()
            self._jobs.discard(job)

    def close(self, timeout_s: float) -> bool:
        """Stop what runs and wait for it; False where some of it did not end in time."""
        for job in list(self._jobs):
            job.abandon()
        pools = (self._match_pool, self._edit_pool)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + timeout_s
        for thread in [t for pool in pools for t in pool._threads]:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(t.is_alive() for pool in pools for t in pool._threads)

"""Where blocking work runs: match threads and edit threads, each a bounded pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from simsearch.errors import NotReady
from simsearch.serve.core import Core

T = TypeVar("T")

EDIT_THREADS = 16


class Work:
    """Runs a function of the core off the event loop. Before `begin`, refuses with NotReady.

    The pools' queues are bounded by the gate in front of them: it admits no more calls than
    `requests_max`. A cancelled call cancels its future, so work not yet begun never costs.
    """

    def __init__(self, match_threads: int) -> None:
        self._core: Core | None = None
        self._match_pool = ThreadPoolExecutor(match_threads, thread_name_prefix="match")
        self._edit_pool = ThreadPoolExecutor(EDIT_THREADS, thread_name_prefix="edit")

    def begin(self, core: Core) -> None:
        self._core = core

    async def match(self, task: Callable[[Core], T]) -> T:
        return await self._run(self._match_pool, task)

    async def edit(self, task: Callable[[Core], T]) -> T:
        return await self._run(self._edit_pool, task)

    async def _run(self, pool: ThreadPoolExecutor, task: Callable[[Core], T]) -> T:
        core = self._core
        if core is None:
            raise NotReady("the server is still loading its index and encoders: ask again soon")
        return await asyncio.get_running_loop().run_in_executor(pool, task, core)

    def close(self) -> None:
        for pool in (self._match_pool, self._edit_pool):
            pool.shutdown(wait=True, cancel_futures=True)

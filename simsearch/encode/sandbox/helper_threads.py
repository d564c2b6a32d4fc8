"""Helper threads: a parallel map on a shared pool that never waits for a free thread."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class HelperThreads:
    """A pool of `count` threads, shared by all calls. The calling thread works too, together with
    the helpers that are free at that moment. Thread-safe."""

    def __init__(self, count: int, name: str) -> None:
        """`count` 0: the calling thread does everything."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name) if count else None
        self._free = threading.Semaphore(count)

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`work` of each item, in order. Where it raises for one, no further items are begun, and
        the error is raised."""
        left = deque(enumerate(items))
        done: dict[int, R] = {}

        def one() -> bool:
            """The next item; False where none is left."""
            try:
                number, item = left.popleft()
            except IndexError:
                return False
            try:
                done[number] = work(item)
            except BaseException:
                left.clear()
                raise
            return True

        helping: list[Future[None]] = []
        try:
            while len(left) > 1:
                self._call(one, len(left) - 1, helping)
                one()
            one()
        finally:
            wait(helping)
        for hand in helping:
            hand.result()
        return [done[number] for number in range(len(items))]

    def close(self) -> None:
        """Finish what is begun; later calls of `map` get no helpers."""
        if self._pool is not None:
            self._pool.shutdown()

    def _call(self, one: Callable[[], bool], wanted: int, helping: list[Future[None]]) -> None:
        """Each that is free works until nothing is left."""
        while wanted > 0 and self._pool is not None and self._free.acquire(blocking=False):
            context = contextvars.copy_context()  # its events are those of this call
            try:
                helping.append(self._pool.submit(context.run, self._help, one))
            except RuntimeError:  # closed
                self._free.release()
                return
            wanted -= 1

    def _help(self, one: Callable[[], bool]) -> None:
        try:
            while one():
                pass
        finally:
            self._free.release()

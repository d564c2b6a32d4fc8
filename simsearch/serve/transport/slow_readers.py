"""Slow readers: ends calls whose answers are not read.

A client whose flow-control window stays shut leaves its answers with gRPC, which bounds neither
their number nor their age, unless the call has a deadline. grpc.aio cannot end a call from the
server; it frees one that nothing references any more. Two tasks hold it: the one that answers, and
grpc's private `_schedule_rpc_coro`, which waits for the client to cancel. Both are cancelled here.

Because that is no public interface, it is checked, when the port opens and at the first call: where
the installed grpc works otherwise, the log says so, and unread answers are kept.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
from collections.abc import Collection, Iterator
from typing import Any, Final, TypeAlias
from weakref import WeakSet

import grpc

from simsearch.serve.transport.call_boundary import Call, CallLayer, Enter, Method
from simsearch.telemetry import EventLog

log = EventLog(__name__)

UNREAD_S: Final = 10.0
"""An answer is given up after this, and before twice as long."""

WAITS_FOR_CLIENT: Final = "_schedule_rpc_coro"
"""The coroutine of grpc that holds a call until its client cancels it."""

_Tasks: TypeAlias = "WeakSet[asyncio.Task[Any]]"


class SlowReaders(CallLayer):
    """Ends calls that were answered and not read. To be the outermost layer: what it has seen the
    end of is gRPC's alone. `ended` counts the calls that were given up."""

    def __init__(self) -> None:
        self.ended = 0
        self.works: bool | None = None
        """Whether the installed grpc lets calls be ended; None until it was checked."""
        self._lately: _Tasks = WeakSet()
        self._before: _Tasks = WeakSet()
        self._saw_call = False

    def bind(self, method: Method) -> Enter | None:
        """Every call that is answered in one message, and every stream of ours."""
        return self._enter if method.is_unary or (method.is_stream and method.is_ours) else None

    def _enter(self, call: Call) -> _Answering:
        task = asyncio.current_task()
        assert task is not None
        if not self._saw_call:
            self._saw_call = True
            self._note(any(answers is task for _, answers in _held_calls()), "first_call")
        return _Answering(self, task)

    def answered(self, task: asyncio.Task[Any]) -> None:
        """The call of this task has its answer."""
        self._lately.add(task)

    def check(self, module: object | None = None) -> None:
        """Look whether grpc still has the coroutine that holds a call; a warning where it has not.

        `module` is grpc's compiled core, unless a test gives another."""
        core = module or importlib.import_module("grpc._cython.cygrpc")
        self._note(hasattr(core, WAITS_FOR_CLIENT), "start")

    def _note(self, works: bool, when: str) -> None:
        if not works and self.works is not False:
            log.warning("unread_answers_kept", grpc=grpc.__version__, check=when)
        self.works = works and self.works is not False

    async def watch(self, every_s: float = UNREAD_S) -> None:
        """Sweep at this interval until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.sweep()

    def sweep(self) -> None:
        """End the calls that were answered before the last sweep and are still held."""
        if self._before and (ended := _end(self._before)):
            self.ended += ended
            log.warning("answers_not_taken", calls=ended)
        self._before, self._lately = self._lately, WeakSet()


class _Answering:
    """Around one call: afterwards its task counts as answered. The task is taken at the beginning,
    because a stream that was cancelled while it sent ends in another one."""

    __slots__ = ("_owner", "_task")

    def __init__(self, owner: SlowReaders, task: asyncio.Task[Any]) -> None:
        self._owner = owner
        self._task = task

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._owner.answered(self._task)


def _end(answered: Collection[asyncio.Task[Any]]) -> int:
    """End the calls of these tasks; returns how many gRPC still held."""
    held = [pair for pair in _held_calls() if pair[1] in answered]
    for waiting, answers in held:
        answers.cancel()
        waiting.cancel()
    return len(held)


def _held_calls() -> Iterator[tuple[asyncio.Task[Any], asyncio.Task[Any]]]:
    """For every call that gRPC holds: the task that waits for its client, and the one that
    answers. The first has the second among its local variables, and only the garbage collector
    knows those of compiled code."""
    for waiting in asyncio.all_tasks():
        coroutine = waiting.get_coro()
        if getattr(coroutine, "__name__", "") == WAITS_FOR_CLIENT:
            for each in gc.get_referents(*gc.get_referents(coroutine)):
                if isinstance(each, asyncio.Task):
                    yield waiting, each

"""Answers that nobody takes: a caller whose window stays shut leaves each of them with gRPC, which
has no bound on how many or for how long, unless the call has a deadline.

gRPC's asyncio server has no word for ending a call either. It ends one that nobody holds any more;
what holds it are the task that answers, and the one beside it that waits for the caller to give up.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing
from typing import Any, Final, TypeAlias
from weakref import WeakSet

import grpc

from simsearch.serve.transport.interceptors import OURS, Behaviour, Context, StreamBehaviour
from simsearch.telemetry import EventLog

log = EventLog(__name__)

UNTAKEN_S: Final = 10.0
"""An answer is given up after this, and before twice as long."""

_WAITS_FOR_THE_CALLER: Final = "_schedule_rpc_coro"

_Tasks: TypeAlias = "WeakSet[asyncio.Task[Any]]"


class Untaken(grpc.aio.ServerInterceptor):
    """To be the first interceptor: a call that it has seen the end of is gRPC's alone. `ended` are
    the calls that were given up."""

    def __init__(self) -> None:
        self.ended = 0
        self._lately: _Tasks = WeakSet()
        self._before: _Tasks = WeakSet()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_stream and details.method.startswith(OURS):
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler

    def _unary(self, behaviour: Behaviour) -> Behaviour:
        async def answered(request: Any, context: Context) -> Any:
            task = _this_task()
            try:
                return await behaviour(request, context)
            finally:
                self._lately.add(task)

        return answered

    def _stream(self, behaviour: StreamBehaviour) -> StreamBehaviour:
        async def answered(requests: Any, context: Context) -> AsyncGenerator[Any]:
            task = _this_task()
            try:
                async with aclosing(behaviour(requests, context)) as responses:
                    async for response in responses:
                        yield response
            finally:  # in another task, where this one was cancelled while it sent
                self._lately.add(task)

        return answered

    async def watch(self, every_s: float = UNTAKEN_S) -> None:
        """Look after each such time, for ever."""
        while True:
            await asyncio.sleep(every_s)
            self.sweep()

    def sweep(self) -> None:
        """Give up what was answered before the last sweep and is still there."""
        if self._before and (ended := _give_up(self._before)):
            self.ended += ended
            log.warning("answers_not_taken", calls=ended)
        self._before, self._lately = self._lately, WeakSet()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _give_up(answered: Collection[asyncio.Task[Any]]) -> int:
    """Let go of these calls; returns how many gRPC still had."""
    held = [pair for pair in _waiting() if pair[1] in answered]
    for waiting, task in held:
        task.cancel()
        waiting.cancel()
    return len(held)


def _waiting() -> Iterator[tuple[asyncio.Task[Any], asyncio.Task[Any]]]:
    """Of every call the task that waits for its caller, and the one that answers. gRPC tells
    nobody which belong together: the first has the second among its variables."""
    for waiting in asyncio.all_tasks():
        coroutine = waiting.get_coro()
        if getattr(coroutine, "__name__", "") == _WAITS_FOR_THE_CALLER:
            for each in gc.get_referents(*gc.get_referents(coroutine)):
                if isinstance(each, asyncio.Task):
                    yield waiting, each

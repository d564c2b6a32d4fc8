"""Async stream: the same for asyncio; its contents may come from a loop or from an async one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
)
from typing import Any

import grpc

from simsearch.client.calls.match_calls import Outcome
from simsearch.client.calls.rpcs import STREAM_MATCH
from simsearch.client.streaming.send_window import SendWindow
from simsearch.client.streaming.sync_stream import Source
from simsearch.client.transport.channel import Transport
from simsearch.types import Content


async def streamed(
    transport: Transport,
    window: SendWindow,
    contents: Iterable[Content] | AsyncIterable[Content],
    silence_s: float,
) -> AsyncGenerator[tuple[int, Outcome]]:
    """As `sync_stream.streamed`."""
    source = Source(window, _Puller(contents), transport.retry.attempts_max)
    try:
        while not source.is_done:
            transport.check_open()
            if window.is_answered:
                await asyncio.wait([source.contents.ask()])
                for refused in _taken(source):
                    yield refused
                continue
            source.restart()
            with transport.errors_mapped():
                try:
                    async with contextlib.aclosing(_over(transport, source, silence_s)) as found:
                        async for one in found:
                            yield one
                except grpc.RpcError as failure:
                    if not source.may_restart(failure):
                        raise
    finally:
        await source.contents.close()


class _Puller:
    """Asks for one content at a time, and keeps what was asked for when a stream ends."""

    def __init__(self, contents: Iterable[Content] | AsyncIterable[Content]) -> None:
        self._contents = aiter(contents if isinstance(contents, AsyncIterable) else _each(contents))
        self.asked: asyncio.Task[Content | None] | None = None

    def ask(self) -> asyncio.Task[Content | None]:
        if self.asked is None:
            self.asked = asyncio.create_task(self._next())
        return self.asked

    def taken(self) -> Content | None:
        """What was asked for and has come; None at the end."""
        assert self.asked is not None
        asked, self.asked = self.asked, None
        return asked.result()

    async def close(self) -> None:
        if self.asked is not None:
            await _ended(self.asked)

    async def _next(self) -> Content | None:
        return await anext(self._contents, None)


async def _each(contents: Iterable[Content]) -> AsyncIterator[Content]:
    for content in contents:
        yield content


async def _over(
    transport: Transport, source: Source[_Puller], silence_s: float
) -> AsyncGenerator[tuple[int, Outcome]]:
    """As `sync_stream._over`."""
    call = transport.method(STREAM_MATCH)(metadata=transport.metadata)
    reading: asyncio.Task[Any] = asyncio.create_task(call.read())
    writing: asyncio.Task[Any] | None = None
    heard = time.monotonic()
    try:
        while not source.is_done:
            if writing is None and (message := source.next_message()):
                writing = asyncio.create_task(call.write(message))
            pulling = source.contents.ask() if source.may_pull else None
            await asyncio.wait(
                {task for task in (reading, writing, pulling) if task is not None},
                timeout=source.patience_s(heard, silence_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if reading.done():
                heard = time.monotonic()
                if reading.exception() is not None and source.window.is_answered:
                    return
                reply = reading.result()
                for found in source.answered(None if reply is grpc.aio.EOF else reply):
                    yield found
                reading = asyncio.create_task(call.read())
            if writing is not None and writing.done():
                writing = _written(writing)
            if pulling is not None and pulling.done():
                for found in _taken(source):
                    yield found
                heard = time.monotonic()
    finally:
        call.cancel()
        await _ended(reading)
        if writing is not None:
            await _ended(writing)


def _taken(source: Source[_Puller]) -> Iterable[tuple[int, Outcome]]:
    """What was asked for goes into the window."""
    content = source.contents.taken()
    source.is_more_coming = content is not None
    return () if content is None else source.give(content)


def _written(writing: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    """Where writing failed the stream has ended, and reading says with what: no more is written."""
    return writing if writing.exception() is not None else None


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

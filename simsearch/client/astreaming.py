"""The same stream for asyncio; its contents may come from a loop or from an async one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Any

import grpc

from simsearch.client.calls import STREAM_MATCH, Outcome
from simsearch.client.pool import Lane
from simsearch.client.sending import Sender
from simsearch.client.streaming import Source
from simsearch.client.window import Window
from simsearch.types import Content


async def streamed(
    sender: Sender,
    window: Window,
    contents: Iterable[Content] | AsyncIterable[Content],
    silence_s: float,
    pause: Callable[[float], Awaitable[None]],
) -> AsyncGenerator[tuple[int, Outcome]]:
    """As `streaming.streamed`."""
    source = Source(window, _Puller(contents))
    wait_s = 0.0
    try:
        while not source.is_done:
            if window.is_answered:
                await asyncio.wait([source.contents.ask()])
                for refused in _taken(source):
                    yield refused
                continue
            run = sender.begin(STREAM_MATCH, time.monotonic() + silence_s)
            came_further = False  # then what is left has attempts of its own
            while not (came_further or source.is_done):
                await pause(wait_s)
                window.restart()
                with run as priority:
                    async with contextlib.aclosing(
                        _over(priority, sender, source, silence_s)
                    ) as found:
                        async for one in found:
                            came_further = True
                            yield one
                if run.is_over:
                    raise run.error
                wait_s = run.wait_s
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
    priority: Lane, sender: Sender, source: Source[_Puller], silence_s: float
) -> AsyncGenerator[tuple[int, Outcome]]:
    """As `streaming._over`."""
    call = priority.method(STREAM_MATCH)(metadata=sender.metadata)
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

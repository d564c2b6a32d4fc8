"""Answers that are not read are given up, and nothing else is; a grpc that cannot is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from simsearch.serve.transport import slow_readers
from simsearch.serve.transport.call_boundary import OURS, CallBoundary
from simsearch.serve.transport.slow_readers import WAITS_FOR_CLIENT, SlowReaders
from tests.serve.http2 import END_HEADERS, END_STREAM, Kind, Raw, block, frame, message, opening

ANSWER = bytes(200_000)
SERVICE = f"{OURS.removeprefix('/')}Fake"


@dataclass
class Served:
    """One method that answers at once, one that does so once `go` is set, and one stream that
    never ends."""

    slow_readers: SlowReaders = field(default_factory=SlowReaders)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    address: str = ""

    async def at_once(self, request: bytes, context: Any) -> bytes:
        self.answered.release()
        return ANSWER

    async def later(self, request: bytes, context: Any) -> bytes:
        await self.go.wait()
        return ANSWER

    async def stream(self, requests: Any, context: Any) -> AsyncGenerator[bytes]:
        while True:
            self.answered.release()
            yield ANSWER

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Served]:
        server = grpc.aio.server(interceptors=[CallBoundary([self.slow_readers])])
        methods: dict[str, Any] = {
            "AtOnce": grpc.unary_unary_rpc_method_handler(self.at_once),
            "Later": grpc.unary_unary_rpc_method_handler(self.later),
            "Stream": grpc.stream_stream_rpc_method_handler(self.stream),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            await self.others(1)
            yield self
        finally:
            await server.stop(None)

    async def others(self, count: int = 5) -> None:
        """Calls that are taken: gRPC's server itself holds on to the first and the last of all."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            for _ in range(count):
                assert await ask(channel, "AtOnce") == ANSWER
        await self.has_answered(count)

    async def has_answered(self, count: int) -> None:
        async with asyncio.timeout(10):
            for _ in range(count):
                await self.answered.acquire()
        await asyncio.sleep(0.1)  # and given them to gRPC


def ask(channel: grpc.aio.Channel, method: str) -> Any:
    made: Any = channel.unary_unary(f"/{SERVICE}/{method}")
    return made(b"", timeout=20)


def call(number: int, method: str) -> bytes:
    headers = frame(Kind.HEADERS, END_HEADERS, number, block(f"/{SERVICE}/{method}"))
    return headers + frame(Kind.DATA, END_STREAM, number, message(b""))


def reset(raw: Raw) -> set[int]:
    """The calls that the server has ended without an answer."""
    return {each.stream for each in raw.frames(0.5) if each.kind == Kind.RST_STREAM}


def test_an_answer_that_nobody_takes_is_given_up_and_one_to_come_is_not() -> None:
    """Not before a whole sweep has passed over it; who waits for an answer gets it."""

    async def body() -> None:
        async with (
            Served().running() as served,
            grpc.aio.insecure_channel(served.address) as channel,
        ):
            waiting = ask(channel, "Later")
            with Raw(served.address) as raw:
                raw.send(opening(window=0), *(call(number, "AtOnce") for number in (1, 3, 5)))
                await served.has_answered(3)
                served.slow_readers.sweep()
                assert served.slow_readers.ended == 0
                raw.send(call(7, "AtOnce"))
                await served.has_answered(1)
                served.slow_readers.sweep()
                assert served.slow_readers.ended == 3
                await served.others()
                assert await asyncio.to_thread(reset, raw) == {1, 3, 5}
                served.slow_readers.sweep()
                assert served.slow_readers.ended == 4
            served.go.set()
            assert await waiting == ANSWER

    asyncio.run(body())


def test_a_stream_that_was_cancelled_is_let_go_by_grpc_too() -> None:
    """The task that answered has ended: what gRPC holds of it stays without this."""

    async def body() -> None:
        async with Served().running() as served:
            with Raw(served.address) as raw:
                raw.send(opening(window=0), call(1, "Stream"))
                await served.has_answered(1)
                [task] = [t for t in asyncio.all_tasks() if "HandleExceptions" in t.get_name()]
                task.cancel()
                await asyncio.wait([task])
                await served.others()
                assert await asyncio.to_thread(reset, raw) == set()
                served.slow_readers.sweep()
                served.slow_readers.sweep()
                assert await asyncio.to_thread(reset, raw) == {1}

    asyncio.run(body())


def test_what_was_taken_is_not_held() -> None:
    """Nothing is remembered of a call that is over."""

    async def body() -> None:
        async with Served().running() as served:
            await served.others(20)
            served.slow_readers.sweep()
            served.slow_readers.sweep()
            assert served.slow_readers.ended == 0

    asyncio.run(body())


def test_the_installed_grpc_has_what_is_needed() -> None:
    """By its name at the start, and as it really is at the first call."""

    async def body() -> None:
        served = Served()
        served.slow_readers.check()
        assert served.slow_readers.works
        async with served.running():
            assert served.slow_readers._saw_call
            assert served.slow_readers.works

    asyncio.run(body())


def test_a_grpc_without_it_is_reported_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Once, as a warning, and for good."""
    readers = SlowReaders()
    readers.check(SimpleNamespace(**{WAITS_FOR_CLIENT: None}))
    assert (readers.works, caplog.messages) == (True, [])
    readers.check(SimpleNamespace())
    readers.check(SimpleNamespace())
    assert readers.works is False
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "unread_answers_kept" in caplog.text


def test_a_grpc_that_holds_calls_otherwise_is_reported_at_the_first_call(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name alone is no proof."""
    monkeypatch.setattr(slow_readers, "WAITS_FOR_CLIENT", "_renamed")

    async def body() -> None:
        async with Served().running() as served:
            assert served.slow_readers.works is False

    asyncio.run(body())
    assert caplog.text.count("unread_answers_kept") == 1

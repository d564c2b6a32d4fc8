"""Work that nobody waits for any more costs nothing more."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any, cast

import pytest

from simsearch.errors import BankNotFound, NotReady, Overloaded
from simsearch.serve.core import Core
from simsearch.serve.errors import trailers_of, words_of
from simsearch.serve.match_service import SLICE_COST, _slices
from simsearch.serve.work import Stop, Work
from simsearch.types import Content, HashContent, ImageContent, Signal, TextContent

CORE = cast(Core, object())


class Request:
    """Something large that a waiting call holds."""


def work(timeout_s: float = 30) -> Work:
    made = Work(1, timeout_s)
    made.begin(CORE)
    return made


def test_a_call_that_is_given_up_lets_go_of_its_request() -> None:
    """Also while it waits behind another one: memory is bounded by the calls somebody awaits."""

    async def story() -> None:
        pool, release = work(), threading.Event()
        busy = asyncio.create_task(pool.match(lambda core, stop: release.wait(10)))
        await asyncio.sleep(0.05)
        request = Request()
        seen = weakref.ref(request)
        waiting = asyncio.create_task(_holding(pool, request))
        del request
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        del waiting
        gc.collect()
        assert seen() is None
        release.set()
        await busy
        assert pool.close(5)

    asyncio.run(story())


async def _holding(pool: Work, request: Request) -> None:
    await pool.match(lambda core, stop: id(request))


def test_a_running_call_is_told_to_stop() -> None:
    """Between slices of its work it finds that nobody waits."""
    stopped = threading.Event()

    def endless(core: Core, stop: Stop) -> None:
        try:
            while True:
                stop.check()
                time.sleep(0.001)
        except NotReady:
            stopped.set()
            raise

    async def story() -> None:
        pool = work()
        call = asyncio.create_task(pool.match(endless))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(stopped.wait, 5)
        assert pool.close(5)

    asyncio.run(story())


def test_a_call_has_a_longest_time() -> None:
    """A caller without a deadline cannot hold a match thread for ever."""

    async def story() -> None:
        pool, release = work(timeout_s=0.05), threading.Event()
        with pytest.raises(Overloaded, match="smaller batches"):
            await pool.match(lambda core, stop: release.wait(10))
        release.set()
        assert pool.close(5)

    asyncio.run(story())


def test_closing_is_bounded() -> None:
    """Work that will not stop is reported, not waited for."""
    release = threading.Event()

    async def story() -> bool:
        pool = work()
        call = asyncio.create_task(pool.match(lambda core, stop: release.wait(10)))
        await asyncio.sleep(0.05)
        ended = pool.close(0.05)
        release.set()
        await asyncio.gather(call, return_exceptions=True)
        return ended

    assert asyncio.run(story()) is False


def test_before_it_begins_nothing_is_answered() -> None:
    """Loading: NotReady, never an empty answer."""
    with pytest.raises(NotReady):
        asyncio.run(Work(1, 1).match(lambda core, stop: None))


def test_slices_are_all_contents_in_order() -> None:
    """Small ones go together, a large one alone; none is lost."""
    small: Content = HashContent(Signal.PDQ, bytes(32))
    large: Content = TextContent("x" * (SLICE_COST - 1))
    picture: Content = ImageContent(bytes(SLICE_COST * 200))
    contents = [small, small, large, picture, small]
    slices = [list(part) for part in _slices(contents)]
    assert [content for part in slices for content in part] == contents
    assert [len(part) for part in slices] == [2, 1, 1, 1]
    assert [list(part) for part in _slices([])] == [[]]


@pytest.mark.parametrize("name", ["x" * 100_000, "\U0001f600" * 50_000])
def test_a_refusal_fits_into_a_trailer(name: str) -> None:
    """Whatever a message quotes: over 8 KiB gRPC would drop reason and status."""
    error = BankNotFound(f"there is no bank {name}")
    percent_encoded = 3 * len(words_of(error).encode())
    trailers: list[Any] = [value for _, value in trailers_of(error)]
    assert percent_encoded + sum(len(value) * 4 // 3 for value in trailers) < 8192

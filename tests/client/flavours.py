"""Both clients behind one face, so that every promise is tested of each."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from simsearch.client import AsyncClient, Client

T = TypeVar("T")
WAIT_S = 30
"""For what must happen; no test waits this long unless it fails."""


def until(condition: Callable[[], bool]) -> None:
    """Returns once it holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Blocking:
    """`Client` in threads of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.client = Client(*args, **kwargs)

    def start(self, name: str, *args: Any, **kwargs: Any) -> Future[Any]:
        """The call under way, in a thread of its own."""
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(getattr(self.client, name)(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future

    def stream(self, contents: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        return self.client.match_stream(contents, **kwargs)

    def close(self) -> None:
        self.client.close()


class Awaited:
    """`AsyncClient` on a loop in a thread of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.client = AsyncClient(*args, **kwargs)

    def start(self, name: str, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.run(getattr(self.client, name)(*args, **kwargs))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stream(self, contents: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        """From an async source, step by step."""

        async def source() -> AsyncIterator[Any]:
            for content in contents:
                yield content

        answers = self.client.match_stream(source(), **kwargs)

        async def step() -> Any:
            return await anext(answers, None)

        try:
            while (found := self.run(step()).result(WAIT_S)) is not None:
                yield found
        finally:
            self.run(_closed(answers)).result(WAIT_S)

    def close(self) -> None:
        self.run(self.client.close()).result(WAIT_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()


async def _closed(answers: Any) -> None:
    await answers.aclose()


class Either:
    """Any of the two: a method of the client by its name waits for its end."""

    def __init__(self, flavour: Callable[..., Blocking | Awaited], *args: Any, **kwargs: Any):
        self.inner = flavour(*args, **kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.start(name, *args, **kwargs).result(WAIT_S)

    def start(self, name: str, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.inner.start(name, *args, **kwargs)

    @property
    def batcher(self) -> Any:
        return self.inner.client._batcher

    @property
    def counts(self) -> Any:
        return self.inner.client.counts


Open = Callable[..., contextlib.AbstractContextManager[Either]]


def opener(flavour: Callable[..., Blocking | Awaited]) -> Open:
    """Opens a client of one flavour, as a context that closes it."""

    @contextmanager
    def opened(*args: Any, **kwargs: Any) -> Iterator[Either]:
        either = Either(flavour, *args, **kwargs)
        try:
            yield either
        finally:
            either.inner.close()

    return opened

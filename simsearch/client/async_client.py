"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from simsearch.client import calls
from simsearch.client.base_client import BaseClient, as_method
from simsearch.client.batching.batch_queue import AutoBatch, Gathering
from simsearch.client.batching.batch_request import (
    Alone,
    Answer,
    Pending,
    Settled,
    answer_of,
    joined,
    pending,
    refused,
)
from simsearch.client.calls import MATCH, Ask, Outcome
from simsearch.client.credentials import channel_credentials
from simsearch.client.pool import CHANNEL_OPTIONS
from simsearch.client.sending import Sender
from simsearch.client.streaming import async_stream
from simsearch.client.streaming.send_window import STREAM_BOUNDS, StreamBounds, Window
from simsearch.errors import SimsearchError
from simsearch.types import Content, MatchOptions

P = ParamSpec("P")
T = TypeVar("T")


def _awaiting(
    build: Callable[P, Ask[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call(build(*args, **kwargs))

    as_method(call, build)
    return call


class AsyncClient(BaseClient):
    """Calls are awaited. For the tasks of one event loop, in which it is also closed."""

    match = _awaiting(calls.match)
    match_batch = _awaiting(calls.match_batch)
    match_image = _awaiting(calls.match_image)
    match_text = _awaiting(calls.match_text)
    match_vector = _awaiting(calls.match_vector)
    match_hash = _awaiting(calls.match_hash)
    create_bank = _awaiting(calls.create_bank)
    create_bank_from = _awaiting(calls.create_bank_from)
    get_bank = _awaiting(calls.get_bank)
    list_banks = _awaiting(calls.list_banks)
    update_bank = _awaiting(calls.update_bank)
    change_bank = _awaiting(calls.change_bank)
    add_entry = _awaiting(calls.add_entry)
    add_entries = _awaiting(calls.add_entries)
    import_entries = _awaiting(calls.import_entries)
    get_entry = _awaiting(calls.get_entry)
    list_entries = _awaiting(calls.list_entries)
    list_entries_from = _awaiting(calls.list_entries_from)
    find_entries = _awaiting(calls.find_entries)
    compare_entries = _awaiting(calls.compare_entries)
    extend_entry = _awaiting(calls.extend_entry)
    move_entry = _awaiting(calls.move_entry)
    retract_entry = _awaiting(calls.retract_entry)
    list_proposals = _awaiting(calls.list_proposals)
    get_proposal = _awaiting(calls.get_proposal)
    decide_proposal = _awaiting(calls.decide_proposal)
    export_entries = _awaiting(calls.export_entries)
    list_changes = _awaiting(calls.list_changes)
    get_change = _awaiting(calls.get_change)
    log_head = _awaiting(calls.log_head)
    revert_changes = _awaiting(calls.revert_changes)
    give_opinion = _awaiting(calls.give_opinion)
    list_opinions = _awaiting(calls.list_opinions)
    list_review = _awaiting(calls.list_review)
    status = _awaiting(calls.status)
    default_policy = _awaiting(calls.default_policy)
    is_serving = _awaiting(calls.is_serving)

    def match_stream(
        self,
        contents: Iterable[Content] | AsyncIterable[Content],
        options: MatchOptions | None = None,
        *,
        silence_s: float | None = None,
        bounds: StreamBounds = STREAM_BOUNDS,
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        """Judge many, over one connection: the number of each content, from 0, and its outcome, as
        they are done and in any order. `contents` may be endless and is read no further ahead than
        `bounds` says; what has no answer when a connection ends is sent again over another one.
        `silence_s`: how long an answer is waited for; None is the client's deadline.

        Who leaves early does it with `contextlib.aclosing`.
        """
        window = Window(options or MatchOptions(), bounds, self._sender.retry)
        quiet_s = self._sender.deadline_s if silence_s is None else silence_s
        return async_stream.streamed(self._sender, window, contents, quiet_s, self._pause)

    async def close(self) -> None:
        """End it: calls under way and calls that come raise Unreachable."""
        self._sender.closed.set()
        self._closing.set()
        if self._gatherer:
            self._gatherer.close()
        for channel in self._sender.pool.channels():
            await channel.close()
        if self._gatherer:
            await self._gatherer.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _begin(self, bounds: AutoBatch | None) -> None:
        self._gatherer = _Gatherer(bounds, self._sender, self._send) if bounds else None
        self._closing = asyncio.Event()

    def _open_channel(self, address: str) -> grpc.aio.Channel:
        if self._credentials.tls is None:
            return grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        trusted = channel_credentials(self._credentials.tls)
        return grpc.aio.secure_channel(address, trusted, CHANNEL_OPTIONS)

    async def _call(self, ask: Ask[T]) -> T:
        deadline = self._sender.deadline_of(ask.deadline_s)
        send = self._gatherer.send if self._gatherer and ask.rpc is MATCH else self._send
        return ask.read(await send(ask, deadline))

    async def _send(
        self, ask: Ask[Any], deadline: float, after: SimsearchError | None = None
    ) -> Any:
        """The reply, after as many attempts as it takes."""
        run = self._sender.begin(ask.rpc, deadline, after)
        while not run.is_over:
            if run.wait_s:
                await self._pause(run.wait_s)
            with run as priority:
                method = priority.method(ask.rpc)
                return await method(
                    ask.request, timeout=run.left_s(), metadata=self._sender.metadata
                )
        raise run.error

    async def _pause(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()


class _Gatherer:
    """Lets calls of many tasks go together. A call that finds a free place is sent by its own
    task; those that gather are sent in a task for each batch."""

    def __init__(
        self, bounds: AutoBatch, sender: Sender, send: Callable[..., Awaitable[Any]]
    ) -> None:
        self._bounds = bounds
        self._sender = sender
        self._send = send
        self._gathering = Gathering[Pending[asyncio.Future[Settled]]](bounds)
        self._under_way: dict[asyncio.Task[None], list[Pending[asyncio.Future[Settled]]]] = {}

    async def send(self, ask: Ask[Any], deadline: float) -> Answer:
        if self._gathering.enter():
            try:
                return await self._send(ask, deadline)
            finally:
                self._leave()
        answer = answer_of(await self._with_others(ask, deadline))
        if isinstance(answer, Alone):
            return await self._send(ask, deadline, answer.after)
        return answer

    def close(self) -> None:
        """Whoever waits is told so; what is under way ends with the channels."""
        for item in self._gathering.clear():
            item.future.set_result(self._sender.is_closed())

    async def join(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _with_others(self, ask: Ask[Any], deadline: float) -> Settled:
        if self._sender.closed.is_set():
            raise self._sender.is_closed()
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        item = pending(ask, deadline, future, self._bounds)
        self._gathering.add(item)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await future
        except TimeoutError:
            return self._sender.too_late()
        finally:
            if future.cancelled() and not self._gathering.drop(item):
                self._give_up_what_nobody_wants()

    def _leave(self) -> None:
        self._gathering.leave()
        if batch := self._gathering.take():
            task = asyncio.create_task(self._settle(batch))
            self._under_way[task] = batch
            task.add_done_callback(self._under_way.pop)

    async def _settle(self, batch: Sequence[Pending[asyncio.Future[Settled]]]) -> None:
        try:
            settled = await self._settled(batch)
        finally:
            self._leave()
        for item, outcome in zip(batch, settled, strict=True):
            if not item.future.done():
                item.future.set_result(outcome)

    async def _settled(self, batch: Sequence[Pending[Any]]) -> Sequence[Settled]:
        ask = joined(batch)
        self._sender.counter.add(batches=1, batched=len(batch))
        try:
            return ask.read(await self._send(ask, max(item.deadline for item in batch)))
        except SimsearchError as error:
            return refused(error, len(batch))

    def _give_up_what_nobody_wants(self) -> None:
        for task, batch in self._under_way.items():
            if all(item.future.cancelled() for item in batch):
                task.cancel()

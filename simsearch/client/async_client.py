"""Async client: calls are awaited, in one event loop."""

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
from simsearch.client.base_client import BaseClient, BatchCounter, as_method
from simsearch.client.batching.batch_queue import AutoBatch, BatchQueue
from simsearch.client.batching.batch_request import (
    Alone,
    Answer,
    PendingMatch,
    Settled,
    answer_of,
    joined,
    pending,
    refused,
    wait_before_repeat,
)
from simsearch.client.calls import CallSpec, Outcome
from simsearch.client.calls.rpcs import MATCH
from simsearch.client.credentials import channel_credentials
from simsearch.client.streaming import async_stream
from simsearch.client.streaming.send_window import STREAM_BOUNDS, SendWindow, StreamBounds
from simsearch.client.transport.channel import Transport
from simsearch.client.transport.service_config import Options
from simsearch.errors import NotReady, SimsearchError
from simsearch.types import Content, MatchOptions

P = ParamSpec("P")
T = TypeVar("T")


def _awaiting(
    build: Callable[P, CallSpec[T]],
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
    get_bank = _awaiting(calls.get_bank)
    list_banks = _awaiting(calls.list_banks)
    update_bank = _awaiting(calls.update_bank)
    add_entry = _awaiting(calls.add_entry)
    add_entries = _awaiting(calls.add_entries)
    import_entries = _awaiting(calls.import_entries)
    get_entry = _awaiting(calls.get_entry)
    list_entries = _awaiting(calls.list_entries)
    find_entries = _awaiting(calls.find_entries)
    compare_entries = _awaiting(calls.compare_entries)
    extend_entry = _awaiting(calls.extend_entry)
    move_entry = _awaiting(calls.move_entry)
    retract_entry = _awaiting(calls.retract_entry)
    export_entries = _awaiting(calls.export_entries)
    list_proposals = _awaiting(calls.list_proposals)
    get_proposal = _awaiting(calls.get_proposal)
    decide_proposal = _awaiting(calls.decide_proposal)
    list_changes = _awaiting(calls.list_changes)
    get_change = _awaiting(calls.get_change)
    log_head = _awaiting(calls.log_head)
    revert_changes = _awaiting(calls.revert_changes)
    give_opinion = _awaiting(calls.give_opinion)
    list_opinions = _awaiting(calls.list_opinions)
    list_review = _awaiting(calls.list_review)
    status = _awaiting(calls.status)
    default_policy = _awaiting(calls.default_policy)

    async def is_serving(self, *, deadline_s: float | None = None) -> bool:
        """True once the server answers searches; False while it loads or drains, or all of several
        servers do."""
        try:
            return await self._call(calls.is_serving(deadline_s=deadline_s))
        except NotReady:
            return False

    async def match_stream(
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
        window = SendWindow(options or MatchOptions(), bounds, self._transport.retry)
        quiet_s = self._transport.deadline_s if silence_s is None else silence_s
        await self._open()
        streamed = async_stream.streamed(self._transport, window, contents, quiet_s)
        async with contextlib.aclosing(streamed) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def close(self) -> None:
        """End it: calls under way and calls that come raise Unreachable."""
        self._transport.closed.set()
        self._closing.set()
        if self._batcher:
            self._batcher.close()
        if self._transport.channel is not None:
            await self._transport.channel.close()
        if self._batcher:
            await self._batcher.join()

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
        self._batcher = (
            _Batcher(bounds, self._transport, self._send, self._counter) if bounds else None
        )
        self._closing = asyncio.Event()

    async def _call(self, spec: CallSpec[T]) -> T:
        deadline = self._transport.deadline_of(spec.deadline_s)
        send = self._batcher.send if self._batcher and spec.rpc is MATCH else self._send
        return spec.read(await send(spec, deadline))

    async def _send(
        self, spec: CallSpec[Any], deadline: float, after: SimsearchError | None = None
    ) -> Any:
        """The reply. `after`: how its content failed before, as one of a batch."""
        self._transport.check_open()
        if wait_s := wait_before_repeat(after, self._transport.retry, deadline):
            await self._pause(wait_s)
            self._transport.check_open()
        await self._open()
        with self._transport.errors_mapped():
            return await self._transport.method(spec.rpc)(
                spec.request,
                timeout=max(0.0, deadline - time.monotonic()),
                metadata=self._transport.metadata,
            )

    async def _pause(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()

    async def _open(self) -> None:
        if self._transport.channel is None:
            target = await asyncio.to_thread(self._transport.target)
            self._transport.check_open()
            self._transport.open(target, self._open_channel)

    def _open_channel(self, target: str, options: Options) -> grpc.aio.Channel:
        if self._credentials.tls is None:
            return grpc.aio.insecure_channel(target, options)
        trusted = channel_credentials(self._credentials.tls)
        return grpc.aio.secure_channel(target, trusted, options)


class _Batcher:
    """Lets calls of many tasks go together. A call that finds a free place is sent by its own
    task; those that gather are sent in a task for each batch."""

    def __init__(
        self,
        bounds: AutoBatch,
        transport: Transport,
        send: Callable[..., Awaitable[Any]],
        counter: BatchCounter,
    ) -> None:
        self._bounds = bounds
        self._transport = transport
        self._send = send
        self._counter = counter
        self._queue = BatchQueue[PendingMatch[asyncio.Future[Settled]]](bounds)
        self._under_way: dict[asyncio.Task[None], list[PendingMatch[asyncio.Future[Settled]]]] = {}

    async def send(self, spec: CallSpec[Any], deadline: float) -> Answer:
        if self._queue.enter():
            try:
                return await self._send(spec, deadline)
            finally:
                self._leave()
        answer = answer_of(await self._with_others(spec, deadline))
        if isinstance(answer, Alone):
            return await self._send(spec, deadline, answer.after)
        return answer

    def close(self) -> None:
        """Whoever waits is told so; what is under way ends with the channels."""
        for item in self._queue.clear():
            item.future.set_result(self._transport.is_closed())

    async def join(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _with_others(self, spec: CallSpec[Any], deadline: float) -> Settled:
        self._transport.check_open()
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        item = pending(spec, deadline, future, self._bounds)
        self._queue.add(item)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await future
        except TimeoutError:
            return self._transport.too_late()
        finally:
            if future.cancelled() and not self._queue.drop(item):
                self._give_up_what_nobody_wants()

    def _leave(self) -> None:
        self._queue.leave()
        if batch := self._queue.take():
            task = asyncio.create_task(self._settle(batch))
            self._under_way[task] = batch
            task.add_done_callback(self._under_way.pop)

    async def _settle(self, batch: Sequence[PendingMatch[asyncio.Future[Settled]]]) -> None:
        try:
            settled = await self._settled(batch)
        finally:
            self._leave()
        for item, outcome in zip(batch, settled, strict=True):
            if not item.future.done():
                item.future.set_result(outcome)

    async def _settled(self, batch: Sequence[PendingMatch[Any]]) -> Sequence[Settled]:
        spec = joined(batch)
        self._counter.add(len(batch))
        try:
            return spec.read(await self._send(spec, max(item.deadline for item in batch)))
        except SimsearchError as error:
            return refused(error, len(batch))

    def _give_up_what_nobody_wants(self) -> None:
        for task, batch in self._under_way.items():
            if all(item.future.cancelled() for item in batch):
                task.cancel()

"""Match stream: one StreamMatch call, which reads ahead, runs a few jobs and sends their answers.

Requests that arrive while the jobs are busy go into the next job together. Under load jobs wait for
room, nothing more is read, and gRPC's flow control slows the sender down.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from simsearch.errors import (
    BadRequest,
    DeadlinePassed,
    LimitExceeded,
    NotReady,
    Overloaded,
    SimsearchError,
)
from simsearch.match.matcher import Outcome
from simsearch.serve.core.server_core import Core
from simsearch.serve.matching.match_steps import match_all
from simsearch.serve.scheduling.admission import Demand
from simsearch.serve.scheduling.executor import MatchExecutor
from simsearch.serve.scheduling.scheduler import Steps
from simsearch.serve.transport.status_codes import item_error
from simsearch.types import CallContext, MatchOptions
from simsearch.v1 import match_pb2
from simsearch.wire import result_to
from simsearch.wire.request_weight import Unparsed, Weight, parsed

BATCH_ITEMS: Final = 64
"""Items of small messages that make one job."""

ANSWER_BYTES: Final = 1 << 20
"""The size of answers at which a response is full."""

Request: TypeAlias = Unparsed[match_pb2.StreamMatchRequest]
Response: TypeAlias = match_pb2.StreamMatchResponse


@dataclass(frozen=True)
class _Answered:
    """What one job has to send, and the weight of its requests."""

    responses: Sequence[Response]
    weight: Weight


class MatchStream:
    """A reader, which stops while enough is unanswered, and jobs, which answer."""

    def __init__(
        self,
        executor: MatchExecutor,
        requests: AsyncIterator[Request],
        demand: Callable[[Weight], Demand],
        options: Callable[[match_pb2.MatchOptions], MatchOptions],
    ) -> None:
        """`demand` gives a weight its priority and deadline, `options` the caller's access."""
        config = executor.config
        self._executor = executor
        self._requests = requests
        self._demand = demand
        self._options_from = options
        self._options: MatchOptions | None = None
        self._items_max = config.stream_window_items
        self._bytes_max = 2 * config.message_bytes_max
        self._idle_s = config.stream_idle_s
        self._jobs_max = config.match_threads + 1
        self._arrived: deque[Request] = deque()
        self._unanswered = Weight()
        self._jobs: set[asyncio.Task[None]] = set()
        self._answered: asyncio.Queue[_Answered | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._end: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self._active_at = time.monotonic()
        self._sending = False

    async def answers(self) -> AsyncGenerator[Response, None]:
        """Every response; then raises the error that ended the stream, if it was one."""
        caller = asyncio.current_task()
        assert caller is not None
        self._reader = asyncio.create_task(self._read())
        watch = asyncio.create_task(self._watch(caller))
        try:
            while (answered := await self._answered.get()) is not None:
                for response in answered.responses:
                    self._sending = True
                    yield response
                    self._sending = False
                    self._active_at = time.monotonic()
                self._unanswered = self._unanswered.minus(answered.weight)
                self._room.set()
            if self._end is not None:
                raise self._end
        finally:
            tasks = [self._reader, watch, *self._jobs]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ reading

    async def _read(self) -> None:
        try:
            async for request in self._requests:
                self._active_at = time.monotonic()
                self._take(request)
                while self._is_full():
                    self._room.clear()
                    await self._room.wait()
        except asyncio.CancelledError:
            if self._end is None:
                raise
        except Exception as error:  # raised again where the stream ends
            self._end = self._end or error
        self._finish()

    def _take(self, request: Request) -> None:
        if self._options is None:
            message = parsed(match_pb2.MatchOptions, request.options or b"")
            self._options = self._options_from(message)
        elif request.options is not None:
            raise BadRequest("options come with the first message of a stream: open another one")
        weight = request.weight
        if weight.items > self._items_max:
            raise LimitExceeded(
                f"{weight.items} items in one message: {self._items_max} at most; 64 are enough"
            )
        if weight.items:
            self._arrived.append(request)
            self._unanswered = self._unanswered.plus(weight)
            self._dispatch()

    def _is_full(self) -> bool:
        return (
            self._unanswered.items >= self._items_max
            or self._unanswered.nbytes >= self._bytes_max
            or sum(request.weight.items for request in self._arrived) >= BATCH_ITEMS
        )

    def _stop(self, error: Exception) -> None:
        """Read no more; jobs in progress are answered, and then the stream ends with this error."""
        self._end = self._end or error
        self._arrived.clear()
        assert self._reader is not None
        self._reader.cancel()

    async def _watch(self, caller: asyncio.Task[object]) -> None:
        """Ends the stream when the server drains, or when neither side was active for long."""
        while True:
            quiet_s = time.monotonic() - self._active_at
            if quiet_s >= self._idle_s and not self._jobs:
                if self._sending:  # the client does not read its answers
                    caller.cancel()
                self._stop(
                    NotReady(f"the stream was idle for {self._idle_s:g} s: open another one")
                )
            await self._drained_within(max(self._idle_s - quiet_s, self._idle_s / 10))

    async def _drained_within(self, wait_s: float) -> None:
        if self._end is not None:  # only the last answers are still to be read
            await asyncio.sleep(wait_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._executor.draining.wait()
            self._stop(NotReady("the server is shutting down: ask another one"))

    # ------------------------------------------------------------ jobs

    def _dispatch(self) -> None:
        while self._arrived and len(self._jobs) < self._jobs_max:
            batch = [self._arrived.popleft()]
            weight = batch[0].weight
            while self._arrived and weight.items + self._arrived[0].weight.items <= BATCH_ITEMS:
                weight = weight.plus(self._arrived[0].weight)
                batch.append(self._arrived.popleft())
            job = asyncio.create_task(self._serve(batch, weight))
            self._jobs.add(job)
        self._room.set()

    async def _serve(self, batch: Sequence[Request], weight: Weight) -> None:
        responses: Sequence[Response] = []
        try:
            responses = await self._answer(batch, weight)
        except Exception as error:  # raised again where the stream ends
            self._stop(error)
        job = asyncio.current_task()
        assert job is not None
        self._jobs.discard(job)
        self._active_at = time.monotonic()
        self._answered.put_nowait(_Answered(responses, weight))
        self._dispatch()
        self._finish()

    async def _answer(self, batch: Sequence[Request], weight: Weight) -> Sequence[Response]:
        options = self._options
        assert options is not None  # came before the first item

        def match_batch(core: Core, call: CallContext) -> Steps[list[Response]]:
            items = [item for request in batch for item in request.parse().items]
            contents = [item.content for item in items]
            outcomes = yield from match_all(core, contents, options, call)
            return _packed([i.id for i in items], outcomes)

        try:
            return await self._executor.match_in_turn(match_batch, self._demand(weight))
        except (Overloaded, DeadlinePassed) as refusal:
            ids = [item.id for request in batch for item in request.parse().items]
            return _packed(ids, [refusal] * len(ids))

    def _finish(self) -> None:
        """End the answers once the reader and every job have ended."""
        assert self._reader is not None
        ended = self._reader.done() or self._reader is asyncio.current_task()
        if ended and not self._jobs and not self._arrived:
            self._answered.put_nowait(None)


def _packed(ids: Sequence[int], outcomes: Sequence[Outcome]) -> list[Response]:
    """The answers, in as few messages as their size allows."""
    responses, nbytes = [match_pb2.StreamMatchResponse()], 0
    made: dict[
        int, match_pb2.StreamMatchAnswer
    ] = {}  # the message of an outcome that repeats is built once
    for number, outcome in zip(ids, outcomes, strict=True):
        answer = made.get(id(outcome)) or made.setdefault(id(outcome), _answer(outcome))
        answer.id = number
        if nbytes > ANSWER_BYTES:
            responses.append(match_pb2.StreamMatchResponse())
            nbytes = 0
        responses[-1].answers.append(answer)
        nbytes += answer.ByteSize()
    return responses


def _answer(outcome: Outcome) -> match_pb2.StreamMatchAnswer:
    if isinstance(outcome, SimsearchError):
        return match_pb2.StreamMatchAnswer(error=item_error(outcome))
    return match_pb2.StreamMatchAnswer(result=result_to(outcome))

"""Sync client: calls block the thread that makes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
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
from simsearch.client.streaming import sync_stream
from simsearch.client.streaming.send_window import STREAM_BOUNDS, SendWindow, StreamBounds
from simsearch.client.transport.channel import Transport
from simsearch.client.transport.service_config import Options
from simsearch.errors import InternalFault, NotReady, SimsearchError
from simsearch.types import Content, MatchOptions

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(build: Callable[P, CallSpec[T]]) -> Callable[Concatenate[Client, P], T]:
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call(build(*args, **kwargs))

    as_method(call, build)
    return call


class Client(BaseClient):
    """Calls block the thread that makes them. Safe to share between threads."""

    match = _blocking(calls.match)
    match_batch = _blocking(calls.match_batch)
    match_image = _blocking(calls.match_image)
    match_text = _blocking(calls.match_text)
    match_vector = _blocking(calls.match_vector)
    match_hash = _blocking(calls.match_hash)
    create_bank = _blocking(calls.create_bank)
    get_bank = _blocking(calls.get_bank)
    list_banks = _blocking(calls.list_banks)
    update_bank = _blocking(calls.update_bank)
    add_entry = _blocking(calls.add_entry)
    add_entries = _blocking(calls.add_entries)
    import_entries = _blocking(calls.import_entries)
    get_entry = _blocking(calls.get_entry)
    list_entries = _blocking(calls.list_entries)
    find_entries = _blocking(calls.find_entries)
    compare_entries = _blocking(calls.compare_entries)
    extend_entry = _blocking(calls.extend_entry)
    move_entry = _blocking(calls.move_entry)
    retract_entry = _blocking(calls.retract_entry)
    export_entries = _blocking(calls.export_entries)
    list_proposals = _blocking(calls.list_proposals)
    get_proposal = _blocking(calls.get_proposal)
    decide_proposal = _blocking(calls.decide_proposal)
    list_changes = _blocking(calls.list_changes)
    get_change = _blocking(calls.get_change)
    log_head = _blocking(calls.log_head)
    revert_changes = _blocking(calls.revert_changes)
    give_opinion = _blocking(calls.give_opinion)
    list_opinions = _blocking(calls.list_opinions)
    list_review = _blocking(calls.list_review)
    status = _blocking(calls.status)
    default_policy = _blocking(calls.default_policy)

    def is_serving(self, *, deadline_s: float | None = None) -> bool:
        """True once the server answers searches; False while it loads or drains, or all of several
        servers do."""
        try:
            return self._call(calls.is_serving(deadline_s=deadline_s))
        except NotReady:
            return False

    def match_stream(
        self,
        contents: Iterable[Content],
        options: MatchOptions | None = None,
        *,
        silence_s: float | None = None,
        bounds: StreamBounds = STREAM_BOUNDS,
    ) -> Generator[tuple[int, Outcome]]:
        """Judge many, over one connection: the number of each content, from 0, and its outcome, as
        they are done and in any order. `contents` may be endless and is read no further ahead than
        `bounds` says; what has no answer when a connection ends is sent again over another one.
        `silence_s`: how long an answer is waited for; None is the client's deadline."""
        window = SendWindow(options or MatchOptions(), bounds, self._transport.retry)
        quiet_s = self._transport.deadline_s if silence_s is None else silence_s
        self._open()
        return sync_stream.streamed(self._transport, window, contents, quiet_s)

    def close(self) -> None:
        """End it: calls under way and calls that come raise Unreachable."""
        self._transport.closed.set()
        if self._batcher:
            self._batcher.close()
        if self._transport.channel is not None:
            self._transport.channel.close()
        if self._batcher:
            self._batcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self, bounds: AutoBatch | None) -> None:
        self._batcher = (
            _Batcher(bounds, self._transport, self._send, self._counter) if bounds else None
        )

    def _call(self, spec: CallSpec[T]) -> T:
        deadline = self._transport.deadline_of(spec.deadline_s)
        send = self._batcher.send if self._batcher and spec.rpc is MATCH else self._send
        return spec.read(send(spec, deadline))

    def _send(
        self, spec: CallSpec[Any], deadline: float, after: SimsearchError | None = None
    ) -> Any:
        """The reply. `after`: how its content failed before, as one of a batch."""
        self._transport.check_open()
        if wait_s := wait_before_repeat(after, self._transport.retry, deadline):
            self._transport.closed.wait(wait_s)
            self._transport.check_open()
        self._open()
        with self._transport.errors_mapped():
            return self._transport.method(spec.rpc)(
                spec.request,
                timeout=max(0.0, deadline - time.monotonic()),
                metadata=self._transport.metadata,
            )

    def _open(self) -> None:
        if self._transport.channel is None:
            self._transport.open(self._transport.target(), self._open_channel)

    def _open_channel(self, target: str, options: Options) -> grpc.Channel:
        if self._credentials.tls is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, channel_credentials(self._credentials.tls), options)


class _Waiter:
    """What a caller waits with. A bare lock: a future's condition costs more than the call."""

    def __init__(self) -> None:
        self.settled: Settled | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def settle(self, settled: Settled) -> None:
        self.settled = settled
        self._lock.release()

    def wait(self, timeout_s: float) -> bool:
        return self._lock.acquire(timeout=max(0.0, timeout_s))


class _Batcher:
    """Lets calls of many threads go together. A call that finds a free place is sent by its own
    thread; those that gather are sent by threads of their own, one for each place, which start
    when they are first needed."""

    def __init__(
        self,
        bounds: AutoBatch,
        transport: Transport,
        send: Callable[..., Any],
        counter: BatchCounter,
    ) -> None:
        self._bounds = bounds
        self._transport = transport
        self._send = send
        self._counter = counter
        self._queue = BatchQueue[PendingMatch[_Waiter]](bounds)
        self._changed = threading.Condition(threading.Lock())
        self._threads: list[threading.Thread] = []

    def send(self, spec: CallSpec[Any], deadline: float) -> Answer:
        with self._changed:
            alone = self._queue.enter()
        if alone:
            try:
                return self._send(spec, deadline)
            finally:
                self._leave()
        answer = answer_of(self._with_others(spec, deadline))
        if isinstance(answer, Alone):
            return self._send(spec, deadline, answer.after)
        return answer

    def close(self) -> None:
        """Whoever waits is told so; what is under way ends with the channels."""
        with self._changed:
            waiting = self._queue.clear()
            self._changed.notify_all()
        for item in waiting:
            item.future.settle(self._transport.is_closed())

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _with_others(self, spec: CallSpec[Any], deadline: float) -> Settled:
        item = pending(spec, deadline, _Waiter(), self._bounds)
        with self._changed:
            self._transport.check_open()
            self._queue.add(item)
            self._start()
            self._wake()
        try:
            item.future.wait(deadline - time.monotonic())
        finally:
            with self._changed:
                self._queue.drop(item)
        return item.future.settled or self._transport.too_late()

    def _leave(self) -> None:
        with self._changed:
            self._queue.leave()
            self._wake()

    def _wake(self) -> None:
        if self._queue.has_work:
            self._changed.notify()

    # ------------------------------------------------------------ the threads that send

    def _start(self) -> None:
        while len(self._threads) < self._bounds.in_flight_max:
            name = f"match-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while batch := self._next():
            settled = self._settled(batch)
            with self._changed:
                self._queue.leave()
            for item, outcome in zip(batch, settled, strict=True):
                item.future.settle(outcome)

    def _next(self) -> list[PendingMatch[_Waiter]]:
        """Empty only once the client is closed."""
        with self._changed:
            while not self._transport.closed.is_set():
                if batch := self._queue.take():
                    return batch
                self._changed.wait()
            return []

    def _settled(self, batch: Sequence[PendingMatch[_Waiter]]) -> Sequence[Settled]:
        spec = joined(batch)
        self._counter.add(len(batch))
        try:
            return spec.read(self._send(spec, max(item.deadline for item in batch)))
        except SimsearchError as error:
            return refused(error, len(batch))
        except Exception as fault:
            # The boundary of this thread: its callers must hear of it, and the next ones be served.
            words = f"this client failed at a batch: {type(fault).__name__}: {fault}"
            return refused(InternalFault(words), len(batch))

"""The client for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
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
from simsearch.client.pool import CHANNEL_OPTIONS
from simsearch.client.sending import Sender
from simsearch.client.streaming import sync_stream
from simsearch.client.streaming.send_window import STREAM_BOUNDS, StreamBounds, Window
from simsearch.errors import InternalFault, SimsearchError
from simsearch.types import Content, MatchOptions

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(build: Callable[P, Ask[T]]) -> Callable[Concatenate[Client, P], T]:
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
    create_bank_from = _blocking(calls.create_bank_from)
    get_bank = _blocking(calls.get_bank)
    list_banks = _blocking(calls.list_banks)
    update_bank = _blocking(calls.update_bank)
    change_bank = _blocking(calls.change_bank)
    add_entry = _blocking(calls.add_entry)
    add_entries = _blocking(calls.add_entries)
    import_entries = _blocking(calls.import_entries)
    get_entry = _blocking(calls.get_entry)
    list_entries = _blocking(calls.list_entries)
    list_entries_from = _blocking(calls.list_entries_from)
    find_entries = _blocking(calls.find_entries)
    compare_entries = _blocking(calls.compare_entries)
    extend_entry = _blocking(calls.extend_entry)
    move_entry = _blocking(calls.move_entry)
    retract_entry = _blocking(calls.retract_entry)
    list_proposals = _blocking(calls.list_proposals)
    get_proposal = _blocking(calls.get_proposal)
    decide_proposal = _blocking(calls.decide_proposal)
    export_entries = _blocking(calls.export_entries)
    list_changes = _blocking(calls.list_changes)
    get_change = _blocking(calls.get_change)
    log_head = _blocking(calls.log_head)
    revert_changes = _blocking(calls.revert_changes)
    give_opinion = _blocking(calls.give_opinion)
    list_opinions = _blocking(calls.list_opinions)
    list_review = _blocking(calls.list_review)
    status = _blocking(calls.status)
    default_policy = _blocking(calls.default_policy)
    is_serving = _blocking(calls.is_serving)

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
        window = Window(options or MatchOptions(), bounds, self._sender.retry)
        quiet_s = self._sender.deadline_s if silence_s is None else silence_s
        return sync_stream.streamed(self._sender, window, contents, quiet_s)

    def close(self) -> None:
        """End it: calls under way and calls that come raise Unreachable."""
        self._sender.closed.set()
        if self._gatherer:
            self._gatherer.close()
        for channel in self._sender.pool.channels():
            channel.close()
        if self._gatherer:
            self._gatherer.join()

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
        self._gatherer = _Gatherer(bounds, self._sender, self._send) if bounds else None

    def _open_channel(self, address: str) -> grpc.Channel:
        return self._credentials.channel(address, CHANNEL_OPTIONS)

    def _call(self, ask: Ask[T]) -> T:
        deadline = self._sender.deadline_of(ask.deadline_s)
        send = self._gatherer.send if self._gatherer and ask.rpc is MATCH else self._send
        return ask.read(send(ask, deadline))

    def _send(self, ask: Ask[Any], deadline: float, after: SimsearchError | None = None) -> Any:
        """The reply, after as many attempts as it takes."""
        run = self._sender.begin(ask.rpc, deadline, after)
        while not run.is_over:
            if run.wait_s:
                self._sender.closed.wait(run.wait_s)
            with run as priority:
                method = priority.method(ask.rpc)
                return method(ask.request, timeout=run.left_s(), metadata=self._sender.metadata)
        raise run.error


class _Ticket:
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


class _Gatherer:
    """Lets calls of many threads go together. A call that finds a free place is sent by its own
    thread; those that gather are sent by threads of their own, one for each place, which start
    when they are first needed."""

    def __init__(self, bounds: AutoBatch, sender: Sender, send: Callable[..., Any]) -> None:
        self._bounds = bounds
        self._sender = sender
        self._send = send
        self._gathering = Gathering[Pending[_Ticket]](bounds)
        self._changed = threading.Condition(threading.Lock())
        self._threads: list[threading.Thread] = []

    def send(self, ask: Ask[Any], deadline: float) -> Answer:
        with self._changed:
            alone = self._gathering.enter()
        if alone:
            try:
                return self._send(ask, deadline)
            finally:
                self._leave()
        answer = answer_of(self._with_others(ask, deadline))
        if isinstance(answer, Alone):
            return self._send(ask, deadline, answer.after)
        return answer

    def close(self) -> None:
        """Whoever waits is told so; what is under way ends with the channels."""
        with self._changed:
            waiting = self._gathering.clear()
            self._changed.notify_all()
        for item in waiting:
            item.future.settle(self._sender.is_closed())

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _with_others(self, ask: Ask[Any], deadline: float) -> Settled:
        item = pending(ask, deadline, _Ticket(), self._bounds)
        with self._changed:
            if self._sender.closed.is_set():
                raise self._sender.is_closed()
            self._gathering.add(item)
            self._start()
            self._wake()
        try:
            item.future.wait(deadline - time.monotonic())
        finally:
            with self._changed:
                self._gathering.drop(item)
        return item.future.settled or self._sender.too_late()

    def _leave(self) -> None:
        with self._changed:
            self._gathering.leave()
            self._wake()

    def _wake(self) -> None:
        if self._gathering.has_work:
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
                self._gathering.leave()
            for item, outcome in zip(batch, settled, strict=True):
                item.future.settle(outcome)

    def _next(self) -> list[Pending[_Ticket]]:
        """Empty only once the client is closed."""
        with self._changed:
            while not self._sender.closed.is_set():
                if batch := self._gathering.take():
                    return batch
                self._changed.wait()
            return []

    def _settled(self, batch: Sequence[Pending[_Ticket]]) -> Sequence[Settled]:
        ask = joined(batch)
        self._sender.counter.add(batches=1, batched=len(batch))
        try:
            return ask.read(self._send(ask, max(item.deadline for item in batch)))
        except SimsearchError as error:
            return refused(error, len(batch))
        except Exception as fault:
            # The boundary of this thread: its callers must hear of it, and the next ones be served.
            words = f"this client failed at a batch: {type(fault).__name__}: {fault}"
            return refused(InternalFault(words), len(batch))

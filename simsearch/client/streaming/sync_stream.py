"""Sync stream: contents over StreamMatch, for threads; answers come as they are done.

A connection that ends before all is answered costs nothing but time: what has no answer goes
again, over another one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

import grpc

from simsearch.client.calls.match_calls import Outcome
from simsearch.client.calls.rpcs import STREAM_MATCH
from simsearch.client.streaming.send_window import SendWindow
from simsearch.client.transport.channel import Transport
from simsearch.client.transport.error_mapping import code_of, is_broken_off
from simsearch.errors import InternalFault, SimsearchError, Unreachable
from simsearch.types import Content
from simsearch.v1 import match_pb2

C = TypeVar("C")


def streamed(
    transport: Transport, window: SendWindow, contents: Iterable[Content], silence_s: float
) -> Generator[tuple[int, Outcome]]:
    """Each content's number and outcome. `contents` is asked for the next one by the caller's own
    thread, while it waits for an outcome. Raises Unreachable where answers are owed and none came
    for `silence_s`, and whatever the whole stream is refused with: gRPC has retried it by then."""
    source = Source(window, iter(contents), transport.retry.attempts_max)
    while not source.is_done:
        transport.check_open()
        if window.is_answered:  # no stream is kept open for what may take long to come
            yield from _pulled(source)
            continue
        source.restart()
        with transport.errors_mapped():
            try:
                yield from _over(transport, source, silence_s)
            except grpc.RpcError as failure:
                if not source.may_restart(failure):
                    raise


class Source(Generic[C]):
    """The caller's contents on their way into the window."""

    def __init__(self, window: SendWindow, contents: C, attempts_max: int) -> None:
        self.window = window
        self.contents = contents
        self.is_more_coming = True
        self._attempts_max = attempts_max
        self._attempts = 0
        self._is_heard = False

    @property
    def is_done(self) -> bool:
        return not self.is_more_coming and self.window.is_answered

    @property
    def may_pull(self) -> bool:
        return self.is_more_coming and self.window.has_room

    def restart(self) -> None:
        """Another stream."""
        self._is_heard = False
        self.window.restart()

    def may_restart(self, failure: grpc.RpcError) -> bool:
        """Whether what the ended stream leaves goes over another one: where it brought an answer,
        and where a server closed its port (CANCELLED). Else gRPC has retried it."""
        self._attempts = 0 if self._is_heard else self._attempts + 1
        if self._is_heard:
            return is_broken_off(failure)
        is_closing = code_of(failure) is grpc.StatusCode.CANCELLED
        return is_closing and self._attempts < self._attempts_max

    def next_message(self) -> match_pb2.StreamMatchRequest | None:
        return self.window.message(time.monotonic(), is_more_coming=self.is_more_coming)

    def give(self, content: Content) -> tuple[tuple[int, Outcome], ...]:
        """Into the window; what cannot be sent is settled already."""
        try:
            self.window.give(content)
        except SimsearchError as refusal:
            return ((self.window.last, refusal),)
        return ()

    def answered(self, reply: Any) -> Iterator[tuple[int, Outcome]]:
        """What came settles; None is the end that nobody asked for."""
        if reply is None:
            raise InternalFault("the server ended the stream before all of it was answered")
        self._is_heard = True
        return self.window.outcomes(reply, time.monotonic())

    def patience_s(self, heard: float, silence_s: float) -> float:
        """How long to wait for an answer, if the last one came at `heard`. Raises Unreachable
        where it was waited for long enough."""
        left_s = heard + silence_s - time.monotonic()
        if left_s <= 0:
            raise Unreachable(f"no answer within {silence_s:g} s (DEADLINE_EXCEEDED): give it more")
        due_s = self.window.due_s(time.monotonic())
        return left_s if due_s is None else min(left_s, due_s)


def _over(
    transport: Transport, source: Source[Iterator[Content]], silence_s: float
) -> Iterator[tuple[int, Outcome]]:
    """What one stream answers. Raises the RpcError that it ends with, if that leaves anything
    unanswered: a server may end a stream in which nothing happens."""
    requests: queue.SimpleQueue[match_pb2.StreamMatchRequest | None] = queue.SimpleQueue()
    call = transport.method(STREAM_MATCH)(iter(requests.get, None), metadata=transport.metadata)
    replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(call, replies), daemon=True)
    reader.start()
    try:
        heard = time.monotonic()
        while not source.is_done:
            while message := source.next_message():
                requests.put(message)
            if source.may_pull and replies.empty():
                yield from _pulled(source)
                heard = time.monotonic()
                continue
            try:
                reply = replies.get(timeout=source.patience_s(heard, silence_s))
            except queue.Empty:  # something is to be sent again, or it was silent for too long
                continue
            if isinstance(reply, grpc.RpcError):
                if source.window.is_answered:
                    return
                raise reply
            heard = time.monotonic()
            yield from source.answered(reply)
    finally:
        requests.put(None)
        call.cancel()
        reader.join()


def _pulled(source: Source[Iterator[Content]]) -> Iterator[tuple[int, Outcome]]:
    try:
        content = next(source.contents)
    except StopIteration:
        source.is_more_coming = False
        return
    yield from source.give(content)


def _read(call: Any, replies: queue.SimpleQueue[Any]) -> None:
    """Everything that comes, and at last how it ended."""
    try:
        for reply in call:
            replies.put(reply)
        replies.put(None)
    except grpc.RpcError as failure:
        replies.put(failure)

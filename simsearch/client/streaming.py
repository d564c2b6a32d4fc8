"""A stream of contents over StreamMatch, for threads: answers come as they are done.

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

from simsearch.client.calls import STREAM_MATCH, Outcome
from simsearch.client.pool import Lane
from simsearch.client.sending import Sender
from simsearch.client.window import Window
from simsearch.errors import InternalFault, SimsearchError, Unreachable
from simsearch.types import Content
from simsearch.v1 import match_pb2

C = TypeVar("C")


def streamed(
    sender: Sender, window: Window, contents: Iterable[Content], silence_s: float
) -> Generator[tuple[int, Outcome]]:
    """Each content's number and outcome. `contents` is asked for the next one by the caller's own
    thread, while it waits for an outcome. Raises Unreachable where answers are owed and none came
    for `silence_s`, and whatever the whole stream is refused with."""
    source = Source(window, iter(contents))
    wait_s = 0.0
    while not source.is_done:
        if window.is_answered:  # no stream is kept open for what may take long to come
            yield from _pulled(source)
            continue
        run = sender.begin(STREAM_MATCH, time.monotonic() + silence_s)
        came_further = False  # then what is left has attempts of its own
        while not (came_further or source.is_done):
            sender.closed.wait(wait_s)
            window.restart()
            with run as priority:
                for found in _over(priority, sender, source, silence_s):
                    came_further = True
                    yield found
            if run.is_over:
                raise run.error
            wait_s = run.wait_s


class Source(Generic[C]):
    """The caller's contents on their way into the window."""

    def __init__(self, window: Window, contents: C) -> None:
        self.window = window
        self.contents = contents
        self.is_more_coming = True

    @property
    def is_done(self) -> bool:
        return not self.is_more_coming and self.window.is_answered

    @property
    def may_pull(self) -> bool:
        return self.is_more_coming and self.window.has_room

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
    priority: Lane, sender: Sender, source: Source[Iterator[Content]], silence_s: float
) -> Iterator[tuple[int, Outcome]]:
    """What one stream answers. Raises the RpcError that it ends with, if that leaves anything
    unanswered: a server may end a stream in which nothing happens."""
    requests: queue.SimpleQueue[match_pb2.StreamMatchRequest | None] = queue.SimpleQueue()
    call = priority.method(STREAM_MATCH)(iter(requests.get, None), metadata=sender.metadata)
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

"""What fronts and engine have in common: the wire between them, its bounds, and who calls.

The seam is the RPC handler behind its interceptors: bytes and a context in, bytes out. A server of
one process gets both from gRPC. With fronts, a front has gRPC's context, finds out who calls, and
sends the bytes on with what of the context a service may ask for: caller, deadline, headers, peer.
In the engine `RelayedContext` (handlers.py) answers these questions, and cancels the handler's task
where the caller went away; what the handler sets on it (status, details, trailers) goes back. So
guard, gate, services and streams are the same code in both forms.

Nothing waits in ZeroMQ: a front has a bounded number of calls and bytes under way, and each
direction of a stream a window, which grows again by what the other side's reader has taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import zmq

from simsearch.errors import SimsearchError
from simsearch.internal.v1 import relay_pb2
from simsearch.serve.errors import status_of, trailers_of, words_of
from simsearch.serve.identity import LOCAL, Identity, Quota
from simsearch.types import BankAccess, Role

Headers: TypeAlias = Iterable[tuple[str, str | bytes]]
Received: TypeAlias = Callable[[list[bytes]], None]

CALLS_MAX: Final = 1_024
"""Calls that one front has under way; far over what an engine admits."""

WINDOW_BYTES: Final = 1 << 20
"""What one direction of a stream may be ahead of its reader, by at most one message more."""

MESSAGE_COST_MIN: Final = 4 << 10
"""What a small message takes of a window: it bounds their number too."""

MESSAGES_MAX: Final = 1 << 18
"""Of ZeroMQ's queues, one per front and direction. The bounds above keep them far below: an end
that is behind by so much is taken for dead."""

READS_MAX: Final = 64
"""Messages taken up before others on the event loop have their turn."""


class Wire:
    """A ZeroMQ socket on the running event loop: hands over what comes, and never waits to send.

    zmq.asyncio would put what cannot be sent at once into a queue without a bound.
    """

    def __init__(self, socket: zmq.Socket[bytes], received: Received) -> None:
        self._socket = socket
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._read)
        self._loop.call_soon(self._read)
        self._closed = False

    def send(self, parts: Sequence[bytes]) -> None:
        """Raises zmq.ZMQError where nobody is there, or has not read for long."""
        self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        self._look_again()

    def close(self, linger_ms: int = 0) -> None:
        """What was sent goes on for at most so long."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)
            self._socket.close(linger_ms)

    def _read(self) -> None:
        """The descriptor tells of news once: everything is read, here or a little later."""
        for _ in range(READS_MAX):
            if self._closed:
                return
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._received(parts)
        self._loop.call_soon(self._read)

    def _look_again(self) -> None:
        """Sending takes the news of what has come off the descriptor."""
        if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._read)


def socket_of(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    """A socket with bounded queues, which does not hold up its end."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, MESSAGES_MAX)
    socket.setsockopt(zmq.RCVHWM, MESSAGES_MAX)
    socket.setsockopt(zmq.LINGER, 0)
    return socket


# ---------------------------------------------------------------- streams


class Outflow:
    """What may be sent of one direction of a stream."""

    def __init__(self) -> None:
        self._left = WINDOW_BYTES
        self._room = asyncio.Event()
        self._room.set()

    async def take(self, nbytes: int) -> None:
        """Waits until the window is open, and takes a message's part of it."""
        await self._room.wait()
        self._left -= _cost(nbytes)
        if self._left <= 0:
            self._room.clear()

    def grow(self, nbytes: int) -> None:
        self._left += nbytes
        if self._left > 0:
            self._room.set()


class Inflow:
    """The other end of an `Outflow`: the messages, in order, for one reader; their end is None."""

    def __init__(self, grow: Callable[[int], None]) -> None:
        """`grow` tells the sender how much was taken."""
        self._grow = grow
        self._waiting: deque[bytes | None] = deque()
        self._arrived = asyncio.Event()
        self._taken = 0

    def put(self, message: bytes | None) -> None:
        self._waiting.append(message)
        self._arrived.set()

    def __aiter__(self) -> Inflow:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        if self._waiting[0] is None:
            raise StopAsyncIteration
        message = self._waiting.popleft()
        assert message is not None
        self._taken += _cost(len(message))
        if self._taken >= WINDOW_BYTES // 4:
            self._grow(self._taken)
            self._taken = 0
        return message


def _cost(nbytes: int) -> int:
    return max(nbytes, MESSAGE_COST_MIN)


# ---------------------------------------------------------------- who calls, and headers


def caller_to(caller: Identity) -> relay_pb2.Caller:
    return relay_pb2.Caller(
        name=caller.name,
        roles=sorted(caller.roles),
        reads=caller.reads.patterns,
        edits=caller.edits.patterns,
        scores=caller.scores,
        items_per_s=caller.quota.items_per_s,
        in_flight_max=caller.quota.in_flight_max,
        edits_per_day=caller.edits_per_day,
    )


def caller_from(message: relay_pb2.Caller) -> Identity:
    """LOCAL itself, by its name, which no other identity can have; without a name, one that may
    do nothing."""
    if message.name == LOCAL.name:
        return LOCAL
    return Identity(
        message.name,
        frozenset(map(Role, message.roles)),
        BankAccess(tuple(message.reads)),
        BankAccess(tuple(message.edits)),
        message.scores,
        Quota(
            message.items_per_s if message.HasField("items_per_s") else None,
            message.in_flight_max if message.HasField("in_flight_max") else None,
        ),
        message.edits_per_day if message.HasField("edits_per_day") else None,
    )


def ending_of(error: SimsearchError) -> relay_pb2.Ending:
    """A call that was refused so."""
    return relay_pb2.Ending(
        code=status_of(error).value[0],
        details=words_of(error),
        trailers=headers_to(trailers_of(error)),
    )


def headers_to(headers: Headers) -> list[relay_pb2.Header]:
    return [
        relay_pb2.Header(key=key, value=value.encode() if isinstance(value, str) else value)
        for key, value in headers
    ]


def headers_from(headers: Iterable[Any]) -> tuple[tuple[str, str | bytes], ...]:
    """Bytes under keys that end in "-bin", strings under others, as gRPC has it."""
    return tuple((h.key, h.value if h.key.endswith("-bin") else h.value.decode()) for h in headers)

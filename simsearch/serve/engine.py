"""The engine's door: calls that fronts relay, handled as if their callers had come in themselves.

`EngineDoor` stands where the public port of a server of one process stands (server.py): the same
guard, gate and services, over a ZeroMQ socket that only this user can reach. Who calls was found
out by the front; what they may do, and their share over all fronts, is decided here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import grpc
import zmq
from google.protobuf.message import DecodeError

from simsearch import __version__
from simsearch.config import Config
from simsearch.errors import DeadlinePassed
from simsearch.internal.v1 import relay_pb2
from simsearch.serve.arena import ArenaView
from simsearch.serve.guard import Guard, GuardCounts
from simsearch.serve.handlers import EngineGuard, Handlers, RelayedContext
from simsearch.serve.interceptors import Context, Gate, answered
from simsearch.serve.relay import Inflow, Outflow, Wire, socket_of
from simsearch.serve.reports import AtFronts, FrontCounts, Reports
from simsearch.serve.server import add_services
from simsearch.serve.work import Work
from simsearch.telemetry import EventLog

log = EventLog(__name__)

SILENCE_MAX_S: Final = 10.0
"""A front that has not reported for so long is taken for dead; it reports every second."""

WATCH_S: Final = 1.0
SETTLE_S: Final = 0.2


@dataclass
class _Call:
    """One relayed call on its way; `task` works on it."""

    context: RelayedContext
    requests: Inflow
    responses: Outflow
    task: asyncio.Task[None] | None = None


@dataclass(eq=False)
class _Front:
    """One front, as the engine sees it, from its Hello until it is gone."""

    name: bytes
    heard_at: float
    reports_as: str = ""
    memory: ArenaView | None = None
    calls: dict[int, _Call] = field(default_factory=dict)


class EngineDoor:
    """Where fronts come in: a socket at `path`, in a directory that is this user's alone."""

    def __init__(
        self,
        config: Config,
        work: Work,
        gate: Gate,
        before: Sequence[grpc.aio.ServerInterceptor] = (),
        *,
        path: Path,
        guard: EngineGuard | None = None,
    ) -> None:
        self.guard: Guard = guard or EngineGuard(
            asks=bool(config.identity.file), at_fronts=self._refused_at_fronts
        )
        self._path = path
        self._handlers = Handlers([*before, self.guard, gate])
        add_services(work, cast(grpc.aio.Server, self._handlers))
        self._fronts: dict[bytes, _Front] = {}
        self._reports = Reports()
        self._standing = relay_pb2.STANDING_NOT_SERVING
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wire: Wire | None = None
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> str:
        socket = socket_of(self._context, zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an answer to nobody must not go unnoticed
        socket.bind(f"ipc://{self._path}")
        self._wire = Wire(socket, self._received)
        self._watch = asyncio.create_task(self._drop_the_silent())
        return str(self._path)

    async def set_serving(self, serving: bool) -> None:
        self._standing = relay_pb2.STANDING_SERVING if serving else relay_pb2.STANDING_NOT_SERVING
        for front in list(self._fronts.values()):
            self._send(front, self._state(front))

    async def close(self, grace_s: float | None) -> None:
        """Answers that were made go out within the grace; who still works is stopped."""
        if self._wire is None or self._watch is None:
            return
        if grace_s:  # what was sent before its front knew is still refused by name
            await asyncio.sleep(SETTLE_S)
        self._watch.cancel()
        for front in list(self._fronts.values()):
            self._drop(front)
        self._wire.close(int(1_000 * (grace_s or 0)))
        self._wire = None
        await asyncio.to_thread(self._context.term)

    @property
    def counts(self) -> FrontCounts:
        return self.at_fronts().counts

    def at_fronts(self) -> AtFronts:
        """Asked by other threads, too."""
        return self._reports.sums(len(self._fronts))

    def _refused_at_fronts(self) -> GuardCounts:
        return self.at_fronts().refused

    # ------------------------------------------------------------ fronts

    def _received(self, parts: list[bytes]) -> None:
        name, header, *payload = parts
        try:
            frame = relay_pb2.Frame.FromString(header)
        except DecodeError:
            log.error("front_garbled")
            return
        if frame.HasField("hello"):
            self._greet(name, frame.hello)
        elif front := self._fronts.get(name):
            front.heard_at = time.monotonic()
            self._of_front(front, frame, payload[0] if payload else self._shared(front, frame))
        else:
            self._disown(_Front(name, 0.0))

    def _greet(self, name: bytes, hello: relay_pb2.Hello) -> None:
        front = _Front(name, time.monotonic(), hello.front)
        if hello.release != __version__:
            log.error("front_of_another_release", release=hello.release)
            state = relay_pb2.State(standing=relay_pb2.STANDING_FOREIGN, release=__version__)
            self._send(front, relay_pb2.Frame(state=state))
            return
        try:
            front.memory = ArenaView(hello.memory) if hello.memory else None
        except OSError as fault:
            log.warning("front_memory_not_shared", fault=str(fault))
        self._fronts[name] = front
        log.info("front_came", fronts=len(self._fronts))
        self._send(front, self._state(front))

    def _of_front(self, front: _Front, frame: relay_pb2.Frame, payload: bytes) -> None:
        call = front.calls.get(frame.call)
        match frame.WhichOneof("body"):
            case "report":
                self._reports.take(front.reports_as, frame.report)
            case "opening":
                self._begin(front, frame.call, frame.opening, payload)
            case "request" if call:
                call.requests.put(payload)
            case "half_close" if call:
                if frame.half_close.HasField("refusal"):
                    call.context.ending.CopyFrom(frame.half_close.refusal)
                call.requests.put(None)
            case "credit" if call:
                call.responses.grow(frame.credit.nbytes)
            case "cancel" if call and call.task:
                call.task.cancel()

    def _shared(self, front: _Front, frame: relay_pb2.Frame) -> bytes:
        """The payload that lies in the front's memory, if it does, which may be used again."""
        if not frame.HasField("block"):
            return b""
        assert front.memory is not None  # or it was told not to use it
        payload = front.memory.read(frame.block)
        release = relay_pb2.Release(offset=frame.block.offset)
        self._send(front, relay_pb2.Frame(release=release))
        return payload

    def _state(self, front: _Front) -> relay_pb2.Frame:
        state = relay_pb2.State(
            standing=self._standing,
            release=__version__,
            reads_memory=front.memory is not None,
        )
        return relay_pb2.Frame(state=state)

    def _send(self, front: _Front, frame: relay_pb2.Frame, *payload: bytes) -> None:
        if self._wire is None:  # closed: whoever was there has been told
            return
        try:
            self._wire.send([front.name, frame.SerializeToString(), *payload])
        except zmq.ZMQError as fault:
            if front.name in self._fronts:
                log.warning("front_gone", fault=str(fault), calls=len(front.calls))
                self._drop(front)

    def _drop(self, front: _Front) -> None:
        """Nobody waits for its calls any more."""
        if self._fronts.pop(front.name, None) is None:
            return
        self._reports.forget_but({other.reports_as for other in self._fronts.values()})
        if front.memory is not None:
            front.memory.close()
        for call in front.calls.values():
            if call.task:
                call.task.cancel()

    def _disown(self, front: _Front) -> None:
        """It was taken for dead. If it is not, it must begin anew."""
        self._send(front, relay_pb2.Frame(state=relay_pb2.State(release=__version__)))

    async def _drop_the_silent(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            since = time.monotonic() - SILENCE_MAX_S
            for front in [f for f in self._fronts.values() if f.heard_at < since]:
                log.warning("front_silent", calls=len(front.calls))
                self._drop(front)
                self._disown(front)

    # ------------------------------------------------------------ calls

    def _begin(
        self, front: _Front, number: int, opening: relay_pb2.Opening, payload: bytes
    ) -> None:
        def grow(nbytes: int) -> None:
            credit = relay_pb2.Credit(nbytes=nbytes)
            self._send(front, relay_pb2.Frame(call=number, credit=credit))

        call = front.calls[number] = _Call(RelayedContext(opening), Inflow(grow), Outflow())
        call.task = asyncio.create_task(self._serve(front, number, call, opening.method, payload))
        call.task.add_done_callback(lambda done: front.calls.pop(number))

    async def _serve(
        self,
        front: _Front,
        number: int,
        call: _Call,
        method: str,
        payload: bytes,
    ) -> None:
        context = call.context

        def send(raw: bytes) -> None:
            self._send(front, relay_pb2.Frame(call=number, response=relay_pb2.Response()), raw)

        answer: list[bytes] = []
        try:
            with answered(cast(Context, context), method):
                answer = await self._answer(call, method, payload, send)
        except asyncio.CancelledError:
            context.set_code(grpc.StatusCode.CANCELLED)
        if front.name in self._fronts:
            self._send(front, relay_pb2.Frame(call=number, ending=context.ending), *answer)

    async def _answer(
        self,
        call: _Call,
        method: str,
        payload: bytes,
        send: Callable[[bytes], None],
    ) -> list[bytes]:
        """The response, or nothing: after an error, which is on the context, and at a stream's
        end. Raises DeadlinePassed."""
        context = call.context
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            raise DeadlinePassed("the deadline passed on the way: nobody waits any more")
        handler = await self._handlers.of(method)
        if handler is None:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            return []
        if handler.stream_stream is None:
            response = await handler.unary_unary(payload, context)
            return [] if response is None else [handler.response_serializer(response)]
        async with aclosing(handler.stream_stream(call.requests, context)) as responses:
            async for response in responses:
                raw: bytes = handler.response_serializer(response)
                await call.responses.take(len(raw))
                send(raw)
        return []

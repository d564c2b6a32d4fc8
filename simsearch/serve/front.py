"""A front: the public port in a process of its own, which knows neither models nor banks.

It does TLS, HTTP/2, the bounds of messages, and finds out who calls and whether their role may;
everything else it relays to the engine (relay.py) and relays back. Of an engine that is not there
it says NOT_READY; calls that an engine took with it end as UNREACHABLE, for nobody knows how far
they had come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import zmq

from simsearch import __version__
from simsearch.config import Config, ServerConfig
from simsearch.errors import NotReady, Overloaded, SimsearchError, Unauthenticated, Unreachable
from simsearch.internal.v1 import relay_pb2
from simsearch.serve.arena import SHARED_BYTES_MIN, Arena, arena
from simsearch.serve.guard import OURS, Guard
from simsearch.serve.identity import Identity
from simsearch.serve.interceptors import Context, answered
from simsearch.serve.listening import (
    DESCRIPTORS,
    STOP_GRACE_S,
    Port,
    directory_of,
    tls_of,
)
from simsearch.serve.relay import (
    CALLS_MAX,
    Inflow,
    Outflow,
    Wire,
    caller_to,
    headers_from,
    headers_to,
    socket_of,
)
from simsearch.serve.tls import ServerTls
from simsearch.telemetry import EventLog

log = EventLog(__name__)

REPORT_S: Final = 1.0
STATUSES: Final = {code.value[0]: code for code in grpc.StatusCode}
SECRETS: Final = ("authorization",)
"""Headers that nobody behind the front needs."""

NO_ENGINE: Final = "the engine of this server is not running, or still starting: ask again soon"
LOST: Final = (
    "the engine ended while it worked on this call: it may have been done or not. Ask again what "
    "only asks; look before you repeat an edit"
)


class Waiting(Protocol):
    """A call that the engine works on, as the link sees it."""

    def received(self, frame: relay_pb2.Frame, payload: bytes) -> None: ...

    def lost(self, error: SimsearchError) -> None: ...


@dataclass(eq=False)
class _Unary:
    answer: asyncio.Future[tuple[relay_pb2.Ending, bytes]]

    def received(self, frame: relay_pb2.Frame, payload: bytes) -> None:
        if frame.HasField("ending") and not self.answer.done():
            self.answer.set_result((frame.ending, payload))

    def lost(self, error: SimsearchError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False)
class _Stream:
    """`ended` is called with the end, once, when it is known: there may still be responses that
    nobody has taken."""

    responses: Inflow
    ended: Callable[[relay_pb2.Ending | SimsearchError], None]
    requests: Outflow = field(default_factory=Outflow)

    def received(self, frame: relay_pb2.Frame, payload: bytes) -> None:
        match frame.WhichOneof("body"):
            case "response":
                self.responses.put(payload)
            case "credit":
                self.requests.grow(frame.credit.nbytes)
            case "ending":
                self._end(frame.ending)

    def lost(self, error: SimsearchError) -> None:
        self._end(error)

    def _end(self, end: relay_pb2.Ending | SimsearchError) -> None:
        self.ended(end)
        self.responses.put(None)


class EngineLink:
    """A front's end of the wire. What an engine that died had not read dies with its socket, so
    that the next engine is never asked again for what was already answered as lost."""

    def __init__(self, path: Path, config: ServerConfig) -> None:
        self.report = relay_pb2.Report()
        self.changed = asyncio.Event()
        self.standing: int | None = None
        """relay_pb2.Standing of the engine; None without one."""
        self._address = f"ipc://{path}"
        self._nbytes_max = config.bytes_in_flight_max
        self._nbytes = self._number = 0
        self._calls: dict[int, Waiting] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wire: Wire | None = None
        self._monitor: Wire | None = None
        self._arena: Arena | None = None
        self._shares = False

    @property
    def serving(self) -> bool:
        return self.standing == relay_pb2.STANDING_SERVING

    def open(self) -> None:
        """Connect, now or as soon as there is an engine."""
        socket = socket_of(self._context, zmq.DEALER)
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._monitor = Wire(monitor, lambda parts: self._renew())
        socket.connect(self._address)
        self._wire = Wire(socket, self._received)
        self._arena = arena()  # a new one: an engine that is behind may still read in the old one
        memory = self._arena.path if self._arena else ""
        self._send(relay_pb2.Frame(hello=relay_pb2.Hello(release=__version__, memory=memory)))

    async def close(self) -> None:
        self._shut()
        await asyncio.to_thread(self._context.term)

    def send_report(self) -> None:
        """Which also says that this front is alive."""
        if self.standing is not None:
            self._send(relay_pb2.Frame(report=self.report))

    # ------------------------------------------------------------ calls

    async def ask(self, opening: relay_pb2.Opening, raw: bytes) -> tuple[relay_pb2.Ending, bytes]:
        """The end of a call of one request, and the response where it went well.

        Raises NotReady, Overloaded, and Unreachable where the engine ended meanwhile.
        """
        call = _Unary(asyncio.get_running_loop().create_future())
        number = self.begin(call, opening, raw)
        try:
            return await call.answer
        finally:
            self.end(number, len(raw), cancelled=call.answer.cancelled())

    def begin(self, call: Waiting, opening: relay_pb2.Opening, raw: bytes | None = None) -> int:
        """The number of a new call, which must be ended. Raises NotReady and Overloaded."""
        nbytes = len(raw or b"")
        if self.standing is None:
            self.report.refused_not_ready += 1
            raise NotReady(NO_ENGINE)
        if len(self._calls) >= CALLS_MAX or self._nbytes + nbytes > self._nbytes_max:
            self.report.refused_full += 1
            raise Overloaded(f"{len(self._calls)} calls are under way here, as many as can be")
        self._number += 1
        self._calls[self._number] = call
        self._nbytes += nbytes
        self.report.relayed += 1
        frame = relay_pb2.Frame(call=self._number, opening=opening)
        if raw is None:
            self._send(frame)
        else:
            self._send_payload(frame, raw)
        return self._number

    def end(self, number: int, nbytes: int = 0, *, cancelled: bool) -> None:
        """Nobody waits for this call any more; the engine is told where it does not know."""
        self._nbytes -= nbytes
        if self._calls.pop(number, None) and cancelled:
            self.report.given_up += 1
            self._send(relay_pb2.Frame(call=number, cancel=relay_pb2.Cancel()))

    def send_request(self, number: int, raw: bytes) -> None:
        self._send_payload(relay_pb2.Frame(call=number, request=relay_pb2.Request()), raw)

    def half_close(self, number: int) -> None:
        self._send(relay_pb2.Frame(call=number, half_close=relay_pb2.HalfClose()))

    def grow(self, number: int, nbytes: int) -> None:
        self._send(relay_pb2.Frame(call=number, credit=relay_pb2.Credit(nbytes=nbytes)))

    # ------------------------------------------------------------ the wire

    def _send(self, frame: relay_pb2.Frame, *payload: bytes) -> None:
        if self._wire is None:
            return
        try:
            self._wire.send([frame.SerializeToString(), *payload])
        except zmq.ZMQError as fault:
            log.warning("engine_does_not_read", fault=str(fault))
            self._renew()

    def _send_payload(self, frame: relay_pb2.Frame, raw: bytes) -> None:
        """A large one in shared memory, as long as there is room."""
        block = None
        if self._shares and self._arena and len(raw) >= SHARED_BYTES_MIN:
            block = self._arena.put(raw)
        if block is None:
            self._send(frame, raw)
        else:
            frame.block.CopyFrom(block)
            self._send(frame)

    def _received(self, parts: list[bytes]) -> None:
        header, *payload = parts
        frame = relay_pb2.Frame.FromString(header)
        if frame.HasField("state"):
            self._stands(frame.state)
        elif frame.HasField("release"):
            assert self._arena is not None  # nobody releases what was never there
            self._arena.release(frame.release.offset)
        elif call := self._calls.get(frame.call):
            call.received(frame, payload[0] if payload else b"")

    def _stands(self, state: relay_pb2.State) -> None:
        if state.standing == relay_pb2.STANDING_UNSPECIFIED:  # it took this front for dead
            self._renew()
            return
        if state.standing == relay_pb2.STANDING_FOREIGN:
            log.error("engine_of_another_release", release=state.release)
            return
        self.standing = state.standing
        self._shares = state.reads_memory
        self.changed.set()

    def _renew(self) -> None:
        """The engine is gone: what it had is lost, and the next one finds an empty wire."""
        self._shut()
        self.open()

    def _shut(self) -> None:
        self.standing = None
        self.changed.set()
        for wire in (self._monitor, self._wire):
            if wire is not None:
                wire.close()
        if self._arena is not None:
            self._arena.close()
        self._monitor = self._wire = self._arena = None
        self._shares = False
        self.report.lost += len(self._calls)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.lost(Unreachable(LOST))


# ---------------------------------------------------------------- RPCs


class Relayed:
    """One RPC's handler in a front."""

    def __init__(self, link: EngineLink, guard: Guard, method: str, idle_s: float) -> None:
        """After the engine has ended a stream, its caller has `idle_s` to take the answers."""
        self._link = link
        self._guard = guard
        self._method = method
        self._idle_s = idle_s

    async def unary(self, raw: bytes, context: Context) -> Any:
        with self._guard.refusing(context, self._method):
            caller = self._guard.permitted(context, self._method)
            with answered(context, self._method):
                ending, response = await self._link.ask(self._opening(context, caller), raw)
                if ending.code == 0:
                    return response
                _end(context, ending)
        return None

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        with self._guard.refusing(context, self._method):
            caller = self._guard.permitted(context, self._method)
            relayed = _RelayedStream(self._link, self._idle_s)
            with answered(context, self._method):
                opening = self._opening(context, caller)
                allowed = self._allowed(requests, context, caller, relayed)
                async with aclosing(relayed.run(opening, allowed)) as responses:
                    async for response in responses:
                        yield response
                if relayed.end is not None:
                    _end(context, relayed.end)
            if relayed.refusal is not None:
                raise relayed.refusal

    async def _allowed(
        self,
        requests: AsyncIterator[bytes],
        context: Context,
        caller: Identity,
        relayed: _RelayedStream,
    ) -> AsyncIterator[bytes]:
        """A stream's requests, up to where its caller may no longer send any."""
        async for raw in requests:
            try:
                if self._guard.permitted(context, self._method) != caller:
                    raise Unauthenticated(
                        "what this identity may do was changed: open the stream again"
                    )
            except SimsearchError as refusal:
                # Not raised here: what was relayed before is answered first.
                relayed.refusal = refusal
                return
            yield raw

    def _opening(self, context: Context, caller: Identity) -> relay_pb2.Opening:
        left_s = context.time_remaining()
        headers = context.invocation_metadata() or ()
        return relay_pb2.Opening(
            method=self._method,
            caller=caller_to(caller),
            deadline_s=0.0 if left_s is None else time.monotonic() + left_s,
            peer=context.peer(),
            headers=headers_to((k, v) for k, v in headers if k not in SECRETS),
        )


class _RelayedStream:
    """One stream of requests to the engine, and one of responses back."""

    def __init__(self, link: EngineLink, idle_s: float) -> None:
        self.refusal: SimsearchError | None = None
        """Why no more requests were relayed, where it was this front that took no more."""
        self.end: relay_pb2.Ending | None = None
        """How the engine ended it."""
        self._link = link
        self._idle_s = idle_s
        self._lost: SimsearchError | None = None
        self._ended = False
        self._handler: asyncio.Task[Any] | None = None
        self._giving_up: asyncio.TimerHandle | None = None

    async def run(
        self, opening: relay_pb2.Opening, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """The responses. Raises NotReady, Overloaded, and Unreachable where the engine is lost."""
        self._handler = asyncio.current_task()
        number = 0
        stream = _Stream(Inflow(lambda nbytes: self._link.grow(number, nbytes)), self._on_end)
        number = self._link.begin(stream, opening)
        sending = asyncio.create_task(self._send(number, requests, stream.requests))
        try:
            async for response in stream.responses:
                yield response
            if self._lost is not None:
                raise self._lost
        finally:
            self._link.end(number, cancelled=not self._ended)
            if self._giving_up is not None:
                self._giving_up.cancel()
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending

    async def _send(self, number: int, requests: AsyncIterator[bytes], window: Outflow) -> None:
        async for raw in requests:
            await window.take(len(raw))
            self._link.send_request(number, raw)
        self._link.half_close(number)

    def _on_end(self, end: relay_pb2.Ending | SimsearchError) -> None:
        self._ended = True
        assert self._handler is not None
        if isinstance(end, SimsearchError):
            self._lost = end
        else:
            self.end = end
        if self.end is not None and self.end.code == grpc.StatusCode.CANCELLED.value[0]:
            self._handler.cancel()  # its caller takes no answers: no use in waiting for that
            return
        loop = asyncio.get_running_loop()
        self._giving_up = loop.call_later(self._idle_s, self._handler.cancel)


def _end(context: Context, ending: relay_pb2.Ending) -> None:
    """As the engine ended it."""
    context.set_trailing_metadata(headers_from(ending.trailers))
    context.set_code(STATUSES[ending.code])
    context.set_details(ending.details)


# ---------------------------------------------------------------- the front


class FrontGuard(Guard):
    """The guard of a front: relayed calls go through it in their handler, on their way."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        method: str = details.method
        if method.startswith(OURS):
            return await continuation(details)
        return await super().intercept_service(continuation, details)


class Front:
    """The public port before an engine whose socket is at `path`."""

    def __init__(
        self,
        config: Config,
        path: Path,
        guard: FrontGuard | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        """With the guard and the certificates that the configuration names, if none are given.

        Raises BadConfig.
        """
        self.guard = guard or FrontGuard(directory_of(config.identity))
        self.link = EngineLink(path, config.server)
        self._port = Port(config.server, [self.guard], tls or tls_of(config.tls), shared=True)
        self._port.server.add_generic_rpc_handlers(
            [self._service(descriptor, config.server.stream_idle_s) for descriptor in DESCRIPTORS]
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _service(self, descriptor: Any, idle_s: float) -> grpc.GenericRpcHandler:
        """Bytes in and bytes out, for every method there is."""
        handlers: dict[str, Any] = {}
        for method in descriptor.methods:
            name = f"/{descriptor.full_name}/{method.name}"
            relayed = Relayed(self.link, self.guard, name, idle_s)
            handlers[method.name] = (
                grpc.stream_stream_rpc_method_handler(relayed.stream)
                if method.client_streaming
                else grpc.unary_unary_rpc_method_handler(relayed.unary)
            )
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    async def open(self, on_serving: Callable[[], None] = lambda: None) -> str:
        """The address; `on_serving` is called when the engine answers searches.

        Raises BadConfig.
        """
        address = await self._listen()
        self.link.open()
        self._tasks = [
            asyncio.create_task(self._tell_probes(on_serving)),
            asyncio.create_task(self._report()),
        ]
        return address

    async def _listen(self) -> str:
        return await self._port.open()

    async def close(self, grace_s: float | None = STOP_GRACE_S) -> None:
        """Not serving; calls under way have so long to end."""
        for task in self._tasks:
            task.cancel()
        await self._port.set_serving(False)
        await self._port.close(grace_s)
        await self.link.close()

    async def _tell_probes(self, on_serving: Callable[[], None]) -> None:
        while True:
            await self.link.changed.wait()
            self.link.changed.clear()
            await self._port.set_serving(self.link.serving)
            if self.link.serving:
                on_serving()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            counts = self.guard.counts
            self.link.report.unauthenticated = counts.unauthenticated
            self.link.report.denied = counts.denied
            self.link.send_report()

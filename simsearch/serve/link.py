"""A front's end of the wire to its engine: calls under way, and what becomes of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import zmq

from simsearch import __version__
from simsearch.config import ServerConfig
from simsearch.errors import NotReady, Overloaded, SimsearchError, Unreachable
from simsearch.internal.v1 import relay_pb2
from simsearch.serve.arena import SHARED_BYTES_MIN, Arena, arena
from simsearch.serve.relay import CALLS_MAX, Inflow, Outflow, Wire, ending_of, socket_of
from simsearch.telemetry import EventLog

log = EventLog(__name__)

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
class StreamCall:
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
        self._name = secrets.token_hex(8)
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
        hello = relay_pb2.Hello(release=__version__, memory=memory, front=self._name)
        self._send(relay_pb2.Frame(hello=hello))

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

    def half_close(self, number: int, refusal: SimsearchError | None = None) -> None:
        """No more requests: the caller has no more, or this front takes no more, with a reason that
        the call ends with."""
        half_close = relay_pb2.HalfClose(refusal=ending_of(refusal) if refusal else None)
        self._send(relay_pb2.Frame(call=number, half_close=half_close))

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

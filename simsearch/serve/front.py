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
from contextlib import AbstractContextManager, aclosing, suppress
from pathlib import Path
from typing import Any, Final

import grpc

from simsearch.config import Config
from simsearch.errors import SimsearchError, Unauthenticated
from simsearch.internal.v1 import relay_pb2
from simsearch.serve.guard import OURS, Guard
from simsearch.serve.identity import Identity
from simsearch.serve.interceptors import Context, answered
from simsearch.serve.link import EngineLink, StreamCall
from simsearch.serve.listening import DESCRIPTORS, STOP_GRACE_S, Port, directory_of, tls_of
from simsearch.serve.relay import Inflow, Outflow, caller_to, headers_from, headers_to
from simsearch.serve.reports import Ended, Endings
from simsearch.serve.tls import ServerTls

REPORT_S: Final = 1.0
STATUSES: Final = {code.value[0]: code for code in grpc.StatusCode}
SECRETS: Final = ("authorization",)
"""Headers that nobody behind the front needs."""


class Relayed:
    """One RPC's handler in a front."""

    def __init__(
        self, link: EngineLink, guard: Guard, endings: Endings, method: str, idle_s: float
    ) -> None:
        """After the engine has ended a stream, its caller has `idle_s` to take the answers."""
        self._link = link
        self._guard = guard
        self._endings = endings
        self._method = method
        self._idle_s = idle_s

    async def unary(self, raw: bytes, context: Context) -> Any:
        with self._watching(context) as ended, self._guard.refusing(context, self._method):
            caller = self._guard.permitted(context, self._method)
            with answered(context, self._method):
                ending, response = await self._link.ask(self._opening(context, caller), raw)
                ended.in_engine = True
                if ending.code == 0:
                    return response
                _end(context, ending)
        return None

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        with self._watching(context) as ended, self._guard.refusing(context, self._method):
            caller = self._guard.permitted(context, self._method)
            relayed = _RelayedStream(self._link, self._idle_s)
            with answered(context, self._method):
                opening = self._opening(context, caller)
                allowed = self._allowed(requests, context, caller, relayed)
                async with aclosing(relayed.run(opening, allowed)) as responses:
                    async for response in responses:
                        yield response
                if relayed.end is not None:
                    ended.in_engine = True
                    _end(context, relayed.end)
            if relayed.refusal is not None:
                raise relayed.refusal

    def _watching(self, context: Context) -> AbstractContextManager[Ended]:
        return self._endings.watching(self._method, context)

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
        stream = StreamCall(Inflow(lambda nbytes: self._link.grow(number, nbytes)), self._on_end)
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
        self._link.half_close(number, self.refusal)

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
        self._endings = Endings()
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
            relayed = Relayed(self.link, self.guard, self._endings, name, idle_s)
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
            self._endings.report(self.link.report)
            self.link.send_report()

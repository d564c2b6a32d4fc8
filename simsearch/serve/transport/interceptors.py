"""Around every call: a bound on edits, look-ups and streams in flight, and errors by name.

How many Match and BatchMatch calls are let in is the limiter's business (`admission.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc

from simsearch.errors import NotReady, Overloaded, SimsearchError
from simsearch.serve.transport.status_codes import HIDDEN, status_of, trailers_of, words_of
from simsearch.telemetry import EventLog

log = EventLog(__name__)

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

Behaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncGenerator[Any, None]]

OURS = "/simsearch.v1."
LIMITED = "/simsearch.v1.MatchService/"


class Chain(grpc.aio.ServerInterceptor):
    """Interceptors one within the other, the first outermost, asked once for each method: what
    they make of its handler must depend on nothing else."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._interceptors = interceptors
        self._made: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """None where there is no such method, of which none is remembered."""
        made = self._made.get(details.method)
        if made is None:
            inner = continuation
            for interceptor in reversed(self._interceptors):
                inner = partial(interceptor.intercept_service, inner)
            made = await inner(details)
            if made is not None:
                self._made[details.method] = made
        return made


class Refusals(grpc.aio.ServerInterceptor):
    """Sends a failed call's status by itself. gRPC's asyncio server puts an empty answer before a
    status that was only set, and a client that has read the beginning of an answer does not
    repeat its call: no refusal would ever be retried."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or not handler.unary_unary:  # streams have no answer to put before it
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _status_alone(handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )


def _status_alone(behaviour: Behaviour) -> Behaviour:
    async def answered(request: Any, context: Context) -> Any:
        answer = await behaviour(request, context)
        if context.code():
            await context.abort(context.code(), context.details(), context.trailing_metadata())
        return answer

    return answered


@dataclass(frozen=True)
class GateCounts:
    """Calls; `in_flight` and `streams` are now, the others since the start."""

    admitted: int
    refused_full: int
    refused_draining: int
    in_flight: int
    streams: int


class Gate(grpc.aio.ServerInterceptor):
    """Admits calls up to a bound, refuses the rest at once, and turns errors into statuses."""

    def __init__(self, in_flight_max: int, streams_max: int = 32) -> None:
        self._in_flight_max = in_flight_max
        self._streams_max = streams_max
        self._in_flight = self._bounded = self._streams = 0
        self._admitted = self._refused_full = self._refused_draining = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def counts(self) -> GateCounts:
        return GateCounts(
            admitted=self._admitted,
            refused_full=self._refused_full,
            refused_draining=self._refused_draining,
            in_flight=self._in_flight,
            streams=self._streams,
        )

    def drain(self) -> None:
        """From now on refuse new calls; those in flight go on."""
        self._draining = True

    async def idle(self) -> None:
        """Returns once no call is in flight."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or not method.startswith(OURS):
            return handler
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._guarded_stream(handler.stream_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(handler.unary_unary, method),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _guarded(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def guarded(request: Any, context: Context) -> Any:
            with _answered(context, method), self._call(bounded=not method.startswith(LIMITED)):
                return await behaviour(request, context)

        return guarded

    def _guarded_stream(self, behaviour: StreamBehaviour, method: str) -> StreamBehaviour:
        async def guarded(requests: Any, context: Context) -> AsyncGenerator[Any, None]:
            with _answered(context, method), self._stream():
                async with aclosing(behaviour(requests, context)) as responses:
                    async for response in responses:
                        yield response

        return guarded

    @contextmanager
    def _call(self, *, bounded: bool) -> Iterator[None]:
        self._check_draining()
        if bounded and self._bounded >= self._in_flight_max:
            self._refuse_full(f"{self._bounded} calls are in flight")
        self._bounded += bounded
        self._enter()
        try:
            yield
        finally:
            self._bounded -= bounded
            self._leave()

    @contextmanager
    def _stream(self) -> Iterator[None]:
        self._check_draining()
        if self._streams >= self._streams_max:
            self._refuse_full(f"{self._streams} streams are open")
        self._streams += 1
        self._enter()
        try:
            yield
        finally:
            self._streams -= 1
            self._leave()

    def _enter(self) -> None:
        self._admitted += 1
        self._in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def _check_draining(self) -> None:
        if self._draining:
            self._refused_draining += 1
            raise NotReady("the server is shutting down: ask another one")

    def _refuse_full(self, what: str) -> NoReturn:
        self._refused_full += 1
        raise Overloaded(f"{what}, as many as this server takes: retry")


@contextmanager
def _answered(context: Context, method: str) -> Iterator[None]:
    """Whatever goes wrong within is the caller's answer, by name."""
    try:
        yield
    except SimsearchError as error:
        end_with(context, error)
    except Exception:
        # The boundary: whatever is not named must still be answered, logged and not leak.
        log.error("call_failed", method=method, exc_info=True)
        end_with(context, HIDDEN)


def end_with(context: Context, error: SimsearchError) -> None:
    """Set the call's status; `Refusals` sends it."""
    context.set_trailing_metadata(trailers_of(error, context.time_remaining()))
    context.set_code(status_of(error))
    context.set_details(words_of(error))

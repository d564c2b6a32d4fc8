"""Around every call: a bound on calls in flight, and errors by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from simsearch.errors import NotReady, Overloaded, SimsearchError
from simsearch.serve.errors import HIDDEN, status_of, trailers_of, words_of
from simsearch.telemetry import EventLog

log = EventLog(__name__)

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

Behaviour = Callable[[Any, Context], Awaitable[Any]]

OURS = "/simsearch.v1."


class Gate(grpc.aio.ServerInterceptor):
    """Admits calls up to a bound, refuses the rest at once, and turns errors into statuses."""

    def __init__(self, in_flight_max: int) -> None:
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        return self._in_flight

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
        if handler is None or handler.unary_unary is None or not method.startswith(OURS):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(handler.unary_unary, method),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _guarded(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def guarded(request: Any, context: Context) -> Any:
            try:
                self._admit()
            except SimsearchError as refusal:
                return _refuse(context, refusal)
            self._enter()
            try:
                return await behaviour(request, context)
            except SimsearchError as error:
                return _refuse(context, error)
            except Exception:
                # The boundary: whatever is not named must still be answered, logged and not leak.
                log.error("call_failed", method=method, exc_info=True)
                return _refuse(context, HIDDEN)
            finally:
                self._leave()

        return guarded

    def _enter(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def _admit(self) -> None:
        if self._draining:
            raise NotReady("the server is shutting down: ask another one")
        if self._in_flight >= self._in_flight_max:
            raise Overloaded(
                f"{self._in_flight} calls are in flight, as many as this server takes: retry"
            )


def _refuse(context: Context, error: SimsearchError) -> None:
    """End the call with a status. Not by `context.abort`: a server that is being stopped
    cancels aborted calls, and their callers would read CANCELLED instead of the reason."""
    context.set_trailing_metadata(trailers_of(error))
    context.set_code(status_of(error))
    context.set_details(words_of(error))

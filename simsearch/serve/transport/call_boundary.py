"""Call boundary: the one gRPC interceptor, which runs every call inside an ordered list of layers.

A layer is one concern of every call: metrics, authorization, the concurrency limit. It is bound to
a method once and entered for each call. An error that leaves a call becomes its status here, and
nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import grpc

from simsearch.errors import SimsearchError
from simsearch.serve.transport.status_codes import HIDDEN, status_of, trailers_of, words_of
from simsearch.telemetry import EventLog

log = EventLog(__name__)

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

OURS: Final = "/simsearch.v1."
"""How the names of this project's methods begin; the others are health and reflection."""


@dataclass(frozen=True)
class Method:
    """An RPC, "/package.Service/Method", and the handler that answers it."""

    name: str
    handler: Any

    @property
    def is_ours(self) -> bool:
        """False for health and reflection."""
        return self.name.startswith(OURS)

    @property
    def is_unary(self) -> bool:
        """One request, one response."""
        return self.handler.unary_unary is not None

    @property
    def is_stream(self) -> bool:
        """A stream of requests and a stream of responses."""
        return self.handler.stream_stream is not None


class Call:
    """One call on its way through the layers, which may replace its request."""

    __slots__ = ("context", "edit_response", "request")

    def __init__(self, request: Any, context: Context) -> None:
        """`request` is one message or, of a stream, an iterator of them; bytes or parsed."""
        self.request = request
        self.context = context
        self.edit_response: Callable[[Any], None] | None = None


Enter: TypeAlias = Callable[[Call], AbstractContextManager[Any]]
"""Makes what one call runs in. Errors raised by it, or in it, end the call."""


class CallLayer(ABC):
    """One concern of every call."""

    parses: ClassVar[bool] = False
    """Whether it takes requests as bytes and parses them; gRPC does not parse them then."""

    @abstractmethod
    def bind(self, method: Method) -> Enter | None:
        """What each call of this method runs in; None: the layer has no part in it.

        Asked once for each method, so it may depend on the method alone."""


class CallBoundary(grpc.aio.ServerInterceptor):
    """Runs every call inside the layers, the first outermost, and turns errors into statuses."""

    def __init__(self, layers: Sequence[CallLayer]) -> None:
        self._layers = layers
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """The wrapped handler, made once for each method; None where there is no such method."""
        wrapped = self._wrapped.get(details.method)
        if wrapped is None and (handler := await continuation(details)) is not None:
            wrapped = self._wrapped[details.method] = self.wrap(Method(details.method, handler))
        return wrapped

    def wrap(self, method: Method) -> Any:
        """The handler of this method, inside the layers that have a part in it."""
        handler, enters, parse = method.handler, list[Enter](), method.handler.request_deserializer
        for layer in self._layers:
            if (enter := layer.bind(method)) is not None:
                enters.append(enter)
                parse = None if layer.parses else parse
        if not enters:
            return handler
        if method.is_stream:
            return grpc.stream_stream_rpc_method_handler(
                _stream(method, tuple(enters)), parse, handler.response_serializer
            )
        assert method.is_unary, f"{method.name}: layers know unary and bidirectional calls alone"
        return grpc.unary_unary_rpc_method_handler(
            _unary(method, tuple(enters)), parse, handler.response_serializer
        )


def _unary(method: Method, enters: tuple[Enter, ...]) -> Callable[[Any, Context], Awaitable[Any]]:
    behaviour = method.handler.unary_unary

    async def answer(request: Any, context: Context) -> Any:
        call = Call(request, context)
        try:
            with ExitStack() as stack:
                for enter in enters:
                    stack.enter_context(enter(call))
                response = await behaviour(call.request, context)
                if call.edit_response is not None:
                    call.edit_response(response)
                return response
        except Exception as error:
            status = _status_of(error, context, method)
        # Aborted, not only set: before a status that was only set, gRPC's asyncio server sends an
        # empty answer, and a client that has read the beginning of an answer does not retry.
        await context.abort(*status)

    return answer


def _stream(
    method: Method, enters: tuple[Enter, ...]
) -> Callable[[AsyncIterator[Any], Context], AsyncGenerator[Any, None]]:
    behaviour = method.handler.stream_stream

    async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any, None]:
        call = Call(requests, context)
        try:
            with ExitStack() as stack:
                for enter in enters:
                    stack.enter_context(enter(call))
                async with aclosing(behaviour(call.request, context)) as responses:
                    async for response in responses:
                        if call.edit_response is not None:
                            call.edit_response(response)
                        yield response
        except Exception as error:
            code, words, trailers = _status_of(error, context, method)
            context.set_trailing_metadata(trailers)
            context.set_code(code)
            context.set_details(words)

    return answer


def _status_of(
    error: Exception, context: Context, method: Method
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """Code, words and trailing metadata of what ended a call. Raises a handler's own abort."""
    if isinstance(error, grpc.aio.AbortError):
        raise error  # the handler has set the status itself: gRPC's health service does
    if isinstance(error, SimsearchError):
        named = error
    else:
        # The boundary: an unexpected error must still be answered, logged and not leak.
        log.error("call_failed", method=method.name, exc_info=True)
        named = HIDDEN
    return status_of(named), words_of(named), trailers_of(named, context.time_remaining())

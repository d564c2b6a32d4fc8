"""Around every call, outermost: how long it took, how it ended, and whose stages they were."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final, Protocol

import grpc
from google.rpc import error_details_pb2, status_pb2

from simsearch.errors import every_error
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.transport.interceptors import OURS, Context
from simsearch.telemetry import RunningCall, work_for

OK: Final = "OK"
CANCELLED: Final = "CANCELLED"
"""The caller went before the answer."""

_UNNAMED: Final = "INTERNAL"
_REASONS: Final = frozenset(every_error())
_DETAILS_KEY: Final = "grpc-status-details-bin"


class Span(Protocol):
    """One call as it is told to a collector of traces."""

    def stage(self, name: str, began: float, ended: float) -> None:
        """As RunningCall.on_stage."""
        ...

    def end(self, outcome: str) -> None: ...


class Tracer(Protocol):
    def begin(self, rpc: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span: ...


class Observer(grpc.aio.ServerInterceptor):
    """To be the first interceptor, so that what the others refuse is counted, too.

    Calls are by (RPC, outcome), as in ("MatchService/Match", "OVERLOADED"): names from the protos
    and reasons from the tree of errors, so that a caller cannot make more of them."""

    def __init__(self, metrics: EventMetrics, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(OURS):
            return handler
        rpc = details.method.removeprefix(OURS)
        streams = handler.request_streaming and handler.response_streaming
        kind: Any = (
            grpc.stream_stream_rpc_method_handler
            if streams
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = self._stream(handler, rpc) if streams else self._unary(handler, rpc)
        return kind(behaviour, handler.request_deserializer, handler.response_serializer)

    def _unary(self, handler: Any, rpc: str) -> Callable[[Any, Context], Awaitable[Any]]:
        async def observed(request: Any, context: Context) -> Any:
            with self._call(rpc, context):
                return await handler.unary_unary(request, context)

        return observed

    def _stream(self, handler: Any, rpc: str) -> Callable[[Any, Context], AsyncGenerator[Any]]:
        async def observed(requests: Any, context: Context) -> AsyncGenerator[Any]:
            with self._call(rpc, context):
                async with aclosing(handler.stream_stream(requests, context)) as responses:
                    async for response in responses:
                        yield response

        return observed

    @contextmanager
    def _call(self, rpc: str, context: Context) -> Iterator[None]:
        began = time.perf_counter()
        metadata = tuple(context.invocation_metadata() or ())
        span = self._tracer.begin(rpc, metadata) if self._tracer else None
        work_for(RunningCall(f"{random.getrandbits(64):016x}", self._listener(span)))
        outcome = _UNNAMED
        try:
            yield
            outcome = _outcome_of(context)
        except (asyncio.CancelledError, GeneratorExit):
            outcome = CANCELLED
            raise
        finally:
            self._metrics.calls[rpc, outcome].observe(time.perf_counter() - began)
            if span:
                span.end(outcome)

    def _listener(self, span: Span | None) -> Callable[[str, float, float], None]:
        def on_stage(name: str, began: float, ended: float) -> None:
            self._metrics.stages[name,].observe(ended - began)
            if span:
                span.stage(name, began, ended)

        return on_stage


def _outcome_of(context: Context) -> str:
    """OK, or the reason that a call was ended with."""
    if context.code() in (None, 0, grpc.StatusCode.OK):
        return OK
    for key, value in context.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            return _reason(bytes(value))  # type: ignore[arg-type]  # a key on -bin has bytes
    return _UNNAMED


def _reason(details: bytes) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details:
        if detail.Unpack(info) and info.reason in _REASONS:
            return str(info.reason)
    return _UNNAMED

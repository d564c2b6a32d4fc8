"""Tracing: an OpenTelemetry span for each call, with child spans for its stages; off by default.

A span has the RPC, the outcome and the durations of the stages: no content, no scores, no caller.
The metadata `traceparent` of a call makes its span part of the caller's trace.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from simsearch import __version__
from simsearch.errors import BadConfig
from simsearch.serve.metrics.call_metrics import OK

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

SERVICE: Final = "simsearch"
FLUSH_MS: Final = 2_000
"""Time to send the last spans when the server stops."""


class CallSpan:
    """The span of one call. `stage` may be called from any thread."""

    def __init__(self, tracer: trace.Tracer, rpc: str, parent: Context) -> None:
        from opentelemetry import trace as api

        service, _, method = rpc.rpartition("/")
        self._tracer = tracer
        self._span = tracer.start_span(
            f"simsearch.v1.{rpc}",
            context=parent,
            kind=api.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": f"simsearch.v1.{service}",
                "rpc.method": method,
            },
        )
        self._below = api.set_span_in_context(self._span, parent)
        self._failed = api.Status(api.StatusCode.ERROR)

    def stage(self, name: str, began: float, ended: float) -> None:
        """Add the child span of a stage; times as of time.perf_counter()."""
        since_ns = time.time_ns() - time.perf_counter_ns()
        span = self._tracer.start_span(
            name, context=self._below, start_time=since_ns + int(began * 1e9)
        )
        span.end(since_ns + int(ended * 1e9))

    def end(self, outcome: str) -> None:
        """End the span; any outcome but OK is an error."""
        self._span.set_attribute("simsearch.outcome", outcome)
        if outcome != OK:
            self._span.set_status(self._failed)
        self._span.end()


class Tracing:
    """A Tracer (see call_metrics) with the spans of `provider`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, rpc: str, metadata: Sequence[tuple[str, str | bytes]]) -> CallSpan:
        """Start the span of a call, in the trace that its metadata names."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        return CallSpan(self._tracer, rpc, self._propagator.extract(carrier))

    def close(self) -> None:
        """Send the remaining spans, for FLUSH_MS at most."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def tracing_to(endpoint: str) -> Tracing | None:
    """Tracing to an OTLP endpoint, None for "". OpenTelemetry reads headers, sampling and limits
    from its own environment variables. Raises BadConfig if it is not installed."""
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise BadConfig(
            "telemetry: otlp_endpoint needs OpenTelemetry, which is not installed: pip install "
            '"simsearch[otel]", or take the key out'
        ) from None
    resource = Resource.create({"service.name": SERVICE, "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)

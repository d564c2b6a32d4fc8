"""A call is one span with its stages below it, and says nothing of what it was about."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec import structs

from simsearch.client import Client
from simsearch.config import CacheConfig, ServerConfig
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import BadConfig, EmptyContent
from simsearch.serve.auth.authorization import Authorization
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.metrics.call_metrics import CallMetrics
from simsearch.serve.metrics.tracing import Tracing, tracing_to
from simsearch.serve.scheduling.executor import Executors
from simsearch.serve.server import port_of
from simsearch.serve.transport.concurrency_limit import ConcurrencyLimit
from simsearch.serve.transport.port import GrpcPort
from simsearch.types import Modality, TextContent
from simsearch.v1 import match_pb2, match_pb2_grpc
from tests.fakes import FakeTextEncoder
from tests.serve.conftest import EDIT
from tests.serve.house import _core

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: the extra [otel]")

MARK = "Marked content about harbours, which no span may ever hold."
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> Iterator[tuple[Tracing, Any]]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing = Tracing(provider)
    yield tracing, kept
    tracing.close()


@pytest.fixture
def traced(tmp_path: Path, spans: tuple[Tracing, Any]) -> Iterator[str]:
    """The address of a server whose calls are traced."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    prose = LoadedEncoder("prose", Modality.TEXT, text=FakeTextEncoder())
    core = _core(tmp_path, EncoderSet({"prose": prose}), CacheConfig(), None)
    config = structs.replace(core.config, server=ServerConfig(listen="127.0.0.1:0"))

    async def opened() -> tuple[GrpcPort, Executors, str]:
        executors = Executors(config.server)
        executors.begin(core)
        port = port_of(
            config,
            executors,
            [CallMetrics(EventMetrics(), spans[0]), Authorization(), ConcurrencyLimit(8, 8)],
        )
        return port, executors, await port.open()

    port, executors, address = asyncio.run_coroutine_threadsafe(opened(), loop).result(10)
    yield address
    asyncio.run_coroutine_threadsafe(port.close(None), loop).result(10)
    assert executors.close(10)
    core.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_call_is_a_span_with_its_stages(traced: str, spans: tuple[Tracing, Any]) -> None:
    """Each stage lies within the call; name and attributes are of ours alone."""
    with Client(traced) as client:
        client.create_bank("alpha", EDIT)
        client.match(TextContent(MARK))
    finished = {span.name: span for span in spans[1].get_finished_spans()}
    call = finished["simsearch.v1.MatchService/Match"]
    assert dict(call.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "simsearch.v1.MatchService",
        "rpc.method": "Match",
        "simsearch.outcome": "OK",
    }
    slack_ns = 2_000_000  # two clocks
    for stage in ("encode", "search", "decide"):
        assert finished[stage].parent.span_id == call.context.span_id
        assert call.start_time - slack_ns <= finished[stage].start_time <= finished[stage].end_time
        assert finished[stage].end_time <= call.end_time + slack_ns
        assert not finished[stage].attributes
    assert MARK[:6] not in "".join(span.to_json() for span in finished.values())


def test_a_call_belongs_to_the_trace_of_its_caller(traced: str, spans: tuple[Tracing, Any]) -> None:
    """By `traceparent` in its metadata, as the W3C has it; a broken one is none."""
    request = match_pb2.MatchRequest()
    request.content.text = MARK
    with grpc.insecure_channel(traced) as channel:
        stub: Any = match_pb2_grpc.MatchServiceStub(channel)
        stub.Match(request, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")], timeout=10)
        stub.Match(request, metadata=[("traceparent", "nonsense")], timeout=10)
    calls = [s for s in spans[1].get_finished_spans() if s.name.endswith("/Match")]
    assert format(calls[0].context.trace_id, "032x") == TRACE
    assert format(calls[0].parent.span_id, "016x") == PARENT
    assert calls[1].parent is None


def test_a_refused_call_says_why(traced: str, spans: tuple[Tracing, Any]) -> None:
    """By its reason, without words."""
    with Client(traced) as client, pytest.raises(EmptyContent):
        client.match(TextContent(""))
    (call,) = [s for s in spans[1].get_finished_spans() if s.name.endswith("/Match")]
    assert call.attributes["simsearch.outcome"] == "EMPTY_CONTENT"
    assert not call.status.is_ok
    assert (call.status.description, call.events) == (None, ())


def test_it_is_off_unless_asked_for() -> None:
    """Nothing of OpenTelemetry is even imported."""
    assert tracing_to("") is None


def test_asked_for_and_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(BadConfig, match=r"simsearch\[otel\]"):
        tracing_to("http://127.0.0.1:4317")


def test_spans_reach_a_collector() -> None:
    """In OTLP over gRPC, with the name of the service."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    from concurrent.futures import ThreadPoolExecutor

    from opentelemetry.proto.collector.trace.v1 import (
        trace_service_pb2,
        trace_service_pb2_grpc,
    )

    received: list[Any] = []

    class Collector(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: object) -> Any:
            received.append(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    add_service: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_service(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tracing = tracing_to(f"http://127.0.0.1:{port}")
    assert tracing is not None
    tracing.begin("MatchService/Match", ()).end("OK")
    tracing.close()
    server.stop(None).wait(5)
    (resource,) = received[0].resource_spans
    names = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert names["service.name"] == "simsearch"
    assert resource.scope_spans[0].spans[0].name == "simsearch.v1.MatchService/Match"

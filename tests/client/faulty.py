"""A match service that fails as it is told to, with raw gRPC, and says who asked what."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from simsearch.errors import SimsearchError
from simsearch.serve.transport.status_codes import item_error, status_of, trailers_of
from simsearch.v1 import bank_pb2, bank_pb2_grpc, content_pb2, match_pb2, match_pb2_grpc

Context: TypeAlias = grpc.ServicerContext
Fault: TypeAlias = Callable[[Context], None]


def fails_with(error: SimsearchError) -> Fault:
    """As a server of ours refuses."""

    def fault(context: Context) -> None:
        context.set_trailing_metadata(trailers_of(error, context.time_remaining()))
        context.abort(status_of(error), error.message)

    return fault


def plainly(
    code: grpc.StatusCode,
    words: str = "by a proxy",
    trailers: tuple[tuple[str, str | bytes], ...] = (),
) -> Fault:
    """As what stands between might."""

    def fault(context: Context) -> None:
        context.set_trailing_metadata(trailers)
        context.abort(code, words)

    return fault


def rich(code: grpc.StatusCode, reason: str, domain: str = "simsearch") -> bytes:
    """The details of a status with a reason."""
    status = status_pb2.Status(code=code.value[0], message="words")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    return bytes(status.SerializeToString())


def slowly(seconds: float) -> Fault:
    return lambda context: time.sleep(seconds)


class Health(health_pb2_grpc.HealthServicer):
    """SERVING until told otherwise; grpc_health's own deadlocks where a watch ends while the
    status changes."""

    def __init__(self) -> None:
        self._status: int = health_pb2.HealthCheckResponse.SERVING
        self._changed = threading.Condition()

    def set(self, serving: bool) -> None:
        answers = health_pb2.HealthCheckResponse
        with self._changed:
            self._status = answers.SERVING if serving else answers.NOT_SERVING
            self._changed.notify_all()

    def Check(self, request: Any, context: Context) -> Any:
        return health_pb2.HealthCheckResponse(status=self._status)

    def Watch(self, request: Any, context: Context) -> Iterator[Any]:
        told = None
        while context.is_active():
            if told != self._status:
                told = self._status
                yield health_pb2.HealthCheckResponse(status=told)
            with self._changed:
                self._changed.wait(0.05)


class Faulty(match_pb2_grpc.MatchServiceServicer, bank_pb2_grpc.BankServiceServicer):
    """Each call takes the next of `script`, or answers where it is empty: a content's answer names
    its text as its snapshot; `bad` texts are items' errors. With `gate` shut, calls hold still."""

    def __init__(self, *script: Fault) -> None:
        self.script = deque(script)
        self.asked: list[list[str]] = []
        self.timeouts_s: list[float | None] = []
        self.edits = 0
        self.metadata: list[dict[str, Any]] = []
        self.bad: dict[str, SimsearchError] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Semaphore(0)
        self.health = Health()
        self.answers_max = self.stream_items_max = 10**6

    def set_serving(self, serving: bool) -> None:
        """What health checks are told."""
        self.health.set(serving)

    def Match(self, request: match_pb2.MatchRequest, context: Context) -> Any:
        self._called([request.content], context)
        item = self._item(request.content)
        if item.WhichOneof("outcome") == "error":
            fails_with(self.bad[request.content.text])(context)
        return match_pb2.MatchResponse(result=item.result)

    def BatchMatch(self, request: match_pb2.BatchMatchRequest, context: Context) -> Any:
        self._called(list(request.contents), context)
        items = [self._item(content) for content in request.contents]
        return match_pb2.BatchMatchResponse(items=items[: self.answers_max])

    def StreamMatch(self, requests: Any, context: Context) -> Iterator[Any]:
        answered = 0
        for request in requests:
            self._called([item.content for item in request.items], context)
            for item in request.items:
                if answered >= self.stream_items_max:
                    plainly(grpc.StatusCode.UNAVAILABLE)(context)
                answered += 1
                yield match_pb2.StreamMatchResponse(answers=[self._answer(item)])

    def AddEntry(self, request: bank_pb2.AddEntryRequest, context: Context) -> Any:
        self.edits += 1
        self._called([], context)
        return bank_pb2.AddEntryResponse(seq=1)

    def _called(self, contents: list[content_pb2.Content], context: Context) -> None:
        self.asked.append([c.text for c in contents])
        self.timeouts_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        self.busy.release()
        if not self.gate.is_set():
            self.gate.wait(20)
        if self.script:
            self.script.popleft()(context)

    def _item(self, content: content_pb2.Content) -> match_pb2.BatchMatchItem:
        if content.text in self.bad:
            return match_pb2.BatchMatchItem(error=item_error(self.bad[content.text]))
        result = match_pb2.MatchResult(
            verdict=match_pb2.VERDICT_NO_MATCH, snapshot=content.text, complete=True
        )
        return match_pb2.BatchMatchItem(result=result)

    def _answer(self, item: match_pb2.StreamMatchItem) -> match_pb2.StreamMatchAnswer:
        found = self._item(item.content)
        if found.WhichOneof("outcome") == "error":
            return match_pb2.StreamMatchAnswer(id=item.id, error=found.error)
        return match_pb2.StreamMatchAnswer(id=item.id, result=found.result)


@contextmanager
def listening(faulty: Faulty, port: int = 0) -> Iterator[str]:
    """The address of a server with this service."""
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    match_pb2_grpc.add_MatchServiceServicer_to_server(faulty, server)
    bank_pb2_grpc.add_BankServiceServicer_to_server(faulty, server)
    health_pb2_grpc.add_HealthServicer_to_server(faulty.health, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        faulty.gate.set()
        server.stop(None).wait()

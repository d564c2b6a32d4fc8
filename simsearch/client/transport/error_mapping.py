"""Error mapping: from a failed gRPC call to the error that it stands for, whoever on the way made
it fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from simsearch.errors import (
    BadRequest,
    Conflict,
    ContentTooLarge,
    Corrupt,
    Fault,
    InternalFault,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    SimsearchError,
    Unauthenticated,
    Unavailable,
    Unreachable,
    every_error,
)
from simsearch.wire import error_from

DOMAIN = "simsearch"
DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"

# CANCELLED: this client cancels only what nobody waits for, so it is a server that was stopped.
NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)

UNHEALTHY = "backend unhealthy"
"""gRPC's word where health checks leave no server to ask."""

WRITTEN_TOO_LATE = "Internal error from Core"
"""What grpc.aio makes of a stream that the server ended while this side was writing: it forgets
why it ended (its issue 36066), and says INTERNAL."""

PLAIN: Mapping[grpc.StatusCode, type[SimsearchError]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
        grpc.StatusCode.OUT_OF_RANGE: BadRequest,
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.ALREADY_EXISTS: Conflict,
        grpc.StatusCode.ABORTED: Conflict,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
        grpc.StatusCode.UNAVAILABLE: Unavailable,
        grpc.StatusCode.FAILED_PRECONDITION: Fault,
        grpc.StatusCode.UNIMPLEMENTED: Fault,
        grpc.StatusCode.DATA_LOSS: Corrupt,
        grpc.StatusCode.INTERNAL: InternalFault,
        grpc.StatusCode.UNKNOWN: InternalFault,
    }
)
"""The closest class to a status that comes without a reason of ours: a proxy's, or gRPC's own."""


def error_of(failure: Any, where: str) -> SimsearchError:
    """What a failed call of `grpc` or `grpc.aio` says (an RpcError of either, which is the call
    too): the server's own error wherever its reason came through whole, else the best that the
    plain status gives. `where`: the addresses it was sent to."""
    words: str = failure.details() or ""
    code = code_of(failure)
    trailers = _trailers(failure)
    status = _status(trailers.get(DETAILS), code)
    error = _named(status, code) or _plain(code, words, where)
    if isinstance(error, Overloaded):
        error.retry_after_ms = _retry_ms(trailers.get(PUSHBACK), status) or error.retry_after_ms
    return error


def is_broken_off(failure: Any) -> bool:
    """Whether a stream that ended so may go on over another one."""
    code = code_of(failure)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _asked_ms(_trailers(failure).get(PUSHBACK)) is not None
    return code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def code_of(failure: Any) -> grpc.StatusCode:
    if failure.details() == WRITTEN_TOO_LATE:
        return grpc.StatusCode.UNAVAILABLE
    code: grpc.StatusCode = failure.code()
    return code


def _trailers(failure: Any) -> dict[str, str | bytes]:
    metadata: Iterable[tuple[str, str | bytes]] = failure.trailing_metadata() or ()
    return dict(metadata)


def _status(packed: str | bytes | None, code: grpc.StatusCode) -> status_pb2.Status | None:
    """The rich status. None where it cannot be read, or where somebody on the way changed the
    plain one: then that is the newer word."""
    if not isinstance(packed, bytes):
        return None
    try:
        status = status_pb2.Status.FromString(packed)
    except DecodeError:
        return None
    return status if status.code == code.value[0] else None


def _named(status: status_pb2.Status | None, code: grpc.StatusCode) -> SimsearchError | None:
    """The error that the server named; one that only a newer release has keeps its reason in
    words, in the class that its status has here."""
    info = error_details_pb2.ErrorInfo()
    if status is None or not _unpacked(status, info) or info.domain != DOMAIN:
        return None
    if info.reason in every_error():
        return error_from(info.reason, status.message)
    kind = PLAIN.get(code, SimsearchError)
    return kind(f"{info.reason}: {status.message}")


def _unpacked(status: status_pb2.Status, into: Message) -> bool:
    """Reads the first detail of this type that can be read."""
    for detail in status.details:
        try:
            if detail.Unpack(into):
                return True
        except DecodeError:
            continue
    return False


def _retry_ms(trailer: str | bytes | None, status: status_pb2.Status | None) -> int | None:
    """When to come back: from gRPC's own trailer or, where that says nothing or never, from
    google.rpc.RetryInfo."""
    asked_ms = _asked_ms(trailer)
    info = error_details_pb2.RetryInfo()
    if asked_ms is not None or status is None or not _unpacked(status, info):
        return asked_ms
    return int(info.retry_delay.ToMilliseconds())


def _asked_ms(trailer: str | bytes | None) -> int | None:
    """None where it asks for no retry, or is no number."""
    try:
        asked_ms = int(trailer) if trailer is not None else -1
    except ValueError:
        return None
    return asked_ms if asked_ms >= 0 else None


def _plain(code: grpc.StatusCode, words: str, where: str) -> SimsearchError:
    if UNHEALTHY in words:
        return NotReady(f"{where}: none is ready, all load or drain or answer wrongly")
    if code in NO_ANSWER:
        return Unreachable(
            f"no answer from {where} ({code.name}): is `simsearch serve` running there?"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in words:  # gRPC's own
        return ContentTooLarge(
            f"the request is larger than {where} takes in one message: send less at once"
        )
    kind = PLAIN.get(code, SimsearchError)
    return kind(f"the call to {where} failed: {code.name}: {words}")

"""From a failed attempt to the error that it stands for, whoever on the way made it fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

PUSHBACK_NEVER_MS = -1
"""What a server says that wants no second attempt, and what it says in no number at all."""

# CANCELLED: this client cancels only what nobody waits for, so it is a server that was stopped.
NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)

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


@dataclass(frozen=True)
class Refusal:
    """A failed attempt. `pushback_ms`: when the server asks to be left alone until, negative for
    good; None where it said nothing."""

    error: SimsearchError
    code: grpc.StatusCode
    pushback_ms: int | None = None


def refusal_from(failure: Any, address: str) -> Refusal:
    """What a failed call of `grpc` or `grpc.aio` says (an RpcError of either, which is the call
    too): the server's own error wherever its reason
    came through whole, else the best that the plain status gives."""
    words: str = failure.details() or ""
    code = grpc.StatusCode.UNAVAILABLE if words == WRITTEN_TOO_LATE else failure.code()
    metadata: Iterable[tuple[str, str | bytes]] = failure.trailing_metadata() or ()
    trailers = dict(metadata)
    status = _status(trailers.get(DETAILS), code)
    pushback_ms = _pushback_ms(trailers.get(PUSHBACK), status)
    error = _named(status, code) or _plain(code, words, address)
    if isinstance(error, Overloaded) and pushback_ms is not None and pushback_ms >= 0:
        error.retry_after_ms = pushback_ms
    return Refusal(error, code, pushback_ms)


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


def _pushback_ms(trailer: str | bytes | None, status: status_pb2.Status | None) -> int | None:
    """From gRPC's own trailer or, without one, from google.rpc.RetryInfo."""
    if trailer is not None:
        try:
            return max(int(trailer), PUSHBACK_NEVER_MS)
        except ValueError:
            return PUSHBACK_NEVER_MS
    info = error_details_pb2.RetryInfo()
    if status is None or not _unpacked(status, info):
        return None
    return int(info.retry_delay.ToMilliseconds())


def _plain(code: grpc.StatusCode, words: str, address: str) -> SimsearchError:
    if code in NO_ANSWER:
        return Unreachable(
            f"no answer from {address} ({code.name}): is `simsearch serve` running there?"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in words:  # gRPC's own
        return ContentTooLarge(
            f"the request is larger than {address} takes in one message: send less at once"
        )
    kind = PLAIN.get(code, SimsearchError)
    return kind(f"the call to {address} failed: {code.name}: {words}")

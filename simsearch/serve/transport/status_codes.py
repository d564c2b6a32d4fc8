"""Status table: the gRPC status of every error. Nothing else in the server knows status codes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from simsearch.errors import InternalFault, Overloaded, SimsearchError
from simsearch.v1 import error_pb2
from simsearch.wire import reason_number

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "simsearch"

WORDS_MAX = 400
"""Characters of a message on the wire. Percent-encoded and sent twice, they stay under 8 KiB."""

STATUS: Mapping[str, grpc.StatusCode] = MappingProxyType(
    {
        "INTERNAL": grpc.StatusCode.INTERNAL,
        "EMPTY_CONTENT": grpc.StatusCode.INVALID_ARGUMENT,
        "BAD_CONTENT": grpc.StatusCode.INVALID_ARGUMENT,
        "CONTENT_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
        "BAD_VECTOR": grpc.StatusCode.INVALID_ARGUMENT,
        "BAD_HASH": grpc.StatusCode.INVALID_ARGUMENT,
        "UNKNOWN_SPACE": grpc.StatusCode.NOT_FOUND,
        "SPACE_UNAVAILABLE": grpc.StatusCode.FAILED_PRECONDITION,
        "SPACE_MISMATCH": grpc.StatusCode.INVALID_ARGUMENT,
        "BANK_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
        "BANK_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
        "BANK_CHANGED": grpc.StatusCode.ABORTED,
        "BANK_ARCHIVED": grpc.StatusCode.FAILED_PRECONDITION,
        "BAD_BANK_NAME": grpc.StatusCode.INVALID_ARGUMENT,
        "BAD_POLICY": grpc.StatusCode.INVALID_ARGUMENT,
        "ENTRY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
        "ENTRY_IN_OTHER_BANK": grpc.StatusCode.NOT_FOUND,
        "ENTRY_RETRACTED": grpc.StatusCode.FAILED_PRECONDITION,
        "CONTENT_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
        "NEEDS_APPROVAL": grpc.StatusCode.FAILED_PRECONDITION,
        "PROPOSAL_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
        "PROPOSAL_CLOSED": grpc.StatusCode.FAILED_PRECONDITION,
        "LOW_INFORMATION": grpc.StatusCode.INVALID_ARGUMENT,
        # A retry before midnight is useless: not a status that clients retry.
        "DAILY_LIMIT": grpc.StatusCode.PERMISSION_DENIED,
        "NO_SIGNAL": grpc.StatusCode.INVALID_ARGUMENT,
        "LIMIT_EXCEEDED": grpc.StatusCode.INVALID_ARGUMENT,
        "BAD_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
        "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
        "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
        "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
        # The edit is durable and a retry would repeat it: not a status that clients retry.
        "NOT_YET_VISIBLE": grpc.StatusCode.DEADLINE_EXCEEDED,
        "NOT_READY": grpc.StatusCode.UNAVAILABLE,
        "BANK_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
        "BANK_LOCKED": grpc.StatusCode.FAILED_PRECONDITION,
        "NEWER_FORMAT": grpc.StatusCode.FAILED_PRECONDITION,
        "CORRUPT": grpc.StatusCode.DATA_LOSS,
        "BAD_CONFIG": grpc.StatusCode.FAILED_PRECONDITION,
        "WEIGHTS_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
        "DEADLINE_PASSED": grpc.StatusCode.DEADLINE_EXCEEDED,
        "UNREACHABLE": grpc.StatusCode.UNAVAILABLE,
        "BAD_SNAPSHOT": grpc.StatusCode.DATA_LOSS,
        "SNAPSHOT_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RECALL_TOO_LOW": grpc.StatusCode.FAILED_PRECONDITION,
        # Most likely caused by the image: not a status that clients retry.
        "DECODER_FAILED": grpc.StatusCode.INVALID_ARGUMENT,
        "NO_SANDBOX": grpc.StatusCode.FAILED_PRECONDITION,
        "ENCODER_FAILED": grpc.StatusCode.INTERNAL,
    }
)

PUSHBACK_MIN_MS = 10
"""A wait of 0 ms is one that gRPC 1.85 does not end before the deadline."""

HIDDEN = InternalFault("the server failed at this request; its log has the cause, under this time")


def status_of(error: SimsearchError) -> grpc.StatusCode:
    """The row of this error's reason."""
    return STATUS[error.reason]


def words_of(error: SimsearchError) -> str:
    """The message, cut to fit a trailer: gRPC drops trailers that are too long, reason included."""
    words = error.message
    return words if len(words) <= WORDS_MAX else f"{words[: WORDS_MAX - 1]}…"


def details_of(error: SimsearchError) -> bytes:
    """The serialised google.rpc.Status that travels with a failed call."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    packed = [_packed(info)]
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        packed.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    code: int = status_of(error).value[0]
    status = status_pb2.Status(code=code, message=words_of(error), details=packed)
    return bytes(status.SerializeToString())


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def trailers_of(
    error: SimsearchError, left_s: float | None = None
) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata of a failed call: the rich status, and when to come back. `left_s`: what is
    left of the call's deadline; None is no end."""
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", details_of(error))]
    if status_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED:
        trailers.append(("grpc-retry-pushback-ms", str(_pushback_ms(error, left_s))))
    return tuple(trailers)


def _pushback_ms(error: SimsearchError, left_s: float | None) -> int:
    """For gRPC's own retries. A negative one forbids them: no wait empties a full bank, and a wait
    beyond the deadline would only hide this refusal."""
    if not isinstance(error, Overloaded):
        return -1
    if left_s is not None and error.retry_after_ms >= left_s * 1000:
        return -1
    return max(PUSHBACK_MIN_MS, error.retry_after_ms)


def item_error(error: SimsearchError) -> error_pb2.ItemError:
    """The error of one item of a batch."""
    return error_pb2.ItemError(
        reason=reason_number(error),  # type: ignore[arg-type]  # stubs want the enum's own type
        code=status_of(error).value[0],
        message=words_of(error),
    )

"""Errors: one class per reason, under six families.

SimsearchError
├── BadInput                the request cannot be used as it is
│   ├── EmptyContent   BadContent   ContentTooLarge   NoSignal   DecoderFailed
│   ├── BadVector      BadHash      SpaceMismatch
│   ├── BadPolicy      BadBankName  BadRequest        LimitExceeded   LowInformation
├── NotFound                a named thing does not exist
│   ├── BankNotFound   EntryNotFound   EntryInOtherBank   UnknownSpace   ProposalNotFound
├── Conflict                the request contradicts the stored state
│   ├── BankExists     BankChanged     BankArchived
│   ├── EntryRetracted   ContentMismatch   NeedsApproval   ProposalClosed
├── NotAllowed              authentication or authorization failed
│   ├── Unauthenticated   PermissionDenied   DailyLimit
├── Unavailable             temporary: retry, here or on another server
│   ├── Overloaded     NotReady   NotYetVisible   SpaceUnavailable   Unreachable
│   ├── DeadlinePassed
└── Fault                   an operator must act
    ├── BankFull   BankLocked   NewerFormat   Corrupt   BadConfig   WeightsMissing   InternalFault
    ├── BadSnapshot   SnapshotFull   RecallTooLow   NoSandbox   EncoderFailed

A message says what happened, to which thing, and what to do; it never holds content or vectors.
`reason` is the name in proto ErrorReason; `serve/transport/status_codes.py` gives each its status.
"""

from __future__ import annotations

from typing import ClassVar


class SimsearchError(Exception):
    """Base of all errors of this project; `reason` is what the wire carries."""

    reason: ClassVar[str] = "INTERNAL"

    @property
    def message(self) -> str:
        """What happened, to which thing, and what to do; never content."""
        return str(self)


class BadInput(SimsearchError):
    """The request cannot be used as it is; a retry does not help."""


class EmptyContent(BadInput):
    reason = "EMPTY_CONTENT"


class BadContent(BadInput):
    reason = "BAD_CONTENT"


class ContentTooLarge(BadInput):
    reason = "CONTENT_TOO_LARGE"


class NoSignal(BadInput):
    reason = "NO_SIGNAL"


class DecoderFailed(BadInput):
    """The image's decoder crashed or timed out; the image was not judged."""

    reason = "DECODER_FAILED"


class BadVector(BadInput):
    reason = "BAD_VECTOR"


class BadHash(BadInput):
    reason = "BAD_HASH"


class SpaceMismatch(BadInput):
    reason = "SPACE_MISMATCH"


class BadPolicy(BadInput):
    reason = "BAD_POLICY"


class BadBankName(BadInput):
    reason = "BAD_BANK_NAME"


class BadRequest(BadInput):
    reason = "BAD_REQUEST"


class LimitExceeded(BadInput):
    reason = "LIMIT_EXCEEDED"


class LowInformation(BadInput):
    """The hash of a ban would match unrelated content."""

    reason = "LOW_INFORMATION"


class NotFound(SimsearchError):
    """A bank, entry, space or proposal that the request names does not exist."""


class BankNotFound(NotFound):
    reason = "BANK_NOT_FOUND"


class EntryNotFound(NotFound):
    reason = "ENTRY_NOT_FOUND"


class EntryInOtherBank(NotFound):
    reason = "ENTRY_IN_OTHER_BANK"


class UnknownSpace(NotFound):
    reason = "UNKNOWN_SPACE"


class ProposalNotFound(NotFound):
    reason = "PROPOSAL_NOT_FOUND"


class Conflict(SimsearchError):
    """The request contradicts the stored state."""


class BankExists(Conflict):
    reason = "BANK_EXISTS"


class BankChanged(Conflict):
    reason = "BANK_CHANGED"


class BankArchived(Conflict):
    reason = "BANK_ARCHIVED"


class EntryRetracted(Conflict):
    reason = "ENTRY_RETRACTED"


class ContentMismatch(Conflict):
    reason = "CONTENT_MISMATCH"


class NeedsApproval(Conflict):
    """A second person would have to approve this, and it cannot be proposed."""

    reason = "NEEDS_APPROVAL"


class ProposalClosed(Conflict):
    reason = "PROPOSAL_CLOSED"


class NotAllowed(SimsearchError):
    """Authentication or authorization failed."""


class Unauthenticated(NotAllowed):
    reason = "UNAUTHENTICATED"


class PermissionDenied(NotAllowed):
    reason = "PERMISSION_DENIED"


class DailyLimit(NotAllowed):
    reason = "DAILY_LIMIT"


class Unavailable(SimsearchError):
    """Temporary: retry, here or on another server."""


class Overloaded(Unavailable):
    """A bounded queue is full; `retry_after_ms` is the delay that the error carries."""

    reason = "OVERLOADED"

    def __init__(self, message: str, retry_after_ms: int = 100) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class NotReady(Unavailable):
    reason = "NOT_READY"


class NotYetVisible(Unavailable):
    reason = "NOT_YET_VISIBLE"


class SpaceUnavailable(Unavailable):
    reason = "SPACE_UNAVAILABLE"


class Unreachable(Unavailable):
    reason = "UNREACHABLE"


class DeadlinePassed(Unavailable):
    reason = "DEADLINE_PASSED"


class Fault(SimsearchError):
    """An operator must act."""


class BankFull(Fault):
    reason = "BANK_FULL"


class BankLocked(Fault):
    reason = "BANK_LOCKED"


class NewerFormat(Fault):
    reason = "NEWER_FORMAT"


class Corrupt(Fault):
    reason = "CORRUPT"


class BadConfig(Fault):
    reason = "BAD_CONFIG"


class WeightsMissing(Fault):
    reason = "WEIGHTS_MISSING"


class BadSnapshot(Fault):
    reason = "BAD_SNAPSHOT"


class SnapshotFull(Fault):
    reason = "SNAPSHOT_FULL"


class RecallTooLow(Fault):
    reason = "RECALL_TOO_LOW"


class NoSandbox(Fault):
    reason = "NO_SANDBOX"


class EncoderFailed(Fault):
    """An encoder failed at this content, which was not judged."""

    reason = "ENCODER_FAILED"


class InternalFault(Fault):
    reason = "INTERNAL"


def every_error() -> dict[str, type[SimsearchError]]:
    """The concrete error classes, by reason."""

    def leaves(cls: type[SimsearchError]) -> list[type[SimsearchError]]:
        below = cls.__subclasses__()
        return [leaf for sub in below for leaf in leaves(sub)] if below else [cls]

    return {cls.reason: cls for cls in leaves(SimsearchError)}

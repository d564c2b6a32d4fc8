"""Wire mapping of errors, by their reason."""

from __future__ import annotations

from simsearch.errors import (
    SimsearchError,
    every_error,
)
from simsearch.v1 import error_pb2


def reason_number(error: SimsearchError) -> int:
    """The enum number of the reason of an error."""
    return error_pb2.ErrorReason.Value(f"ERROR_REASON_{error.reason}")


def error_from(reason: str, message: str) -> SimsearchError:
    """The error of a reason; an unknown one, of a newer server, becomes a SimsearchError."""
    known = every_error().get(reason.removeprefix("ERROR_REASON_"))
    return known(message) if known else SimsearchError(f"{reason}: {message}")


def item_error_from(error: error_pb2.ItemError) -> SimsearchError:
    """The error of one item in a batch."""
    known = error_pb2.ErrorReason.DESCRIPTOR.values_by_number.get(error.reason)
    return error_from(known.name if known else f"reason {error.reason}", error.message)

"""Redaction: takes scores and thresholds out of responses; verdict, bands and entry keys stay.

It works on every message type that can hold evidence, so that a new RPC is covered from the start.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import Message

from simsearch.v1 import index_pb2, match_pb2

EVIDENCE: str = match_pb2.Evidence.DESCRIPTOR.full_name
HIT: str = match_pb2.Hit.DESCRIPTOR.full_name
STATUS: str = index_pb2.GetStatusResponse.DESCRIPTOR.full_name
SENSITIVE = {EVIDENCE, HIT, STATUS}


def without_scores(message: Message) -> None:
    """Remove from a response, in place, every score, threshold and source of a hit."""
    _strip(message)
    for name, repeated in _sensitive_fields(message.DESCRIPTOR):
        if repeated:
            for item in getattr(message, name):
                without_scores(item)
        elif message.HasField(name):
            without_scores(getattr(message, name))


def _strip(message: Any) -> None:
    match message.DESCRIPTOR.full_name:
        case name if name == EVIDENCE:
            kept = match_pb2.Evidence(signal=message.signal, band=message.band, withheld=True)
            message.CopyFrom(kept)
        case name if name == HIT:
            message.ClearField("source")
            message.ClearField("source_id")
            message.ClearField("bank_etag")
        case name if name == STATUS:
            message.ClearField("default_policy")


def can_hold_scores(descriptor: Any) -> bool:
    """Whether a message of this type can hold a part that is removed."""
    return descriptor.full_name in SENSITIVE or bool(_sensitive_fields(descriptor))


@cache
def _sensitive_fields(descriptor: Any) -> tuple[tuple[str, bool], ...]:
    """The fields that can hold such parts, and whether each is repeated."""
    return tuple(
        (field.name, field.is_repeated)
        for field in descriptor.fields
        if field.message_type is not None and can_hold_scores(field.message_type)
    )

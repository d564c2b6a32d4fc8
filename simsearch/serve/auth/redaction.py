"""What a caller who may not see scores gets of an answer: verdict, bands and entry keys.

It works on every message that can hold evidence, so that a new RPC is covered before anybody
thinks of it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import Message

from simsearch.v1 import index_pb2, match_pb2

EVIDENCE: str = match_pb2.Evidence.DESCRIPTOR.full_name
HIT: str = match_pb2.Hit.DESCRIPTOR.full_name
STATUS: str = index_pb2.GetStatusResponse.DESCRIPTOR.full_name
TELLING = {EVIDENCE, HIT, STATUS}


def without_scores(message: Message) -> None:
    """Take out of a response, in place, what tells how near a hit was or how near is enough."""
    _strip(message)
    for name, repeated in _telling_fields(message.DESCRIPTOR):
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


def can_tell(descriptor: Any) -> bool:
    """Whether a message of this type can hold a part that is taken out."""
    return descriptor.full_name in TELLING or bool(_telling_fields(descriptor))


@cache
def _telling_fields(descriptor: Any) -> tuple[tuple[str, bool], ...]:
    """The fields below which evidence can lie, and whether each is repeated."""
    return tuple(
        (field.name, field.is_repeated)
        for field in descriptor.fields
        if field.message_type is not None and can_tell(field.message_type)
    )

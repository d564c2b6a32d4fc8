"""Wire mapping of opinions on hits and of hit counts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from simsearch.errors import BadRequest
from simsearch.types import HitCounts, Opinion, OpinionDraft, OpinionKind
from simsearch.v1 import bank_pb2, feedback_pb2
from simsearch.wire.banks import change_to, time_to

OPINION_KIND_NUMBERS: Mapping[OpinionKind, feedback_pb2.OpinionKind] = MappingProxyType(
    {
        OpinionKind.TRUE_POSITIVE: feedback_pb2.OPINION_KIND_TRUE_POSITIVE,
        OpinionKind.FALSE_POSITIVE: feedback_pb2.OPINION_KIND_FALSE_POSITIVE,
        OpinionKind.WRONG_LABEL: feedback_pb2.OPINION_KIND_WRONG_LABEL,
        OpinionKind.DUPLICATE: feedback_pb2.OPINION_KIND_DUPLICATE,
        OpinionKind.NOT_HARMFUL_HERE: feedback_pb2.OPINION_KIND_NOT_HARMFUL_HERE,
        OpinionKind.OTHER: feedback_pb2.OPINION_KIND_OTHER,
    }
)
OPINION_KINDS: Mapping[int, OpinionKind] = {n: kind for kind, n in OPINION_KIND_NUMBERS.items()}


def opinion_to(opinion: Opinion, bank: str, *, superseded: bool = False) -> feedback_pb2.Opinion:
    """The message of an opinion on an entry of `bank`."""
    said = opinion.draft
    return feedback_pb2.Opinion(
        bank=bank,
        entry_key=opinion.change.entry_key,
        kind=OPINION_KIND_NUMBERS[said.kind],
        note=said.note,
        content_sha256=said.content_sha256,
        case_id=said.case_id,
        change=change_to(opinion.change),
        superseded=superseded,
    )


def opinion_from(request: feedback_pb2.GiveOpinionRequest) -> OpinionDraft:
    """The opinion in a request. Raises BadRequest for a missing or unknown kind."""
    kind = opinion_kind_from(request.kind)
    if kind is None:
        raise BadRequest("the kind is missing: set TRUE_POSITIVE, FALSE_POSITIVE or another")
    return OpinionDraft(kind, request.note, request.content_sha256, request.case_id)


def opinion_kind_from(number: int) -> OpinionKind | None:
    """None where the field is not set. Raises BadRequest."""
    if number and number not in OPINION_KINDS:
        raise BadRequest(f"there is no kind of opinion {number}: set one of the enum's")
    return OPINION_KINDS.get(number)


def hits_to(hits: HitCounts) -> bank_pb2.EntryHits:
    """The message of hit counts."""
    return bank_pb2.EntryHits(
        total=hits.total,
        block=hits.block,
        review=hits.review,
        log=hits.log,
        near=hits.near,
        shadow=hits.shadow,
        last_time=time_to(hits.last_us),
    )

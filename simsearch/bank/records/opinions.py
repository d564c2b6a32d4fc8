"""Records of opinions and hit counts, in protobuf; inconsistent ones raise Corrupt."""

from __future__ import annotations

from simsearch.bank.records.entries import (
    change_from_record,
    change_to_record,
    read_record,
    require,
)
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import HitCounts, Opinion, OpinionDraft, OpinionKind


def opinion_to_bytes(opinion: Opinion) -> bytes:
    """The opinion as an OpinionRecord."""
    draft = opinion.draft
    record = pb.OpinionRecord(
        kind=draft.kind,
        note=draft.note,
        content_sha256=draft.content_sha256,
        case_id=draft.case_id,
        change=change_to_record(opinion.change),
    )
    return record.SerializeToString()


def opinion_from_bytes(key: int, seq: int, data: bytes) -> Opinion:
    """Raises Corrupt where `data` is not the opinion on entry `key` of change `seq`."""

    def read() -> Opinion:
        record = pb.OpinionRecord.FromString(data)
        change = change_from_record(record.change)
        require((change.entry_key, change.seq) == (key, seq), "is of another entry or change")
        draft = OpinionDraft(
            OpinionKind(record.kind), record.note, record.content_sha256, record.case_id
        )
        return Opinion(draft, change)

    return read_record(f"opinion {seq} on entry {key}", read)


def hits_to_bytes(hits: HitCounts) -> bytes:
    """The counts as a HitsRecord."""
    return pb.HitsRecord(**vars(hits)).SerializeToString()


def hits_from_bytes(key: int, data: bytes) -> HitCounts:
    """Raises Corrupt."""

    def read() -> HitCounts:
        record = pb.HitsRecord.FromString(data)
        return HitCounts(
            record.block, record.review, record.log, record.near, record.shadow, record.last_us
        )

    return read_record(f"the hits of entry {key}", read)

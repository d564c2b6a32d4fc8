"""Records of proposals, in protobuf; inconsistent ones raise Corrupt."""

from __future__ import annotations

from simsearch.bank.records.entries import (
    change_from_record,
    change_to_record,
    policy_from_record,
    policy_to_record,
    read_record,
    require,
)
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    BankUpdate,
    EntryState,
    FourEyes,
    Proposal,
    ProposalKind,
    ProposalState,
    ProposedRows,
)


def proposal_to_bytes(proposal: Proposal) -> bytes:
    """The proposal as a ProposalRecord, without its rows."""
    record = pb.ProposalRecord(
        id=proposal.id,
        bank_id=proposal.bank_id,
        kind=proposal.kind,
        made=change_to_record(proposal.made),
        to=proposal.to,
        until_us=proposal.until_us,
        update=None if proposal.update is None else _update_to_record(proposal.update),
        etag=proposal.etag,
        import_id=proposal.import_id,
        held=proposal.review_reasons,
        rows=proposal.rows,
        parts=proposal.parts,
        digest=proposal.digest,
        state=proposal.state,
        decided=None if proposal.decided is None else change_to_record(proposal.decided),
        done=proposal.done,
        done_parts=proposal.done_parts,
        done_in_part=proposal.done_in_part,
        skipped=proposal.skipped,
    )
    return record.SerializeToString()


def proposal_from_bytes(proposal_id: int, data: bytes) -> Proposal:
    """Raises Corrupt where `data` is not the record of this proposal."""
    return read_record(
        f"proposal {proposal_id}",
        lambda: _proposal(proposal_id, pb.ProposalRecord.FromString(data)),
    )


def _proposal(proposal_id: int, record: pb.ProposalRecord) -> Proposal:
    require(record.id == proposal_id, f"carries the id {record.id}")
    state = ProposalState(record.state)
    decided = record.HasField("decided")
    require((state is ProposalState.OPEN) != decided, "contradicts its state")
    require(record.done <= record.rows, "was done further than it goes")
    return Proposal(
        id=record.id,
        bank_id=record.bank_id,
        kind=ProposalKind(record.kind),
        made=change_from_record(record.made),
        to=EntryState(record.to),
        until_us=record.until_us,
        update=_update_from_record(record.update) if record.HasField("update") else None,
        etag=record.etag,
        import_id=record.import_id,
        review_reasons=tuple(record.held),
        rows=record.rows,
        parts=record.parts,
        digest=record.digest,
        state=state,
        decided=change_from_record(record.decided) if decided else None,
        done=record.done,
        done_parts=record.done_parts,
        done_in_part=record.done_in_part,
        skipped=record.skipped,
    )


def _update_to_record(update: BankUpdate) -> pb.BankUpdateRecord:
    return pb.BankUpdateRecord(
        description=update.description,
        policy=None if update.policy is None else policy_to_record(update.policy),
        owner=update.owner,
        archived=update.archived,
        enabled_ratio=update.enabled_ratio,
        four_eyes=update.four_eyes,
    )


def _update_from_record(record: pb.BankUpdateRecord) -> BankUpdate:
    return BankUpdate(
        description=record.description if record.HasField("description") else None,
        policy=policy_from_record(record.policy) if record.HasField("policy") else None,
        owner=record.owner if record.HasField("owner") else None,
        archived=record.archived if record.HasField("archived") else None,
        enabled_ratio=record.enabled_ratio if record.HasField("enabled_ratio") else None,
        four_eyes=FourEyes(record.four_eyes) if record.HasField("four_eyes") else None,
    )


def rows_to_bytes(rows: ProposedRows) -> bytes:
    """One part of a proposal's entries as a ProposedRowsRecord."""
    return pb.ProposedRowsRecord(moved=rows.moved, retracted=rows.retracted).SerializeToString()


def rows_from_bytes(proposal_id: int, data: bytes) -> ProposedRows:
    """Raises Corrupt."""

    def read() -> ProposedRows:
        record = pb.ProposedRowsRecord.FromString(data)
        return ProposedRows(tuple(record.moved), tuple(record.retracted))

    return read_record(f"a part of proposal {proposal_id}", read)

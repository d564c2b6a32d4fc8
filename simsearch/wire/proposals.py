"""Wire mapping of proposals and decisions."""

from __future__ import annotations

from typing import Final

from simsearch.errors import BadRequest
from simsearch.types import (
    BankUpdate,
    Decision,
    FourEyes,
    Proposal,
    ProposalKind,
    ProposalState,
    ProposedRows,
)
from simsearch.v1 import proposal_pb2
from simsearch.wire.banks import change_to, time_to
from simsearch.wire.enums import ENTRY_STATE_NUMBERS, FOUR_EYES_NUMBERS
from simsearch.wire.policies import policy_to

KEYS_SHOWN: Final = 100

_ENTRIES: Final = (ProposalKind.MOVE, ProposalKind.IMPORT)


def proposal_to(proposal: Proposal, rows: ProposedRows, bank: str) -> proposal_pb2.Proposal:
    """`rows`: those of the first part of the proposal."""
    moves = proposal.kind in _ENTRIES
    return proposal_pb2.Proposal(
        id=proposal.id,
        bank=bank,
        kind=int(proposal.kind),  # type: ignore[arg-type]
        state=int(proposal.state),  # type: ignore[arg-type]
        made=change_to(proposal.made),
        decided=change_to(proposal.decided) if proposal.decided else None,
        entries=proposal.rows,
        entry_keys=(*rows.moved, *rows.retracted)[:KEYS_SHOWN],
        entry_state=ENTRY_STATE_NUMBERS[proposal.to] if moves else None,
        until=time_to(proposal.until_us),
        update=None if proposal.update is None else _update_to(proposal.update),
        bank_etag=proposal.etag,
        import_id=proposal.import_id,
        held=proposal.review_reasons,
        remaining=proposal.remaining,
        skipped=proposal.skipped,
    )


def _update_to(update: BankUpdate) -> proposal_pb2.BankUpdate:
    return proposal_pb2.BankUpdate(
        description=update.description,
        policy=None if update.policy is None else policy_to(update.policy),
        owner=update.owner,
        archived=update.archived,
        enabled_ratio=update.enabled_ratio,
        four_eyes=FOUR_EYES_NUMBERS[update.four_eyes or FourEyes.AS_CONFIGURED],
    )


def decision_from(number: int) -> Decision:
    """Raises BadRequest for an unknown number."""
    try:
        return Decision(number)
    except ValueError:
        raise BadRequest(
            f"there is no decision {number}: set APPROVE, REJECT or WITHDRAW"
        ) from None


def decision_to(decision: Decision) -> proposal_pb2.Decision:
    """The number of a decision."""
    return int(decision)  # type: ignore[return-value]  # they are numbered alike


def proposal_state_from(number: int) -> ProposalState | None:
    """None where the field is not set. Raises BadRequest."""
    try:
        return ProposalState(number) if number else None
    except ValueError:
        raise BadRequest(f"there is no proposal state {number}: set one of the enum's") from None

"""Oversight calls: proposals, the record of edits, and people's opinions of hits."""

from __future__ import annotations

from operator import attrgetter

from simsearch.client.calls.call_spec import CallSpec, whole
from simsearch.client.calls.rpcs import (
    DECIDE_PROPOSAL,
    GET_CHANGE,
    GET_LOG_HEAD,
    GET_PROPOSAL,
    GIVE_OPINION,
    LIST_CHANGES,
    LIST_OPINIONS,
    LIST_PROPOSALS,
    LIST_REVIEW,
    REVERT_CHANGES,
)
from simsearch.types import (
    Decision,
    Edit,
    OpinionDraft,
    WaitUntil,
)
from simsearch.v1 import (
    bank_pb2,
    feedback_pb2,
    proposal_pb2,
)
from simsearch.wire import (
    OPINION_KIND_NUMBERS,
    decision_to,
    edit_to,
    wait_to,
)


def list_proposals(
    request: proposal_pb2.ListProposalsRequest, *, deadline_s: float | None = None
) -> CallSpec[proposal_pb2.ListProposalsResponse]:
    """One page of the edits that wait for a second person, or waited; the oldest first. A page may
    be short, or empty, before the last one: go on while there is a `next_page_token`."""
    return CallSpec(LIST_PROPOSALS, request, whole, deadline_s)


def get_proposal(
    proposal_id: int, *, deadline_s: float | None = None
) -> CallSpec[proposal_pb2.Proposal]:
    """One of them. Raises ProposalNotFound."""
    request = proposal_pb2.GetProposalRequest(id=proposal_id)
    return CallSpec(GET_PROPOSAL, request, attrgetter("proposal"), deadline_s)


def decide_proposal(
    proposal_id: int,
    decision: Decision,
    edit: Edit,
    *,
    bank: str = "",
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> CallSpec[proposal_pb2.DecideProposalResponse]:
    """Approve or reject what another person proposed, or withdraw one's own; `bank`, where it is
    given, must be the one that it is about. What is approved is done a part at a time: ask again
    while there is something `remaining`. Raises ProposalClosed where it was decided otherwise or
    does not fit any more, PermissionDenied of one's own."""
    request = proposal_pb2.DecideProposalRequest(
        id=proposal_id,
        bank=bank,
        decision=decision_to(decision),
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
    )
    return CallSpec(DECIDE_PROPOSAL, request, whole, deadline_s)


def list_changes(
    request: bank_pb2.ListChangesRequest, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.ListChangesResponse]:
    """One page of the record of edits, the newest last. A page may be short, or empty, before
    the last one: ask again while there is `more`."""
    return CallSpec(LIST_CHANGES, request, whole, deadline_s)


def get_change(
    seq: int, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.GetChangeResponse]:
    """One change, and what it replaced. Raises BadRequest where there is none to be read."""
    return CallSpec(GET_CHANGE, bank_pb2.GetChangeRequest(seq=seq), whole, deadline_s)


def log_head(*, deadline_s: float | None = None) -> CallSpec[bank_pb2.GetLogHeadResponse]:
    """The end of the record: kept elsewhere, it vouches for all that was before it."""
    return CallSpec(GET_LOG_HEAD, bank_pb2.GetLogHeadRequest(), whole, deadline_s)


def revert_changes(
    request: bank_pb2.RevertChangesRequest, *, deadline_s: float | None = None
) -> CallSpec[bank_pb2.RevertChangesResponse]:
    """Undo a part of somebody's changes, the newest first; go on with `next_before_seq` until it
    is 0. Done again, nothing changes."""
    return CallSpec(REVERT_CHANGES, request, whole, deadline_s)


def give_opinion(
    bank: str, key: int, said: OpinionDraft, edit: Edit, *, deadline_s: float | None = None
) -> CallSpec[feedback_pb2.GiveOpinionResponse]:
    """Say what a hit of an entry was; a newer opinion takes the place of one's older one. Said
    again, nothing changes. Several people's FALSE_POSITIVE make an active entry disputed."""
    request = feedback_pb2.GiveOpinionRequest(
        bank=bank,
        entry_key=key,
        kind=OPINION_KIND_NUMBERS[said.kind],
        note=said.note,
        content_sha256=said.content_sha256,
        case_id=said.case_id,
        edit=edit_to(edit),
    )
    return CallSpec(GIVE_OPINION, request, whole, deadline_s)


def list_opinions(
    request: feedback_pb2.ListOpinionsRequest, *, deadline_s: float | None = None
) -> CallSpec[feedback_pb2.ListOpinionsResponse]:
    """One page, by entry; `next_page_token` is empty on the last. A page may be short, or empty,
    before that."""
    return CallSpec(LIST_OPINIONS, request, whole, deadline_s)


def list_review(
    bank: str = "",
    *,
    page_size: int = 0,
    page_token: str = "",
    deadline_s: float | None = None,
) -> CallSpec[feedback_pb2.ListReviewResponse]:
    """One page of what waits for a person to decide, the longest first: disputed entries, and
    those that the server quarantined by itself. `next_page_token` is empty on the last."""
    request = feedback_pb2.ListReviewRequest(bank=bank, page_size=page_size, page_token=page_token)
    return CallSpec(LIST_REVIEW, request, whole, deadline_s)

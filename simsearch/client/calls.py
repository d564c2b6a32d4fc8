"""Every call in one table: what is sent, whether it may be sent twice, and how the reply is read.

A function here makes an `Ask` of a caller's arguments and touches no network; `Client` and
`AsyncClient` have one method for each, of the same name, which differ in how they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from simsearch.errors import InternalFault, SimsearchError
from simsearch.types import (
    Content,
    Decision,
    Edit,
    EntryState,
    HashContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    OpinionDraft,
    Policy,
    Signal,
    TextContent,
    VectorContent,
    WaitUntil,
)
from simsearch.v1 import (
    bank_pb2,
    bank_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    match_pb2,
    match_pb2_grpc,
    policy_pb2,
    proposal_pb2,
    proposal_pb2_grpc,
)
from simsearch.wire import (
    OPINION_KIND_NUMBERS,
    content_to,
    decision_to,
    edit_to,
    item_error_from,
    options_to,
    policy_to,
    result_from,
    time_to,
    wait_to,
)

T = TypeVar("T")
Outcome: TypeAlias = MatchResult | SimsearchError


@dataclass(frozen=True)
class Rpc:
    """A method of a stub. `idempotent`: sent twice, it does what it does sent once."""

    stub: type[Any]
    name: str
    idempotent: bool = True


MATCH = Rpc(match_pb2_grpc.MatchServiceStub, "Match")
BATCH_MATCH = Rpc(match_pb2_grpc.MatchServiceStub, "BatchMatch")
STREAM_MATCH = Rpc(match_pb2_grpc.MatchServiceStub, "StreamMatch")
# An edit whose answer was lost may have happened.
CREATE_BANK = Rpc(bank_pb2_grpc.BankServiceStub, "CreateBank", idempotent=False)
GET_BANK = Rpc(bank_pb2_grpc.BankServiceStub, "GetBank")
LIST_BANKS = Rpc(bank_pb2_grpc.BankServiceStub, "ListBanks")
UPDATE_BANK = Rpc(bank_pb2_grpc.BankServiceStub, "UpdateBank", idempotent=False)
ADD_ENTRY = Rpc(bank_pb2_grpc.BankServiceStub, "AddEntry", idempotent=False)
BATCH_ADD_ENTRIES = Rpc(bank_pb2_grpc.BankServiceStub, "BatchAddEntries", idempotent=False)
IMPORT_ENTRIES = Rpc(bank_pb2_grpc.BankServiceStub, "ImportEntries")
GET_ENTRY = Rpc(bank_pb2_grpc.BankServiceStub, "GetEntry")
LIST_ENTRIES = Rpc(bank_pb2_grpc.BankServiceStub, "ListEntries")
FIND_ENTRIES = Rpc(bank_pb2_grpc.BankServiceStub, "FindEntries")
COMPARE_ENTRIES = Rpc(bank_pb2_grpc.BankServiceStub, "CompareEntries")
# Extending may have happened too, and does nothing the second time.
EXTEND_ENTRY = Rpc(bank_pb2_grpc.BankServiceStub, "ExtendEntry")
# So may moving.
MOVE_ENTRY = Rpc(bank_pb2_grpc.BankServiceStub, "MoveEntry")
RETRACT_ENTRY = Rpc(bank_pb2_grpc.BankServiceStub, "RetractEntry", idempotent=False)
LIST_PROPOSALS = Rpc(proposal_pb2_grpc.ProposalServiceStub, "ListProposals")
GET_PROPOSAL = Rpc(proposal_pb2_grpc.ProposalServiceStub, "GetProposal")
# What was decided so is not decided twice, and goes on where it was.
DECIDE_PROPOSAL = Rpc(proposal_pb2_grpc.ProposalServiceStub, "DecideProposal")
# Begun twice, an export is twice on the record and gives the same.
EXPORT_ENTRIES = Rpc(bank_pb2_grpc.BankServiceStub, "ExportEntries")
LIST_CHANGES = Rpc(bank_pb2_grpc.BankServiceStub, "ListChanges")
GET_CHANGE = Rpc(bank_pb2_grpc.BankServiceStub, "GetChange")
GET_LOG_HEAD = Rpc(bank_pb2_grpc.BankServiceStub, "GetLogHead")
# What was undone is not undone twice.
REVERT_CHANGES = Rpc(bank_pb2_grpc.BankServiceStub, "RevertChanges")
# The same opinion, given again, is the one that stands.
GIVE_OPINION = Rpc(feedback_pb2_grpc.FeedbackServiceStub, "GiveOpinion")
LIST_OPINIONS = Rpc(feedback_pb2_grpc.FeedbackServiceStub, "ListOpinions")
LIST_REVIEW = Rpc(feedback_pb2_grpc.FeedbackServiceStub, "ListReview")
GET_STATUS = Rpc(index_pb2_grpc.IndexServiceStub, "GetStatus")
CHECK_HEALTH = Rpc(health_pb2_grpc.HealthStub, "Check")


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One call to make. `deadline_s`: for this call; None is the client's own."""

    rpc: Rpc
    request: Message
    read: Callable[[Any], T]
    deadline_s: float | None = None


# ------------------------------------------------------------ matching


def match(
    content: Content, options: MatchOptions | None = None, *, deadline_s: float | None = None
) -> Ask[MatchResult]:
    """Judge one content. Calls that come while others are under way go to the server together,
    unless the client was opened with `autobatch=False`."""
    request = match_pb2.MatchRequest(
        content=content_to(content), options=options_to(options or MatchOptions())
    )
    return Ask(MATCH, request, _matched, deadline_s)


def match_batch(
    contents: Sequence[Content],
    options: MatchOptions | None = None,
    *,
    deadline_s: float | None = None,
) -> Ask[list[Outcome]]:
    """Judge many in one call: one result or error per content, in order."""
    request = match_pb2.BatchMatchRequest(
        contents=[content_to(c) for c in contents],
        options=options_to(options or MatchOptions()),
    )
    return Ask(BATCH_MATCH, request, _outcomes(len(contents)), deadline_s)


def match_image(
    data: bytes, banks: Sequence[str] = (), *, deadline_s: float | None = None
) -> Ask[MatchResult]:
    """Judge an encoded image file (JPEG, PNG, WebP, GIF)."""
    return match(ImageContent(data), MatchOptions(tuple(banks)), deadline_s=deadline_s)


def match_text(
    text: str, banks: Sequence[str] = (), *, deadline_s: float | None = None
) -> Ask[MatchResult]:
    """Judge a text."""
    return match(TextContent(text), MatchOptions(tuple(banks)), deadline_s=deadline_s)


def match_vector(
    space: str,
    vectors: np.ndarray,
    banks: Sequence[str] = (),
    *,
    deadline_s: float | None = None,
) -> Ask[MatchResult]:
    """Judge ready unit vectors, (dim,) or (n, dim), float16 or float32."""
    content = VectorContent(space, np.atleast_2d(vectors))
    return match(content, MatchOptions(tuple(banks)), deadline_s=deadline_s)


def match_hash(
    signal: Signal, value: bytes, banks: Sequence[str] = (), *, deadline_s: float | None = None
) -> Ask[MatchResult]:
    """Judge a ready hash."""
    return match(HashContent(signal, value), MatchOptions(tuple(banks)), deadline_s=deadline_s)


def _matched(reply: match_pb2.MatchResponse | match_pb2.BatchMatchItem) -> MatchResult:
    return result_from(reply.result)


def _outcomes(count: int) -> Callable[[match_pb2.BatchMatchResponse], list[Outcome]]:
    def read(reply: match_pb2.BatchMatchResponse) -> list[Outcome]:
        return [outcome_from(item) for item in items_of(reply, count)]

    return read


def items_of(reply: match_pb2.BatchMatchResponse, count: int) -> Sequence[match_pb2.BatchMatchItem]:
    """The answers to `count` contents, in their order. Raises InternalFault for any other number:
    an answer must never be read as another content's."""
    if len(reply.items) != count:
        raise InternalFault(f"the server gave {len(reply.items)} answers to {count} contents")
    return reply.items


def outcome_from(item: match_pb2.BatchMatchItem) -> Outcome:
    if item.WhichOneof("outcome") == "result":
        return result_from(item.result)
    return item_error_from(item.error)


# ------------------------------------------------------------ banks


def create_bank(
    name: str,
    edit: Edit,
    *,
    description: str = "",
    policy: Policy | None = None,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.Bank]:
    """A new bank; without a policy it gets the server's default one."""
    request = bank_pb2.CreateBankRequest(
        name=name,
        description=description,
        policy=policy_to(policy) if policy else None,
        edit=edit_to(edit),
    )
    return create_bank_from(request, deadline_s=deadline_s)


def create_bank_from(
    request: bank_pb2.CreateBankRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.Bank]:
    """A new bank, from a request that is there already."""
    return Ask(CREATE_BANK, request, attrgetter("bank"), deadline_s)


def get_bank(name: str, *, deadline_s: float | None = None) -> Ask[bank_pb2.Bank]:
    """A bank with its policy and its etag."""
    return Ask(GET_BANK, bank_pb2.GetBankRequest(name=name), attrgetter("bank"), deadline_s)


def list_banks(*, deadline_s: float | None = None) -> Ask[list[bank_pb2.Bank]]:
    """All banks."""
    return Ask(LIST_BANKS, bank_pb2.ListBanksRequest(), _listed, deadline_s)


def _listed(reply: bank_pb2.ListBanksResponse) -> list[bank_pb2.Bank]:
    return list(reply.banks)


def update_bank(
    request: bank_pb2.UpdateBankRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.Bank]:
    """Replace the description or the policy. Raises BankChanged for an etag of before. Where that
    waits for a second person, this is the bank as it was: `change_bank` tells."""
    return Ask(UPDATE_BANK, request, attrgetter("bank"), deadline_s)


def change_bank(
    request: bank_pb2.UpdateBankRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.UpdateBankResponse]:
    """As `update_bank`, with the proposal that it waits as."""
    return Ask(UPDATE_BANK, request, _whole, deadline_s)


# ------------------------------------------------------------ entries


def add_entry(
    bank: str,
    contents: Sequence[Content],
    edit: Edit,
    *,
    labels: Sequence[str] = (),
    source: str = "",
    source_id: str = "",
    note: str = "",
    state: EntryState = EntryState.ACTIVE,
    expires_us: int = 0,
    severity: str = "",
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.AddEntryResponse]:
    """Ban one item; its contents become rows of one entry. It may begin as a DRAFT or in the
    SHADOW; `expires_us` (microseconds since 1970): it retracts itself then."""
    draft = bank_pb2.EntryDraft(
        contents=[content_to(c) for c in contents],
        labels=labels,
        source=source,
        source_id=source_id,
        note=note,
        state=int(state),  # type: ignore[arg-type]
        expire_time=time_to(expires_us),
        severity=severity,
    )
    request = bank_pb2.AddEntryRequest(
        bank=bank, entry=draft, edit=edit_to(edit), wait_until=wait_to(wait_until)
    )
    return Ask(ADD_ENTRY, request, _whole, deadline_s)


def add_entries(
    bank: str,
    items: Sequence[Content],
    edit: Edit,
    *,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> Ask[list[int | SimsearchError]]:
    """Ban many items of one content each: a key or an error per item, in order."""
    request = bank_pb2.BatchAddEntriesRequest(
        bank=bank,
        entries=[bank_pb2.EntryDraft(contents=[content_to(c)]) for c in items],
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
    )
    return Ask(BATCH_ADD_ENTRIES, request, _keys, deadline_s)


def _keys(reply: bank_pb2.BatchAddEntriesResponse) -> list[int | SimsearchError]:
    return [
        item.key if item.WhichOneof("outcome") == "key" else item_error_from(item.error)
        for item in reply.items
    ]


def import_entries(
    request: bank_pb2.ImportEntriesRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.ImportEntriesResponse]:
    """A part of a list; a part that was done before is answered as it was then."""
    return Ask(IMPORT_ENTRIES, request, _whole, deadline_s)


def get_entry(bank: str, key: int, *, deadline_s: float | None = None) -> Ask[bank_pb2.Entry]:
    """One banned item and its changes."""
    request = bank_pb2.GetEntryRequest(bank=bank, key=key)
    return Ask(GET_ENTRY, request, attrgetter("entry"), deadline_s)


def list_entries(
    bank: str,
    *,
    page_size: int = 0,
    page_token: str = "",
    state: EntryState | None = None,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.ListEntriesResponse]:
    """One page in key order; `next_page_token` is empty on the last."""
    request = bank_pb2.ListEntriesRequest(
        bank=bank,
        page_size=page_size,
        page_token=page_token,
        state=int(state or 0),  # type: ignore[arg-type]
    )
    return list_entries_from(request, deadline_s=deadline_s)


def list_entries_from(
    request: bank_pb2.ListEntriesRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.ListEntriesResponse]:
    """One page of those that the request chooses. A page may be short, or empty, before the last:
    go on while there is a `next_page_token`."""
    return Ask(LIST_ENTRIES, request, _whole, deadline_s)


def find_entries(
    content: Content,
    banks: Sequence[str] = (),
    *,
    states: Collection[EntryState] = (),
    entries_max: int = 0,
    cosine_min: float | None = None,
    hamming_max: int | None = None,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.FindEntriesResponse]:
    """The entries nearest to a content, best first, whatever the banks' thresholds and in whatever
    state: for people who look around. Nothing is judged by it."""
    request = bank_pb2.FindEntriesRequest(
        content=content_to(content),
        banks=banks,
        states=[int(state) for state in states],  # type: ignore[misc]
        entries_max=entries_max,
        cosine_min=cosine_min,
        hamming_max=hamming_max,
    )
    return Ask(FIND_ENTRIES, request, _whole, deadline_s)


def compare_entries(
    bank: str, key: int, other_key: int, *, other_bank: str = "", deadline_s: float | None = None
) -> Ask[bank_pb2.CompareEntriesResponse]:
    """Two entries, of one bank or of two, and how near they are by each signal that both have."""
    request = bank_pb2.CompareEntriesRequest(
        bank=bank, key=key, other_bank=other_bank, other_key=other_key
    )
    return Ask(COMPARE_ENTRIES, request, _whole, deadline_s)


def extend_entry(
    bank: str,
    key: int,
    contents: Sequence[Content],
    edit: Edit,
    *,
    partial: bool = False,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.ExtendEntryResponse]:
    """Give an entry the signals that it lacks, from the contents it was banned with: all of
    them or, with `partial`, those that are left. Ready vectors and hashes cannot be compared
    with what was banned: the caller vouches for them. Raises ContentMismatch."""
    request = bank_pb2.ExtendEntryRequest(
        bank=bank,
        key=key,
        contents=[content_to(c) for c in contents],
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
        partial=partial,
    )
    return Ask(EXTEND_ENTRY, request, _whole, deadline_s)


def move_entry(
    bank: str,
    key: int,
    state: EntryState,
    edit: Edit,
    *,
    until_us: int = 0,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.MoveEntryResponse]:
    """Make an entry ACTIVE, SHADOW or QUARANTINED; `until_us` (microseconds since 1970): it goes
    back by itself then. Raises EntryRetracted, and BadRequest where it cannot go there."""
    request = bank_pb2.MoveEntryRequest(
        bank=bank,
        key=key,
        state=int(state),  # type: ignore[arg-type]
        until=time_to(until_us),
        edit=edit_to(edit),
        wait_until=wait_to(wait_until),
    )
    return Ask(MOVE_ENTRY, request, _whole, deadline_s)


def retract_entry(
    bank: str,
    key: int,
    edit: Edit,
    *,
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> Ask[bank_pb2.RetractEntryResponse]:
    """Take a ban back. Raises EntryRetracted where that was done before."""
    request = bank_pb2.RetractEntryRequest(
        bank=bank, key=key, edit=edit_to(edit), wait_until=wait_to(wait_until)
    )
    return Ask(RETRACT_ENTRY, request, _whole, deadline_s)


def export_entries(
    request: bank_pb2.ExportEntriesRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.ExportEntriesResponse]:
    """A page of a bank with its fingerprints; go on with `next_page_token` until it is empty."""
    return Ask(EXPORT_ENTRIES, request, _whole, deadline_s)


# ------------------------------------------------------------ proposals


def list_proposals(
    request: proposal_pb2.ListProposalsRequest, *, deadline_s: float | None = None
) -> Ask[proposal_pb2.ListProposalsResponse]:
    """One page of the edits that wait for a second person, or waited; the oldest first. A page may
    be short, or empty, before the last one: go on while there is a `next_page_token`."""
    return Ask(LIST_PROPOSALS, request, _whole, deadline_s)


def get_proposal(
    proposal_id: int, *, deadline_s: float | None = None
) -> Ask[proposal_pb2.Proposal]:
    """One of them. Raises ProposalNotFound."""
    request = proposal_pb2.GetProposalRequest(id=proposal_id)
    return Ask(GET_PROPOSAL, request, attrgetter("proposal"), deadline_s)


def decide_proposal(
    proposal_id: int,
    decision: Decision,
    edit: Edit,
    *,
    bank: str = "",
    wait_until: WaitUntil = WaitUntil.VISIBLE,
    deadline_s: float | None = None,
) -> Ask[proposal_pb2.DecideProposalResponse]:
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
    return Ask(DECIDE_PROPOSAL, request, _whole, deadline_s)


# ------------------------------------------------------------ the record of edits


def list_changes(
    request: bank_pb2.ListChangesRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.ListChangesResponse]:
    """One page of the record of edits, the newest last. A page may be short, or empty, before
    the last one: ask again while there is `more`."""
    return Ask(LIST_CHANGES, request, _whole, deadline_s)


def get_change(seq: int, *, deadline_s: float | None = None) -> Ask[bank_pb2.GetChangeResponse]:
    """One change, and what it replaced. Raises BadRequest where there is none to be read."""
    return Ask(GET_CHANGE, bank_pb2.GetChangeRequest(seq=seq), _whole, deadline_s)


def log_head(*, deadline_s: float | None = None) -> Ask[bank_pb2.GetLogHeadResponse]:
    """The end of the record: kept elsewhere, it vouches for all that was before it."""
    return Ask(GET_LOG_HEAD, bank_pb2.GetLogHeadRequest(), _whole, deadline_s)


def revert_changes(
    request: bank_pb2.RevertChangesRequest, *, deadline_s: float | None = None
) -> Ask[bank_pb2.RevertChangesResponse]:
    """Undo a part of somebody's changes, the newest first; go on with `next_before_seq` until it
    is 0. Done again, nothing changes."""
    return Ask(REVERT_CHANGES, request, _whole, deadline_s)


# ------------------------------------------------------------ what people think of hits


def give_opinion(
    bank: str, key: int, said: OpinionDraft, edit: Edit, *, deadline_s: float | None = None
) -> Ask[feedback_pb2.GiveOpinionResponse]:
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
    return Ask(GIVE_OPINION, request, _whole, deadline_s)


def list_opinions(
    request: feedback_pb2.ListOpinionsRequest, *, deadline_s: float | None = None
) -> Ask[feedback_pb2.ListOpinionsResponse]:
    """One page, by entry; `next_page_token` is empty on the last. A page may be short, or empty,
    before that."""
    return Ask(LIST_OPINIONS, request, _whole, deadline_s)


def list_review(
    bank: str = "",
    *,
    page_size: int = 0,
    page_token: str = "",
    deadline_s: float | None = None,
) -> Ask[feedback_pb2.ListReviewResponse]:
    """One page of what waits for a person to decide, the longest first: disputed entries, and
    those that the server quarantined by itself. `next_page_token` is empty on the last."""
    request = feedback_pb2.ListReviewRequest(bank=bank, page_size=page_size, page_token=page_token)
    return Ask(LIST_REVIEW, request, _whole, deadline_s)


# ------------------------------------------------------------ the server


def status(*, deadline_s: float | None = None) -> Ask[index_pb2.GetStatusResponse]:
    """What the server searches with."""
    return Ask(GET_STATUS, index_pb2.GetStatusRequest(), _whole, deadline_s)


def default_policy(*, deadline_s: float | None = None) -> Ask[policy_pb2.Policy]:
    """What a bank gets whose creator names no policy."""
    return Ask(GET_STATUS, index_pb2.GetStatusRequest(), attrgetter("default_policy"), deadline_s)


def is_serving(*, deadline_s: float | None = None) -> Ask[bool]:
    """True once the server answers searches; False while it loads or drains."""
    return Ask(CHECK_HEALTH, health_pb2.HealthCheckRequest(), _serving, deadline_s)


def _serving(reply: health_pb2.HealthCheckResponse) -> bool:
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _whole(reply: T) -> T:
    return reply

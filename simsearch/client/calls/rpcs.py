"""RPC table: every method of the servers, and which of them may be sent twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from grpc_health.v1 import health_pb2_grpc

from simsearch.v1 import (
    bank_pb2_grpc,
    feedback_pb2_grpc,
    index_pb2_grpc,
    match_pb2_grpc,
    proposal_pb2_grpc,
)


@dataclass(frozen=True)
class Service:
    """By its full name, and the generated stub."""

    name: str
    stub: type[Any]


@dataclass(frozen=True)
class Rpc:
    """A method of a service. `idempotent`: sent twice, it does what it does sent once. `is_stream`:
    its clients end it, by a cancellation."""

    service: Service
    name: str
    idempotent: bool = True
    is_stream: bool = False


_MATCH_SERVICE = Service("simsearch.v1.MatchService", match_pb2_grpc.MatchServiceStub)
_BANK_SERVICE = Service("simsearch.v1.BankService", bank_pb2_grpc.BankServiceStub)
_FEEDBACK_SERVICE = Service("simsearch.v1.FeedbackService", feedback_pb2_grpc.FeedbackServiceStub)
_PROPOSAL_SERVICE = Service("simsearch.v1.ProposalService", proposal_pb2_grpc.ProposalServiceStub)
_INDEX_SERVICE = Service("simsearch.v1.IndexService", index_pb2_grpc.IndexServiceStub)
_HEALTH_SERVICE = Service("grpc.health.v1.Health", health_pb2_grpc.HealthStub)

MATCH = Rpc(_MATCH_SERVICE, "Match")
BATCH_MATCH = Rpc(_MATCH_SERVICE, "BatchMatch")
STREAM_MATCH = Rpc(_MATCH_SERVICE, "StreamMatch", is_stream=True)
# An edit whose answer was lost may have happened.
CREATE_BANK = Rpc(_BANK_SERVICE, "CreateBank", idempotent=False)
GET_BANK = Rpc(_BANK_SERVICE, "GetBank")
LIST_BANKS = Rpc(_BANK_SERVICE, "ListBanks")
UPDATE_BANK = Rpc(_BANK_SERVICE, "UpdateBank", idempotent=False)
ADD_ENTRY = Rpc(_BANK_SERVICE, "AddEntry", idempotent=False)
BATCH_ADD_ENTRIES = Rpc(_BANK_SERVICE, "BatchAddEntries", idempotent=False)
IMPORT_ENTRIES = Rpc(_BANK_SERVICE, "ImportEntries")
GET_ENTRY = Rpc(_BANK_SERVICE, "GetEntry")
LIST_ENTRIES = Rpc(_BANK_SERVICE, "ListEntries")
FIND_ENTRIES = Rpc(_BANK_SERVICE, "FindEntries")
COMPARE_ENTRIES = Rpc(_BANK_SERVICE, "CompareEntries")
# Extending may have happened too, and does nothing the second time.
EXTEND_ENTRY = Rpc(_BANK_SERVICE, "ExtendEntry")
# So may moving.
MOVE_ENTRY = Rpc(_BANK_SERVICE, "MoveEntry")
RETRACT_ENTRY = Rpc(_BANK_SERVICE, "RetractEntry", idempotent=False)
LIST_PROPOSALS = Rpc(_PROPOSAL_SERVICE, "ListProposals")
GET_PROPOSAL = Rpc(_PROPOSAL_SERVICE, "GetProposal")
# What was decided so is not decided twice, and goes on where it was.
DECIDE_PROPOSAL = Rpc(_PROPOSAL_SERVICE, "DecideProposal")
# Begun twice, an export is twice on the record and gives the same.
EXPORT_ENTRIES = Rpc(_BANK_SERVICE, "ExportEntries")
LIST_CHANGES = Rpc(_BANK_SERVICE, "ListChanges")
GET_CHANGE = Rpc(_BANK_SERVICE, "GetChange")
GET_LOG_HEAD = Rpc(_BANK_SERVICE, "GetLogHead")
# What was undone is not undone twice.
REVERT_CHANGES = Rpc(_BANK_SERVICE, "RevertChanges")
# The same opinion, given again, is the one that stands.
GIVE_OPINION = Rpc(_FEEDBACK_SERVICE, "GiveOpinion")
LIST_OPINIONS = Rpc(_FEEDBACK_SERVICE, "ListOpinions")
LIST_REVIEW = Rpc(_FEEDBACK_SERVICE, "ListReview")
GET_STATUS = Rpc(_INDEX_SERVICE, "GetStatus")
CHECK_HEALTH = Rpc(_HEALTH_SERVICE, "Check")

RPCS: Final = tuple(row for row in list(globals().values()) if isinstance(row, Rpc))
"""All rows above."""

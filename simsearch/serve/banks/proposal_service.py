"""ProposalService: edits that wait for a second person, and decisions about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from simsearch.bank.edits.decide import not_found
from simsearch.errors import PermissionDenied
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.edit_rpcs import Handler, add_edit_service
from simsearch.serve.banks.edit_terms import current_terms
from simsearch.serve.banks.entry_pages import page_key, page_size
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import EditExecutor
from simsearch.types import BankAccess, Decision, Proposal, Role, WaitUntil
from simsearch.v1 import proposal_pb2
from simsearch.wire import (
    decision_from,
    edit_from,
    proposal_state_from,
    proposal_to,
    wait_from,
)

APPROVERS: Final = frozenset({Role.APPROVER, Role.ADMIN})
"""Roles that may decide about proposals of others. Every editor may withdraw their own."""


SERVICE: Final = proposal_pb2.DESCRIPTOR.services_by_name["ProposalService"]


def add_proposal_service(executor: EditExecutor, server: grpc.aio.Server) -> None:
    """Register the service. Every decision is a change of the log, signed by its caller."""
    add_edit_service(SERVICE, HANDLERS, executor, server)


def _list_proposals(
    core: Core, request: proposal_pb2.ListProposalsRequest, caller: Identity
) -> proposal_pb2.ListProposalsResponse:
    size = page_size(core, request.page_size)
    banks = [core.store.bank(request.bank)] if request.bank else core.store.banks()
    names = {bank.id: bank.name for bank in banks if bank.name in caller.reads}
    state, after_id = proposal_state_from(request.state), page_key(request.page_token)
    found, rest = core.store.proposals(names, state=state, after_id=after_id, limit=size)
    return proposal_pb2.ListProposalsResponse(
        proposals=[proposal_to(each, rows, names[each.bank_id]) for each, rows in found],
        next_page_token=str(rest or ""),
    )


def _get_proposal(
    core: Core, request: proposal_pb2.GetProposalRequest, caller: Identity
) -> proposal_pb2.GetProposalResponse:
    return proposal_pb2.GetProposalResponse(proposal=_readable(core, request.id, caller.reads))


def _readable(core: Core, proposal_id: int, reads: BankAccess) -> proposal_pb2.Proposal:
    """The proposal. Raises ProposalNotFound, also where the caller may not read its bank."""
    proposal, rows = core.store.proposal(proposal_id)
    name = _bank_name(core, proposal)
    if name not in reads:
        raise not_found(proposal_id)
    return proposal_to(proposal, rows, name)


def _bank_name(core: Core, proposal: Proposal) -> str:
    return next(bank.name for bank in core.store.banks() if bank.id == proposal.bank_id)


def _decide_proposal(
    core: Core, request: proposal_pb2.DecideProposalRequest, caller: Identity
) -> proposal_pb2.DecideProposalResponse:
    decision, wait = decision_from(request.decision), wait_from(request.wait_until)
    bank = _readable(core, request.id, caller.reads).bank
    if request.bank not in ("", bank):
        raise not_found(request.id)
    _check_may(caller, bank, decision)
    decided = core.store.decide(
        request.id, decision, edit_from(request.edit), terms=current_terms(core)
    )
    assert decided.decided is not None
    seq = core.store.seq() if decided.rows or decided.update else decided.decided.seq
    if wait is WaitUntil.VISIBLE:
        wait_visible(core, seq, f"proposal {decided.id} is {decided.state.name.lower()}")
    return proposal_pb2.DecideProposalResponse(
        proposal=_readable(core, request.id, caller.reads), seq=seq, remaining=decided.remaining
    )


def _check_may(caller: Identity, bank: str, decision: Decision) -> None:
    """Raises PermissionDenied."""
    if bank not in caller.edits:
        raise PermissionDenied(
            f"{caller.name} may not edit a bank called {bank!r}: an operator can add it to "
            "edit_banks of this identity"
        )
    if decision is not Decision.WITHDRAW and not caller.roles & APPROVERS:
        needed = " or ".join(sorted(APPROVERS))
        raise PermissionDenied(
            f"to decide about a proposal of others needs the role {needed}; {caller.name} is "
            f"{', '.join(sorted(caller.roles))}"
        )


HANDLERS: Final[Mapping[str, Handler]] = {
    "ListProposals": _list_proposals,
    "GetProposal": _get_proposal,
    "DecideProposal": _decide_proposal,
}

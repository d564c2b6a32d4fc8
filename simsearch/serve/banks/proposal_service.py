"""ProposalService: edits that wait for a second person, and what that person says."""

from __future__ import annotations

from typing import Final

from simsearch.bank.edits.decide import not_found
from simsearch.errors import PermissionDenied
from simsearch.serve.auth.identity import Identity, current
from simsearch.serve.banks.edit_terms import terms_of
from simsearch.serve.banks.entry_pages import page_key, page_size
from simsearch.serve.core.edit_lag import wait_visible
from simsearch.serve.core.server_core import Core
from simsearch.serve.scheduling.executor import Work
from simsearch.serve.transport.interceptors import Context
from simsearch.types import BankAccess, Decision, Proposal, Role, WaitUntil
from simsearch.v1 import proposal_pb2, proposal_pb2_grpc
from simsearch.wire import (
    decision_from,
    edit_from,
    proposal_state_from,
    proposal_to,
    wait_from,
)

APPROVERS: Final = frozenset({Role.APPROVER, Role.ADMIN})
"""Who may decide about what others proposed; to withdraw one's own is for everybody."""


class ProposalService(proposal_pb2_grpc.ProposalServiceServicer):
    """Every decision is a change of the log, with the name of who made it."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def ListProposals(
        self, request: proposal_pb2.ListProposalsRequest, context: Context
    ) -> proposal_pb2.ListProposalsResponse:
        reads = current().reads
        return await self._work.edit(lambda core: _list(core, request, reads))

    async def GetProposal(
        self, request: proposal_pb2.GetProposalRequest, context: Context
    ) -> proposal_pb2.GetProposalResponse:
        reads = current().reads
        return await self._work.edit(lambda core: _get(core, request, reads))

    async def DecideProposal(
        self, request: proposal_pb2.DecideProposalRequest, context: Context
    ) -> proposal_pb2.DecideProposalResponse:
        caller = current()
        return await self._work.edit(lambda core: _decide(core, request, caller))


def _list(
    core: Core, request: proposal_pb2.ListProposalsRequest, reads: BankAccess
) -> proposal_pb2.ListProposalsResponse:
    size = page_size(core, request.page_size)
    asked = [core.store.bank(request.bank)] if request.bank else core.store.banks()
    names = {bank.id: bank.name for bank in asked if bank.name in reads}
    state, after_id = proposal_state_from(request.state), page_key(request.page_token)
    found, rest = core.store.proposals(names, state=state, after_id=after_id, limit=size)
    return proposal_pb2.ListProposalsResponse(
        proposals=[proposal_to(each, rows, names[each.bank_id]) for each, rows in found],
        next_page_token=str(rest or ""),
    )


def _get(
    core: Core, request: proposal_pb2.GetProposalRequest, reads: BankAccess
) -> proposal_pb2.GetProposalResponse:
    return proposal_pb2.GetProposalResponse(proposal=_shown(core, request.id, reads))


def _shown(core: Core, proposal_id: int, reads: BankAccess) -> proposal_pb2.Proposal:
    """Raises ProposalNotFound, of one about a bank that is not there for the caller too."""
    proposal, rows = core.store.proposal(proposal_id)
    name = _bank_name(core, proposal)
    if name not in reads:
        raise not_found(proposal_id)
    return proposal_to(proposal, rows, name)


def _bank_name(core: Core, proposal: Proposal) -> str:
    return next(bank.name for bank in core.store.banks() if bank.id == proposal.bank_id)


def _decide(
    core: Core, request: proposal_pb2.DecideProposalRequest, caller: Identity
) -> proposal_pb2.DecideProposalResponse:
    decision, wait = decision_from(request.decision), wait_from(request.wait_until)
    bank = _shown(core, request.id, caller.reads).bank
    if request.bank not in ("", bank):
        raise not_found(request.id)
    _check_may(caller, bank, decision)
    decided = core.store.decide(request.id, decision, edit_from(request.edit), terms=terms_of(core))
    assert decided.decided is not None
    seq = core.store.seq() if decided.rows or decided.update else decided.decided.seq
    if wait is WaitUntil.VISIBLE:
        wait_visible(core, seq, f"proposal {decided.id} is {decided.state.name.lower()}")
    return proposal_pb2.DecideProposalResponse(
        proposal=_shown(core, request.id, caller.reads), seq=seq, remaining=decided.remaining
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

"""Bank exports: who may export, and the record of it in the log."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from simsearch.bank.edits.decide import approved_edit, proposal_or_raise
from simsearch.bank.edits.propose import NO_ROWS, four_eyes_in_force, new_proposal, propose
from simsearch.bank.lmdb.tables import Tables
from simsearch.errors import BadRequest, PermissionDenied, ProposalClosed
from simsearch.types import (
    Bank,
    Change,
    ChangeKind,
    Edit,
    EditTerms,
    Entry,
    EntryState,
    ProposalKind,
    ProposalState,
)

APPROVED_FOR_US: Final = 24 * 3_600_000_000
"""How long after its approval an export may be started, any number of times."""

NOT_RETRACTED: Final = frozenset(EntryState) - {EntryState.RETRACTED}


@dataclass(frozen=True)
class ExportFilter:
    """Selects the entries of an export; empty `labels` or `sources`: any."""

    states: frozenset[EntryState]
    labels: frozenset[str]
    sources: frozenset[str]

    def matches(self, entry: Entry, seq: int) -> bool:
        """Whether to export the entry, as it was at log position `seq`."""
        return (
            entry.added.seq <= seq
            and entry.state_at(seq) in self.states
            and (not self.labels or not self.labels.isdisjoint(entry.labels))
            and (not self.sources or entry.source in self.sources)
        )


def begin_export(
    tables: Tables, bank_name: str, edit: Edit, proposal_id: int, terms: EditTerms
) -> Change:
    """The change that records the export; or, where a second person is needed and no `proposal_id`
    is given, the change that proposes it. Archived banks may be exported."""
    bank = tables.bank_or_raise(bank_name)
    if four_eyes_in_force(bank, terms):
        if not proposal_id:
            return propose(
                tables, new_proposal(bank, ProposalKind.EXPORT, edit), NO_ROWS, edit, edits=1
            )
        edit = _approved(tables, bank, edit, proposal_id)
    now_us = time.time_ns() // 1000
    return tables.append_change(
        tables.next_change(ChangeKind.BANK_EXPORTED, bank.id, 0, edit, now_us)
    )


def check_export_begun(tables: Tables, bank_name: str, seq: int, actor: str) -> None:
    """Checks that change `seq` began an export of the bank by `actor`: no page is served without a
    record of its export. Raises BadRequest."""
    bank = tables.bank_or_raise(bank_name)
    found = tables.changes(seq - 1, 1) if seq else []
    if not any(
        (c.kind, c.bank_id, c.actor) == (ChangeKind.BANK_EXPORTED, bank.id, actor) for c in found
    ):
        raise BadRequest("page_token is none of yours: send back next_page_token as it came")


def _approved(tables: Tables, bank: Bank, edit: Edit, proposal_id: int) -> Edit:
    """The edit, signed by the proposer and the approver."""
    proposal = proposal_or_raise(tables, proposal_id)
    if proposal.kind is not ProposalKind.EXPORT or proposal.bank_id != bank.id:
        raise BadRequest(f"proposal {proposal_id} is about something else: give the export's own")
    if proposal.made.actor != edit.actor:
        raise PermissionDenied(
            f"proposal {proposal_id} is {proposal.made.actor[:80]}'s: who asked for the export "
            "makes it"
        )
    decided = proposal.decided
    if decided is None or proposal.state is not ProposalState.APPROVED:
        state = proposal.state.name.lower()
        raise ProposalClosed(
            f"proposal {proposal_id} is {state}: a second person has to approve it first"
        )
    if decided.time_us + APPROVED_FOR_US < time.time_ns() // 1000:
        raise ProposalClosed(f"proposal {proposal_id} was approved over a day ago: propose it anew")
    return approved_edit(proposal)

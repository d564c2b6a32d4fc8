"""Entries taken out of a bank: on whose word, and that it is on the record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from simsearch.bank.edits.decide import in_the_name_of, proposal_or_raise
from simsearch.bank.edits.propose import NO_ROWS, asked, four_eyes_in_force, propose
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
"""So long after its approval an export may be begun, as often as is needed."""


LIVING: Final = frozenset(EntryState) - {EntryState.RETRACTED}


@dataclass(frozen=True)
class Chosen:
    """Which entries are taken out; no labels or sources: whatever they are."""

    states: frozenset[EntryState]
    labels: frozenset[str]
    sources: frozenset[str]

    def holds(self, entry: Entry, seq: int) -> bool:
        """Of an entry as it was at that log position."""
        return (
            entry.added.seq <= seq
            and entry.state_at(seq) in self.states
            and (not self.labels or not self.labels.isdisjoint(entry.labels))
            and (not self.sources or entry.source in self.sources)
        )


def begin_export(
    tables: Tables, bank_name: str, edit: Edit, proposal_id: int, terms: EditTerms
) -> Change:
    """The change that says so; or, where it needs a second person and no `proposal_id` says that
    there was one, the change that proposes it. Archived banks may be exported."""
    bank = tables.bank_or_raise(bank_name)
    if four_eyes_in_force(bank, terms):
        if not proposal_id:
            return propose(tables, asked(bank, ProposalKind.EXPORT, edit), NO_ROWS, edit, edits=1)
        edit = _approved(tables, bank, edit, proposal_id)
    now_us = time.time_ns() // 1000
    return tables.append_change(
        tables.next_change(ChangeKind.BANK_EXPORTED, bank.id, 0, edit, now_us)
    )


def check_begun(tables: Tables, bank_name: str, seq: int, actor: str) -> None:
    """That this change began an export of the bank by this person: a page of one that was never
    begun would be on nobody's record. Raises BadRequest."""
    bank = tables.bank_or_raise(bank_name)
    found = tables.changes(seq - 1, 1) if seq else []
    if not any(
        (c.kind, c.bank_id, c.actor) == (ChangeKind.BANK_EXPORTED, bank.id, actor) for c in found
    ):
        raise BadRequest("page_token is none of yours: send back next_page_token as it came")


def _approved(tables: Tables, bank: Bank, edit: Edit, proposal_id: int) -> Edit:
    """Signed by both."""
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
    return in_the_name_of(proposal)

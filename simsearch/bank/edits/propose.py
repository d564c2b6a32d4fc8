"""Proposals: edits that are stored until a second person approves them.

Nothing else changes, except that an item to be banned is stored as a draft. `decide` carries the
edit out once another person approves it.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Final

from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import hash_chain
from simsearch.bank.records.proposals import rows_to_bytes
from simsearch.types import (
    Bank,
    Change,
    ChangeKind,
    Edit,
    EditTerms,
    FourEyes,
    Proposal,
    ProposalKind,
    ProposedRows,
)

NO_ROWS: Final = ProposedRows()


def four_eyes_in_force(bank: Bank, terms: EditTerms) -> bool:
    """Whether edits that change what this bank matches need a second person."""
    if bank.four_eyes is FourEyes.AS_CONFIGURED:
        return terms.four_eyes
    return bank.four_eyes is FourEyes.REQUIRED


def new_proposal(bank: Bank, kind: ProposalKind, edit: Edit, number: int = 0) -> Proposal:
    """A proposal to be filled in; `number`: its id, where it has one already."""
    made = Change(0, ChangeKind.PROPOSAL_MADE, bank.id, 0, edit.actor, edit.reason, 0)
    return Proposal(number, bank.id, kind, made)


def proposal_id_for(tables: Tables, draft: Proposal) -> int:
    """The id of an open proposal of the same edit, or a new one."""
    before = tables.open_proposal(proposal_mark(draft, NO_ROWS))
    return before.id if before else tables.next_proposal_id()


def propose(
    tables: Tables, draft: Proposal, rows: ProposedRows, edit: Edit, *, edits: int = 0
) -> Change:
    """Stores a proposal, or a further part of an import's; returns the change. Where the same
    person has an open proposal of the same edit, its change is returned and nothing is written.
    `edits`: how many edits it adds to the daily count, besides those made in this transaction."""
    mark = proposal_mark(draft, rows)
    before = tables.open_proposal(mark)
    if before and draft.kind is not ProposalKind.IMPORT:
        return before.made
    tables.edits += edits
    proposal = before or replace(draft, id=draft.id or tables.next_proposal_id())
    if len(rows):
        proposal = _with_rows(tables, proposal, rows)
    made = _append(tables, proposal, rows, edit)
    if before is None:
        tables.put_open_proposal(mark, proposal.id)
        proposal = replace(proposal, made=made)
    tables.put_proposal(proposal)
    return made


def _append(tables: Tables, proposal: Proposal, rows: ProposedRows, edit: Edit) -> Change:
    """Appends the change, which names the entry if there is only one."""
    keys = (*rows.moved, *rows.retracted)
    change = tables.next_change(
        ChangeKind.PROPOSAL_MADE,
        proposal.bank_id,
        keys[0] if len(keys) == 1 else 0,
        replace(edit, proposal=proposal.id),
        time.time_ns() // 1000,
    )
    return tables.append_change(change, hash_chain.content_of_proposal(proposal))


def _with_rows(tables: Tables, proposal: Proposal, rows: ProposedRows) -> Proposal:
    record = rows_to_bytes(rows)
    tables.put_proposed_rows(proposal.id, proposal.parts, record)
    return replace(
        proposal,
        rows=proposal.rows + len(rows),
        parts=proposal.parts + 1,
        digest=hash_chain.digest_of_rows(proposal.digest, record),
    )


def proposal_mark(proposal: Proposal, rows: ProposedRows) -> bytes:
    """The index key of an open proposal: a hash of the edit, the bank and the actor. For an import
    the rows do not count."""
    plain = replace(proposal, id=0, rows=0, parts=0, digest=b"")
    whole = hashlib.sha256(hash_chain.content_of_proposal(plain))
    whole.update(f"{proposal.bank_id} {proposal.made.actor}".encode())
    if proposal.kind is not ProposalKind.IMPORT:
        whole.update(b"\0" + rows_to_bytes(rows))
    return whole.digest()

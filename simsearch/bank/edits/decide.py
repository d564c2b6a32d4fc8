"""Decisions on proposals: a second person approves or rejects; an approved proposal is carried out.

The proposed edit is checked again against the current bank. A proposal of many entries is carried
out in parts: each repeated call continues where the last one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Final

from simsearch.bank.edits import entries
from simsearch.bank.edits.propose import NO_ROWS, proposal_mark
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import hash_chain
from simsearch.bank.records.keys import corrupt
from simsearch.bank.records.proposals import rows_from_bytes
from simsearch.errors import (
    BadRequest,
    Corrupt,
    EntryRetracted,
    PermissionDenied,
    ProposalClosed,
    ProposalNotFound,
)
from simsearch.types import (
    Bank,
    ChangeKind,
    Decision,
    Edit,
    EntryState,
    Proposal,
    ProposalKind,
    ProposalState,
    ProposedRows,
)

ROWS_AT_ONCE: Final = 2_048
"""Rows processed in one transaction, while other edits wait."""

LOOKED_AT_MAX: Final = 10_000
"""Proposals that one listing examines; it then returns a short page."""

STATE_AFTER: Final[Mapping[Decision, ProposalState]] = {
    Decision.APPROVE: ProposalState.APPROVED,
    Decision.REJECT: ProposalState.REJECTED,
    Decision.WITHDRAW: ProposalState.WITHDRAWN,
}


def decide_proposal(tables: Tables, proposal_id: int, decision: Decision, edit: Edit) -> Proposal:
    """Decides a proposal and processes up to ROWS_AT_ONCE rows of an approved one; `remaining` of
    the result are left for the next call. Repeating a decision changes nothing. Raises
    ProposalNotFound, ProposalClosed, PermissionDenied, BankArchived."""
    proposal = proposal_or_raise(tables, proposal_id)
    _check_who(proposal, decision, edit.actor)
    if proposal.state is ProposalState.OPEN:
        proposal = _close(tables, proposal, decision, edit)
        if proposal.update and decision is Decision.APPROVE:
            _update_bank(tables, proposal)
        counted = 1
    else:
        _check_repeated(proposal, decision, edit.actor)
        counted = 0
    if proposal.remaining:
        proposal = _Execution(tables, proposal).run()
        tables.put_proposal(proposal)
    tables.edits = counted  # the rows were counted as edits when they were proposed
    return proposal


def proposal_or_raise(tables: Tables, proposal_id: int) -> Proposal:
    """Raises ProposalNotFound."""
    proposal = tables.proposal(proposal_id)
    if proposal is None:
        raise not_found(proposal_id)
    return proposal


def not_found(proposal_id: int) -> ProposalNotFound:
    """The error for an unknown proposal, with what to do."""
    return ProposalNotFound(f"there is no proposal {proposal_id}: list those that wait")


def rows_of(tables: Tables, proposal: Proposal, part: int) -> ProposedRows:
    """The entries of one part. Raises Corrupt."""
    return rows_from_bytes(proposal.id, tables.proposed_rows(proposal.id, part))


def first_rows(tables: Tables, proposal: Proposal) -> ProposedRows:
    """The entries of the first part; none for a proposal without parts."""
    return rows_of(tables, proposal, 0) if proposal.parts else NO_ROWS


def list_proposals(
    tables: Tables,
    bank_ids: Container[int],
    state: ProposalState | None,
    after_id: int,
    limit: int,
) -> tuple[list[tuple[Proposal, ProposedRows]], int]:
    """Up to `limit` proposals with their first rows, and the `after_id` of the next page; 0: this
    is the last one."""
    found: list[tuple[Proposal, ProposedRows]] = []
    last = 0
    for looked_at, proposal in enumerate(tables.proposals(after_id)):
        if len(found) == limit or looked_at == LOOKED_AT_MAX:
            return found, last
        last = proposal.id
        if proposal.bank_id in bank_ids and state in (None, proposal.state):
            found.append((proposal, first_rows(tables, proposal)))
    return found, 0


def check_rows(tables: Tables, proposal: Proposal) -> None:
    """Verifies the stored entries against the proposal's digest. Raises Corrupt."""
    digest = b""
    for part in range(proposal.parts):
        digest = hash_chain.digest_of_rows(digest, tables.proposed_rows(proposal.id, part))
    if digest != proposal.digest:
        raise corrupt(f"proposal {proposal.id}", "is not about the entries that were proposed")


# ---------------------------------------------------------------- permission and state


def _check_who(proposal: Proposal, decision: Decision, actor: str) -> None:
    own = proposal.made.actor == actor
    if own and decision is not Decision.WITHDRAW:
        raise PermissionDenied(
            f"proposal {proposal.id} is {actor[:80]}'s own: another person has to decide it, or "
            "withdraw it"
        )
    if decision is Decision.WITHDRAW and not own:
        raise PermissionDenied(
            f"proposal {proposal.id} is {proposal.made.actor[:80]}'s: only they withdraw it; "
            "reject it instead"
        )


def _check_repeated(proposal: Proposal, decision: Decision, actor: str) -> None:
    """Another approver may continue an unfinished proposal; the first may repeat the decision."""
    decided = proposal.decided
    assert decided is not None
    same = proposal.state is STATE_AFTER[decision]
    if not same or (decided.actor != actor and not proposal.remaining):
        raise ProposalClosed(
            f"proposal {proposal.id} was {proposal.state.name.lower()} by {decided.actor[:80]} "
            f"(change {decided.seq}): propose it anew"
        )


def _close(tables: Tables, proposal: Proposal, decision: Decision, edit: Edit) -> Proposal:
    check_rows(tables, proposal)
    tables.drop_open_proposal(proposal_mark(proposal, first_rows(tables, proposal)))
    closed = replace(proposal, state=STATE_AFTER[decision])
    change = tables.next_change(
        ChangeKind.PROPOSAL_DECIDED,
        proposal.bank_id,
        proposal.made.entry_key,
        replace(edit, proposal=proposal.id),
        time.time_ns() // 1000,
    )
    decided = tables.append_change(change, hash_chain.content_of_decision(closed))
    closed = replace(closed, decided=decided)
    tables.put_proposal(closed)
    return closed


def approved_edit(proposal: Proposal) -> Edit:
    """The edit that carries out an approved proposal: signed by its maker and its approver."""
    made, decided = proposal.made, proposal.decided
    assert decided is not None
    return Edit(made.actor, made.reason, approved_by=decided.actor, proposal=proposal.id)


# ---------------------------------------------------------------- carrying out


def _update_bank(tables: Tables, proposal: Proposal) -> None:
    bank = _bank(tables, proposal)
    assert proposal.update is not None
    if bank.etag != proposal.etag:
        raise ProposalClosed(
            f"bank {bank.name!r} is at {bank.etag}, and proposal {proposal.id} was made at "
            f"{proposal.etag}: reject it, and propose it anew"
        )
    updated = entries.updated_bank(bank, proposal.update)
    entries.replace_bank(tables, bank, updated, approved_edit(proposal))


def _bank(tables: Tables, proposal: Proposal) -> Bank:
    return next(bank for bank in tables.banks() if bank.id == proposal.bank_id)


class _Execution:
    """Carries out an approved proposal within one transaction."""

    def __init__(self, tables: Tables, proposal: Proposal) -> None:
        self._tables = tables
        self._proposal = proposal
        self._bank = entries.editable_bank(tables, _bank(tables, proposal).name)
        self._edit = approved_edit(proposal)
        self._retracted = 0

    def run(self) -> Proposal:
        """Processes up to ROWS_AT_ONCE rows. Raises ProposalClosed where the proposal is about one
        entry, which has changed meanwhile."""
        left = ROWS_AT_ONCE
        while left and self._proposal.remaining:
            left -= self._apply_rows(left)
        if self._retracted:
            active = self._bank.active_entries - self._retracted
            self._tables.put_bank(replace(self._bank, active_entries=active))
        return self._proposal

    def _apply_rows(self, count: int) -> int:
        """Processes up to `count` rows of the next part; returns their number."""
        proposal = self._proposal
        rows = rows_of(self._tables, proposal, proposal.done_parts)
        todo = [(key, True) for key in rows.moved] + [(key, False) for key in rows.retracted]
        some = todo[proposal.done_in_part : proposal.done_in_part + count]
        if not some:
            raise Corrupt(f"proposal {proposal.id} has fewer entries than it says")
        skipped = sum(not self._apply(key, moved) for key, moved in some)
        end = proposal.done_in_part + len(some)
        whole = end == len(todo)
        self._proposal = replace(
            proposal,
            done=proposal.done + len(some),
            done_parts=proposal.done_parts + whole,
            done_in_part=0 if whole else end,
            skipped=proposal.skipped + skipped,
        )
        return len(some)

    def _apply(self, key: int, moved: bool) -> bool:
        """False: one of several entries has changed meanwhile and is skipped."""
        entry = self._tables.entry_or_raise(self._bank, key)
        try:
            if moved:
                entries.check_move(entry, self._proposal.to, self._proposal.until_us)
            elif entry.state is EntryState.RETRACTED:
                raise EntryRetracted(f"entry {key} is retracted already")
        except (BadRequest, EntryRetracted) as why:
            if self._proposal.kind is ProposalKind.IMPORT or self._proposal.rows > 1:
                return False
            raise ProposalClosed(
                f"proposal {self._proposal.id} does not fit any more ({why.message}): reject it"
            ) from None
        if moved:
            to, until_us = self._proposal.to, self._proposal.until_us
            entries.apply_move(self._tables, entry, to, until_us, self._edit)
        else:
            entries.retract(self._tables, self._bank, entry, self._edit)
            self._retracted += 1
        return True

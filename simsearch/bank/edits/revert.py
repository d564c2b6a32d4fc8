"""Revert: takes back selected changes by new changes. Nothing is erased, and later changes by
others are kept.

Each reverting change names the reverted one (`Change.undoes`), so no change is reverted twice,
whatever happened to the entry afterwards. A revert can be reverted itself, unless that would redo
one of the selected changes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from simsearch.bank.edit_checks import FIRST_STATES
from simsearch.bank.edits.entries import add_entry, move_entry, replace_bank, retract
from simsearch.bank.edits.propose import four_eyes_in_force
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.log_search import ChangeFilter
from simsearch.bank.records import entries as entry_records
from simsearch.bank.records.fingerprints import fingerprint_from_bytes, fingerprint_to_bytes
from simsearch.bank.records.keys import corrupt, whole_mark
from simsearch.errors import NeedsApproval
from simsearch.types import Change, ChangeKind, Edit, EditTerms, Entry, EntryDraft, EntryState, Move

CHANGES_AT_ONCE: Final = 256
"""Changes reverted in one transaction, while other edits wait."""

BYTES_AT_ONCE: Final = 32 << 20
"""Fingerprint bytes after which a transaction ends."""


@dataclass(frozen=True)
class Reverted:
    """The outcome for one change: reverted by the change `by`, or left as it is (None), and why.
    `key`: the entry that was added again; 0: none."""

    change: Change
    by: Change | None
    why: str = ""
    key: int = 0


def revert_changes(
    tables: Tables, selected: ChangeFilter, seqs: Sequence[int], edit: Edit, terms: EditTerms
) -> list[Reverted]:
    """Undoes the changes `seqs`, which `selected` matches, newest first. As many as
    fit into one transaction, and at least one."""
    work = _Revert(tables, selected, edit, terms)
    done: list[Reverted] = []
    for seq in seqs[:CHANGES_AT_ONCE]:
        if work.written_bytes > BYTES_AT_ONCE:
            break
        [change] = tables.changes(seq - 1, 1)
        done.append(work.undo(change))
    return done


class _NotUndone(Exception):
    """The reason why a change is not reverted."""


class _Revert:
    """Reverts changes within one transaction."""

    def __init__(
        self, tables: Tables, selected: ChangeFilter, edit: Edit, terms: EditTerms
    ) -> None:
        self._tables = tables
        self._terms = terms
        self._selected = selected
        self._edit = edit
        self._banks = {bank.id: bank for bank in tables.banks()}
        self._now_us = time.time_ns() // 1000
        self.written_bytes = 0

    def undo(self, change: Change) -> Reverted:
        try:
            return self._undo(change)
        except _NotUndone as fault:
            return Reverted(change, None, str(fault))

    def _undo(self, change: Change) -> Reverted:
        if change.undoes and self._selected.matches(self._change(change.undoes)):
            raise _NotUndone(f"it undid change {change.undoes}, which is one of these")
        if change.entry_key and self._banks[change.bank_id].archived:
            name = self._banks[change.bank_id].name
            raise _NotUndone(f"bank {name!r} is archived: bring it back first")
        edit = replace(self._edit, undoes=change.seq)
        match change.kind:
            case ChangeKind.ENTRY_ADDED:
                return self._retract(change, edit)
            case ChangeKind.ENTRY_RETRACTED:
                return self._add_again(change, edit)
            case ChangeKind.ENTRY_MOVED:
                return self._move_back(change, edit)
            case ChangeKind.BANK_UPDATED:
                return self._restore_bank(change, edit)
            case ChangeKind.ENTRY_EXTENDED:
                raise _NotUndone("signals that were added stay: retract the entry and ban it anew")
            case ChangeKind.OPINION_GIVEN:
                raise _NotUndone(
                    "what somebody thinks stays: who thinks otherwise gives an opinion"
                )
            case ChangeKind.BANK_EXPORTED:
                raise _NotUndone("what was taken out cannot be taken back")
            case ChangeKind.BANK_CREATED:
                raise _NotUndone("a bank cannot be unmade: archive it")
            case ChangeKind.PROPOSAL_MADE | ChangeKind.PROPOSAL_DECIDED:
                raise _NotUndone(f"proposal {change.proposal} does nothing by itself: reject it")

    def _check_one_person_is_enough(self, bank_id: int) -> None:
        """Raises NeedsApproval where the bank needs a second person."""
        bank = self._banks[bank_id]
        if four_eyes_in_force(bank, self._terms):
            raise NeedsApproval(
                f"bank {bank.name!r} needs a second person, and a revert is one person's: retract, "
                "move or update it one by one, or revert only what other banks hold"
            )

    # ------------------------------------------------------------ entries

    def _retract(self, change: Change, edit: Edit) -> Reverted:
        entry = self._entry(change)
        _check_not_retracted(entry)
        self._check_one_person_is_enough(entry.bank_id)
        retracted = retract(self._tables, self._banks[entry.bank_id], entry, edit)
        self._count(entry.bank_id, -1)
        return Reverted(change, retracted.retracted)

    def _add_again(self, change: Change, edit: Edit) -> Reverted:
        entry = self._entry(change)
        if self._selected.matches(entry.added):
            raise _NotUndone(f"entry {entry.key} was added by one of these changes too")
        if 0 < entry.expires_us <= self._now_us:
            raise _NotUndone(f"the ban of entry {entry.key} would have ended by itself since")
        record = self._fingerprint(entry)
        self._check_not_banned_again(entry, record, change)
        self._check_one_person_is_enough(entry.bank_id)
        states, until_us = self._as_it_stood(entry)
        draft = _draft(entry, record, _first_state(states, until_us))
        added = self._add(draft, record, entry.bank_id, edit)
        by: Change | None = added.added
        if added.state is not states[-1] or until_us:
            name = self._banks[entry.bank_id].name
            _, by = move_entry(self._tables, name, added.key, states[-1], until_us, edit)
        return Reverted(change, by, "the item is banned again", added.key)

    def _add(self, draft: EntryDraft, record: bytes, bank_id: int, edit: Edit) -> Entry:
        bank = self._banks[bank_id]
        added = add_entry(self._tables, bank, draft, record, edit, self._now_us)
        self._count(bank_id, +1)
        self.written_bytes += len(record)
        return added

    def _fingerprint(self, entry: Entry) -> bytes:
        """All signals of the entry, except those that one of the selected changes added."""
        given = [change for change in entry.extended if not self._selected.matches(change)]
        # Protobuf reads messages that stand one after the other as one: lists are joined.
        joined = b"".join(self._tables.change_fingerprint_bytes(c) for c in (entry.added, *given))
        return fingerprint_to_bytes(fingerprint_from_bytes(entry.key, joined))

    def _check_not_banned_again(self, entry: Entry, record: bytes, change: Change) -> None:
        """Raises _NotUndone where this was reverted before, or the item was banned again since."""
        marks = {whole_mark(record), whole_mark(self._tables.change_fingerprint_bytes(entry.added))}
        lifetimes = {k: v for m in marks for k, v in self._tables.marked(m, entry.bank_id)}
        for key, lifetime in sorted(lifetimes.items()):
            if lifetime.born < change.seq:
                continue
            other = self._tables.entry(key)
            if other is None:
                raise corrupt(f"entry {key}", "is listed and has no record")
            undoes = other.added.undoes
            if undoes == change.seq and not _was_undone(other):
                raise _undone_by(other.added, f" as entry {key}")
            if not undoes and not self._selected.matches(other.added):
                raise _NotUndone(f"{other.added.actor} banned it anew since, as entry {key}")

    def _as_it_stood(self, entry: Entry) -> tuple[list[EntryState], int]:
        """The entry's states and the end of the last one, ignoring the selected changes and timed
        states that have ended."""
        moves = _effective_moves(entry.moves)
        while moves and (
            self._selected.matches(moves[-1].change) or self._ran_out(moves[-1].until_us)
        ):
            moves.pop()
        states = [entry.first_state, *(move.state for move in moves)]
        return states, moves[-1].until_us if moves else 0

    def _move_back(self, change: Change, edit: Edit) -> Reverted:
        entry = self._entry(change)
        if self._selected.matches(entry.added):
            raise _NotUndone(f"entry {entry.key} was added by one of these changes too")
        _check_not_retracted(entry)
        state, until_us = self._before(entry, change)
        if self._ran_out(until_us):
            raise _NotUndone(f"where entry {entry.key} was before has ended by itself since")
        # No move leads back to DRAFT; a quarantined entry is not searched either.
        to = EntryState.QUARANTINED if state is EntryState.DRAFT else state
        if to is EntryState.ACTIVE and entry.state is not to:
            self._check_one_person_is_enough(entry.bank_id)
        name = self._banks[entry.bank_id].name
        _, by = move_entry(self._tables, name, entry.key, to, until_us, edit, self._terms)
        if by is None:
            raise _NotUndone(f"entry {entry.key} is {to.name.lower()} already")
        if by.kind is ChangeKind.PROPOSAL_MADE:
            raise NeedsApproval(f"entry {entry.key} is held: move it by a proposal of its own")
        return Reverted(change, by, f"entry {entry.key} is {to.name.lower()}")

    def _before(self, entry: Entry, change: Change) -> tuple[EntryState, int]:
        """The state before this change. Raises _NotUndone where the entry was moved since."""
        for move in _effective_moves([m for m in entry.moves if m.change.seq > change.seq]):
            since = move.change
            if since.undoes == change.seq:
                raise _undone_by(since)
            if not self._selected.matches(since):
                raise _NotUndone(f"{since.actor} moved it since (change {since.seq})")
        before = _effective_moves([m for m in entry.moves if m.change.seq < change.seq])
        return (before[-1].state, before[-1].until_us) if before else (entry.first_state, 0)

    def _ran_out(self, until_us: int) -> bool:
        return 0 < until_us <= self._now_us

    # ------------------------------------------------------------ banks

    def _restore_bank(self, change: Change, edit: Edit) -> Reverted:
        [(seq, record)] = self._tables.log(change.seq - 1, 1)
        before, bank = entry_records.bank_before(seq, record), self._banks[change.bank_id]
        if before is None:
            raise _NotUndone("an earlier release made it, and kept no record of the bank of before")
        if before.version + 1 not in (bank.version, bank.restores):
            raise _NotUndone(f"bank {bank.name!r} was changed since, or this was undone before")
        self._check_one_person_is_enough(bank.id)
        restored = replace(
            before,
            active_entries=bank.active_entries,
            version=bank.version + 1,
            restores=before.restores or before.version,
        )
        self._banks[bank.id] = restored
        by = replace_bank(self._tables, bank, restored, edit)
        return Reverted(change, by, f"bank {bank.name!r} is as it was at {before.etag}")

    def _count(self, bank_id: int, entries: int) -> None:
        bank = self._banks[bank_id]
        self._banks[bank_id] = replace(bank, active_entries=bank.active_entries + entries)
        self._tables.put_bank(self._banks[bank_id])

    # ------------------------------------------------------------ reading

    def _change(self, seq: int) -> Change:
        [change] = self._tables.changes(seq - 1, 1)
        return change

    def _entry(self, change: Change) -> Entry:
        entry = self._tables.entry(change.entry_key)
        if entry is None:
            raise corrupt(f"entry {change.entry_key}", "was changed and has no record")
        return entry


# ---------------------------------------------------------------- effective moves


def _effective_moves(moves: Sequence[Move]) -> list[Move]:
    """The moves without those that were reverted and those that reverted them."""
    standing: list[Move] = []
    for move in moves:
        undone = [n for n, m in enumerate(standing) if m.change.seq == move.change.undoes]
        if undone:
            del standing[undone[0] :]  # it restored the state before that one
        else:
            standing.append(move)
    return standing


def _was_undone(entry: Entry) -> bool:
    """Whether a revert took back its addition."""
    return entry.retracted is not None and entry.retracted.undoes == entry.added.seq


def _check_not_retracted(entry: Entry) -> None:
    """Raises _NotUndone."""
    gone = entry.retracted
    if gone and gone.undoes == entry.added.seq:
        raise _undone_by(gone)
    if gone:
        raise _NotUndone(f"{gone.actor} retracted entry {entry.key} since (change {gone.seq})")


def _undone_by(change: Change, how: str = "") -> _NotUndone:
    return _NotUndone(f"change {change.seq} undid it before{how}")


def _first_state(states: Sequence[EntryState], until_us: int) -> EntryState:
    """The state in which to add an entry that then moves to the last of `states`; where that one is
    timed, the state that it returns to."""
    *before, state = states
    if not until_us:
        return state if state in FIRST_STATES else EntryState.SHADOW
    previous = (s for s in reversed(before) if s in _SEARCHED and s is not state)
    return next(previous, EntryState.SHADOW)


_SEARCHED: Final = (EntryState.ACTIVE, EntryState.SHADOW)


def _draft(entry: Entry, record: bytes, state: EntryState) -> EntryDraft:
    return EntryDraft(
        fingerprint_from_bytes(entry.key, record),
        labels=entry.labels,
        source=entry.source,
        source_id=entry.source_id,
        note=entry.note,
        state=state,
        expires_us=entry.expires_us,
        severity=entry.severity,
        aliases=entry.aliases,
        review_reasons=entry.review_reasons,
    )

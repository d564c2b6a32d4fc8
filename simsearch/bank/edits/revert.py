"""Somebody's changes taken back, by new changes: nothing is erased, and nothing that others did
since is undone.

Each change that undoes another names it (`Change.undoes`), so what was undone is not undone twice,
whatever was done to the entry afterwards. What an undoing change did can be undone itself, as long
as that is not to do again what is being undone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from simsearch.bank.edit_checks import FIRST_STATES
from simsearch.bank.edits import entries as edits
from simsearch.bank.edits.propose import four_eyes_in_force
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.log_search import Span
from simsearch.bank.records import entries as records
from simsearch.bank.records.fingerprints import fingerprint_from_bytes, fingerprint_to_bytes
from simsearch.bank.records.keys import corrupt, whole_mark
from simsearch.errors import NeedsApproval
from simsearch.types import Change, ChangeKind, Edit, EditTerms, Entry, EntryDraft, EntryState, Move

CHANGES_AT_ONCE: Final = 256
"""In one transaction, for which other edits wait."""

BYTES_AT_ONCE: Final = 32 << 20
"""Of fingerprints written anew: a transaction ends with the change that passes it."""


@dataclass(frozen=True)
class Reverted:
    """What became of one change: undone by the change `by`, or left as it is, and why. `key`: the
    entry that was banned anew; 0: none was."""

    change: Change
    by: Change | None
    why: str = ""
    key: int = 0


def revert(
    tables: Tables, span: Span, seqs: Sequence[int], edit: Edit, terms: EditTerms
) -> list[Reverted]:
    """Undoes the changes `seqs`, which the span has, in this order: the newest first. As many as
    fit into one transaction, and at least one."""
    work = _Revert(tables, span, edit, terms)
    done: list[Reverted] = []
    for seq in seqs[:CHANGES_AT_ONCE]:
        if work.written_bytes > BYTES_AT_ONCE:
            break
        [change] = tables.changes(seq - 1, 1)
        done.append(work.undo(change))
    return done


class _Stays(Exception):
    """Why a change is left as it is."""


class _Revert:
    """One transaction of a revert."""

    def __init__(self, tables: Tables, span: Span, edit: Edit, terms: EditTerms) -> None:
        self._tables = tables
        self._terms = terms
        self._span = span
        self._edit = edit
        self._banks = {bank.id: bank for bank in tables.banks()}
        self._now_us = time.time_ns() // 1000
        self.written_bytes = 0

    def undo(self, change: Change) -> Reverted:
        try:
            return self._undo(change)
        except _Stays as stays:
            return Reverted(change, None, str(stays))

    def _undo(self, change: Change) -> Reverted:
        if change.undoes and self._span.has(self._change(change.undoes)):
            raise _Stays(f"it undid change {change.undoes}, which is one of these")
        if change.entry_key and self._banks[change.bank_id].archived:
            name = self._banks[change.bank_id].name
            raise _Stays(f"bank {name!r} is archived: bring it back first")
        edit = replace(self._edit, undoes=change.seq)
        match change.kind:
            case ChangeKind.ENTRY_ADDED:
                return self._take_back(change, edit)
            case ChangeKind.ENTRY_RETRACTED:
                return self._ban_again(change, edit)
            case ChangeKind.ENTRY_MOVED:
                return self._move_back(change, edit)
            case ChangeKind.BANK_UPDATED:
                return self._restore_bank(change, edit)
            case ChangeKind.ENTRY_EXTENDED:
                raise _Stays("signals that were added stay: retract the entry and ban it anew")
            case ChangeKind.OPINION_GIVEN:
                raise _Stays("what somebody thinks stays: who thinks otherwise gives an opinion")
            case ChangeKind.BANK_EXPORTED:
                raise _Stays("what was taken out cannot be taken back")
            case ChangeKind.BANK_CREATED:
                raise _Stays("a bank cannot be unmade: archive it")
            case ChangeKind.PROPOSAL_MADE | ChangeKind.PROPOSAL_DECIDED:
                raise _Stays(f"proposal {change.proposal} does nothing by itself: reject it")

    def _check_alone(self, bank_id: int) -> None:
        """That one person is enough. Raises NeedsApproval."""
        bank = self._banks[bank_id]
        if four_eyes_in_force(bank, self._terms):
            raise NeedsApproval(
                f"bank {bank.name!r} needs a second person, and a revert is one person's: retract, "
                "move or update it one by one, or revert only what other banks hold"
            )

    # ------------------------------------------------------------ entries

    def _take_back(self, change: Change, edit: Edit) -> Reverted:
        entry = self._entry(change)
        _check_not_retracted(entry)
        self._check_alone(entry.bank_id)
        retracted = edits.retract(self._tables, self._banks[entry.bank_id], entry, edit)
        self._count(entry.bank_id, -1)
        return Reverted(change, retracted.retracted)

    def _ban_again(self, change: Change, edit: Edit) -> Reverted:
        entry = self._entry(change)
        if self._span.has(entry.added):
            raise _Stays(f"entry {entry.key} was added by one of these changes too")
        if 0 < entry.expires_us <= self._now_us:
            raise _Stays(f"the ban of entry {entry.key} would have ended by itself since")
        record = self._fingerprint(entry)
        self._check_not_banned_again(entry, record, change)
        self._check_alone(entry.bank_id)
        states, until_us = self._as_it_stood(entry)
        draft = _draft(entry, record, _first_state(states, until_us))
        added = self._add(draft, record, entry.bank_id, edit)
        by: Change | None = added.added
        if added.state is not states[-1] or until_us:
            name = self._banks[entry.bank_id].name
            _, by = edits.move_entry(self._tables, name, added.key, states[-1], until_us, edit)
        return Reverted(change, by, "the item is banned again", added.key)

    def _add(self, draft: EntryDraft, record: bytes, bank_id: int, edit: Edit) -> Entry:
        bank = self._banks[bank_id]
        added = edits.add_entry(self._tables, bank, draft, record, edit, self._now_us)
        self._count(bank_id, +1)
        self.written_bytes += len(record)
        return added

    def _fingerprint(self, entry: Entry) -> bytes:
        """All that it was banned with or given later, but for what one of these changes gave."""
        given = [change for change in entry.extended if not self._span.has(change)]
        # Protobuf reads messages that stand one after the other as one: lists are joined.
        joined = b"".join(self._tables.brought_bytes(c) for c in (entry.added, *given))
        return fingerprint_to_bytes(fingerprint_from_bytes(entry.key, joined))

    def _check_not_banned_again(self, entry: Entry, record: bytes, change: Change) -> None:
        """Raises _Stays where this was undone before, or the item was banned anew by hand."""
        marks = {whole_mark(record), whole_mark(self._tables.brought_bytes(entry.added))}
        lives = {k: v for m in marks for k, v in self._tables.marked(m, entry.bank_id)}
        for key, life in sorted(lives.items()):
            if life.born < change.seq:
                continue
            other = self._tables.entry(key)
            if other is None:
                raise corrupt(f"entry {key}", "is listed and has no record")
            undoes = other.added.undoes
            if undoes == change.seq and not _was_undone(other):
                raise _undone_by(other.added, f" as entry {key}")
            if not undoes and not self._span.has(other.added):
                raise _Stays(f"{other.added.actor} banned it anew since, as entry {key}")

    def _as_it_stood(self, entry: Entry) -> tuple[list[EntryState], int]:
        """The states that it came through, and until when it was in the last of them, but for
        these changes and for what has run out."""
        moves = _standing(entry.moves)
        while moves and (self._span.has(moves[-1].change) or self._ran_out(moves[-1].until_us)):
            moves.pop()
        states = [entry.first_state, *(move.state for move in moves)]
        return states, moves[-1].until_us if moves else 0

    def _move_back(self, change: Change, edit: Edit) -> Reverted:
        entry = self._entry(change)
        if self._span.has(entry.added):
            raise _Stays(f"entry {entry.key} was added by one of these changes too")
        _check_not_retracted(entry)
        state, until_us = self._before(entry, change)
        if self._ran_out(until_us):
            raise _Stays(f"where entry {entry.key} was before has ended by itself since")
        # What was asked once is a draft no more; a quarantined entry is not asked either.
        to = EntryState.QUARANTINED if state is EntryState.DRAFT else state
        if to is EntryState.ACTIVE and entry.state is not to:
            self._check_alone(entry.bank_id)
        name = self._banks[entry.bank_id].name
        _, by = edits.move_entry(self._tables, name, entry.key, to, until_us, edit, self._terms)
        if by is None:
            raise _Stays(f"entry {entry.key} is {to.name.lower()} already")
        if by.kind is ChangeKind.PROPOSAL_MADE:
            raise NeedsApproval(f"entry {entry.key} is held: move it by a proposal of its own")
        return Reverted(change, by, f"entry {entry.key} is {to.name.lower()}")

    def _before(self, entry: Entry, change: Change) -> tuple[EntryState, int]:
        """Where it was before this change. Raises _Stays where somebody moved it since."""
        for move in _standing([m for m in entry.moves if m.change.seq > change.seq]):
            since = move.change
            if since.undoes == change.seq:
                raise _undone_by(since)
            if not self._span.has(since):
                raise _Stays(f"{since.actor} moved it since (change {since.seq})")
        before = _standing([m for m in entry.moves if m.change.seq < change.seq])
        return (before[-1].state, before[-1].until_us) if before else (entry.first_state, 0)

    def _ran_out(self, until_us: int) -> bool:
        return 0 < until_us <= self._now_us

    # ------------------------------------------------------------ banks

    def _restore_bank(self, change: Change, edit: Edit) -> Reverted:
        [(seq, record)] = self._tables.log(change.seq - 1, 1)
        before, bank = records.bank_before(seq, record), self._banks[change.bank_id]
        if before is None:
            raise _Stays("an earlier release made it, and kept no record of the bank of before")
        if before.version + 1 not in (bank.version, bank.restores):
            raise _Stays(f"bank {bank.name!r} was changed since, or this was undone before")
        self._check_alone(bank.id)
        restored = replace(
            before,
            active_entries=bank.active_entries,
            version=bank.version + 1,
            restores=before.restores or before.version,
        )
        self._banks[bank.id] = restored
        by = edits.replace_bank(self._tables, bank, restored, edit)
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


# ---------------------------------------------------------------- what stands


def _standing(moves: Sequence[Move]) -> list[Move]:
    """Some of an entry's moves without those of them that were undone and those that undid them."""
    standing: list[Move] = []
    for move in moves:
        undone = [n for n, m in enumerate(standing) if m.change.seq == move.change.undoes]
        if undone:
            del standing[undone[0] :]  # it went to where it was before that one
        else:
            standing.append(move)
    return standing


def _was_undone(entry: Entry) -> bool:
    """Whether its ban itself was taken back by a revert."""
    return entry.retracted is not None and entry.retracted.undoes == entry.added.seq


def _check_not_retracted(entry: Entry) -> None:
    """Raises _Stays."""
    gone = entry.retracted
    if gone and gone.undoes == entry.added.seq:
        raise _undone_by(gone)
    if gone:
        raise _Stays(f"{gone.actor} retracted entry {entry.key} since (change {gone.seq})")


def _undone_by(change: Change, how: str = "") -> _Stays:
    return _Stays(f"change {change.seq} undid it before{how}")


def _first_state(states: Sequence[EntryState], until_us: int) -> EntryState:
    """In which an entry is to be added that is to come to the last of `states`: where that is for
    a time, the one that it goes back to."""
    *before, state = states
    if not until_us:
        return state if state in FIRST_STATES else EntryState.SHADOW
    asked = (s for s in reversed(before) if s in _ASKED and s is not state)
    return next(asked, EntryState.SHADOW)


_ASKED: Final = (EntryState.ACTIVE, EntryState.SHADOW)


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
        held=entry.held,
    )

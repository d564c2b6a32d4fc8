"""Edits of banks and entries: each changes a record and appends a change to the log."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from simsearch.bank.edits.propose import NO_ROWS, four_eyes_in_force, new_proposal, propose
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import hash_chain
from simsearch.bank.records.fingerprints import fingerprint_to_bytes
from simsearch.bank.records.keys import Lifetime, digest_prefix, source_mark, whole_mark
from simsearch.errors import BadRequest, BankArchived, BankChanged, BankExists, EntryRetracted
from simsearch.types import (
    NO_LIMITS,
    Bank,
    BankKind,
    BankUpdate,
    Change,
    ChangeKind,
    Edit,
    EditTerms,
    Entry,
    EntryDraft,
    EntryState,
    Fingerprint,
    Move,
    Policy,
    ProposalKind,
    ProposedRows,
    Signal,
)

SERVER_ACTOR = "simsearch"
"""The actor of automatic changes: expiry, the end of a timed state, disputes and floods."""


def create_bank(
    tables: Tables, name: str, kind: BankKind, settings: BankUpdate, edit: Edit
) -> tuple[Bank, Change]:
    """Stores a new bank and its change. Raises BankExists, LimitExceeded."""
    if tables.bank_named(name) is not None:
        raise BankExists(f"bank {name!r} exists: update it, or choose another name")
    now_us = _now_us()
    new = Bank(tables.next_bank_id(), name, "", Policy(), now_us, 1, 0, kind=kind)
    bank = _updated(new, settings)
    tables.put_bank(bank)
    change = tables.next_change(ChangeKind.BANK_CREATED, bank.id, 0, edit, now_us)
    return bank, tables.append_change(change, hash_chain.content_of_bank(bank))


def update_bank(
    tables: Tables,
    name: str,
    update: BankUpdate,
    etag: str,
    edit: Edit,
    terms: EditTerms = NO_LIMITS,
) -> tuple[Bank, Change]:
    """The updated bank and its change; or, where a second person is needed, the unchanged bank and
    the change that proposes the update."""
    bank = tables.bank_or_raise(name)
    if etag and etag != bank.etag:
        raise BankChanged(f"bank {name!r} is at {bank.etag}, not at {etag}: read it again first")
    updated = updated_bank(bank, update)
    if bank.archived and updated.archived:
        raise _archived(bank)
    if four_eyes_in_force(bank, terms):
        proposal = new_proposal(bank, ProposalKind.BANK_UPDATE, edit)
        proposal = replace(proposal, update=update, etag=bank.etag)
        return bank, propose(tables, proposal, NO_ROWS, edit, edits=1)
    return updated, replace_bank(tables, bank, updated, edit)


def updated_bank(bank: Bank, update: BankUpdate) -> Bank:
    """The bank with the update applied, at the next version."""
    return _updated(replace(bank, version=bank.version + 1, restores=0), update)


def _updated(bank: Bank, update: BankUpdate) -> Bank:
    changed = {name: value for name, value in vars(update).items() if value is not None}
    return replace(bank, **changed)


def editable_bank(tables: Tables, name: str) -> Bank:
    """Raises BankNotFound, BankArchived."""
    bank = tables.bank_or_raise(name)
    if bank.archived:
        raise _archived(bank)
    return bank


def _archived(bank: Bank) -> BankArchived:
    return BankArchived(f"bank {bank.name!r} is archived: bring it back first, or use another one")


def replace_bank(tables: Tables, before: Bank, after: Bank, edit: Edit) -> Change:
    """Stores the bank; its change keeps the settings of before, for a revert."""
    tables.put_bank(after)
    change = tables.next_change(ChangeKind.BANK_UPDATED, after.id, 0, edit, _now_us())
    return tables.append_change(change, hash_chain.content_of_bank(after), before)


def add_entries(
    tables: Tables,
    bank_name: str,
    drafts: Sequence[EntryDraft],
    fingerprints: Sequence[bytes],
    edit: Edit,
    terms: EditTerms = NO_LIMITS,
) -> list[Entry]:
    """Adds entries. `fingerprints` are the serialised fingerprints of the drafts, made before the
    transaction. Entries that need a second person are stored as DRAFT, under one proposal; a draft
    with `review_reasons` gets a proposal of its own."""
    bank = editable_bank(tables, bank_name)
    adding = _AddTransaction(tables, bank, edit, four_eyes=four_eyes_in_force(bank, terms))
    entries = [adding.add(*each) for each in zip(drafts, fingerprints, strict=True)]
    adding.finish()
    tables.put_bank(replace(bank, active_entries=bank.active_entries + len(entries)))
    return entries


_SEARCHED = (EntryState.ACTIVE, EntryState.SHADOW, EntryState.DISPUTED)


class _AddTransaction:
    """Adds entries to one bank within one transaction."""

    def __init__(self, tables: Tables, bank: Bank, edit: Edit, *, four_eyes: bool) -> None:
        self._tables = tables
        self._bank = bank
        self._edit = edit
        self._four_eyes = four_eyes
        self._now_us = _now_us()
        self._together: list[int] = []
        self._number = 0

    def add(self, draft: EntryDraft, fingerprint: bytes) -> Entry:
        if draft.review_reasons and draft.state in _SEARCHED:
            number = self._tables.next_proposal_id()
            entry = self._add_waiting(draft, fingerprint, number)
            proposal = new_proposal(self._bank, ProposalKind.MOVE, self._edit, number)
            proposal = replace(proposal, to=draft.state, review_reasons=draft.review_reasons)
            propose(self._tables, proposal, ProposedRows((entry.key,)), self._edit)
            return entry
        if self._four_eyes and draft.state is EntryState.ACTIVE:
            self._number = self._number or self._tables.next_proposal_id()
            entry = self._add_waiting(draft, fingerprint, self._number)
            self._together.append(entry.key)
            return entry
        return add_entry(self._tables, self._bank, draft, fingerprint, self._edit, self._now_us)

    def finish(self) -> None:
        if self._together:
            proposal = new_proposal(self._bank, ProposalKind.MOVE, self._edit, self._number)
            propose(self._tables, proposal, ProposedRows(tuple(self._together)), self._edit)

    def _add_waiting(self, draft: EntryDraft, fingerprint: bytes, number: int) -> Entry:
        """Stores it as DRAFT, or QUARANTINED where a DRAFT may not move to its intended state."""
        goes = draft.state in MOVES[EntryState.DRAFT]
        waiting = replace(draft, state=EntryState.DRAFT if goes else EntryState.QUARANTINED)
        edit = replace(self._edit, proposal=number)
        return add_entry(self._tables, self._bank, waiting, fingerprint, edit, self._now_us)


def add_entry(
    tables: Tables, bank: Bank, draft: EntryDraft, fingerprint: bytes, edit: Edit, now_us: int
) -> Entry:
    """Adds one entry; the caller updates the bank's count."""
    key = tables.next_entry_key()
    change = tables.next_change(ChangeKind.ENTRY_ADDED, bank.id, key, edit, now_us)
    entry = _entry(draft, change)
    tables.append_change(change, hash_chain.content_of_entry(entry, fingerprint))
    tables.put_entry(entry)
    tables.put_fingerprint(key, fingerprint)
    marks = marks_of(entry, fingerprint, draft.fingerprint)
    tables.put_lifetime(key, Lifetime(bank.id, change.seq), marks)
    if entry.expires_us:
        tables.put_due(entry.expires_us, key)
    return entry


def marks_of(entry: Entry, record: bytes, fingerprint: Fingerprint) -> Iterator[bytes]:
    """The index keys of an entry: its digests, its whole fingerprint, and its source's ids."""
    yield from _digest_marks(fingerprint)
    yield whole_mark(record)
    for source_id in dict.fromkeys((entry.source_id, *entry.aliases)):
        if source_id:
            yield source_mark(entry.source, source_id)


def _digest_marks(fingerprint: Fingerprint) -> Iterator[bytes]:
    for signal, values in fingerprint.digests.items():
        for digest in values:
            yield digest_prefix(signal, digest)


def retract_entry(
    tables: Tables, bank_name: str, key: int, edit: Edit, terms: EditTerms = NO_LIMITS
) -> tuple[Entry, Change]:
    """The retracted entry and its change; or, where a second person is needed, the unchanged entry
    and the change that proposes the retraction."""
    bank = editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    if entry.state is EntryState.RETRACTED:
        raise EntryRetracted(f"entry {key} of bank {bank_name!r} is retracted already")
    if four_eyes_in_force(bank, terms):
        proposal = new_proposal(bank, ProposalKind.RETRACTION, edit)
        rows = ProposedRows(retracted=(key,))
        return entry, propose(tables, proposal, rows, edit, edits=1)
    retracted = retract(tables, bank, entry, edit)
    tables.put_bank(replace(bank, active_entries=bank.active_entries - 1))
    return retracted, retracted.last


def retract(tables: Tables, bank: Bank, entry: Entry, edit: Edit) -> Entry:
    """Retracts an entry; the caller updates the bank's count."""
    _end_review(tables, entry)
    key = entry.key
    change = tables.append_change(
        tables.next_change(ChangeKind.ENTRY_RETRACTED, bank.id, key, edit, _now_us())
    )
    retracted = replace(entry, state=EntryState.RETRACTED, retracted=change)
    tables.put_entry(retracted)
    record = tables.change_fingerprint_bytes(entry.added)
    marks = marks_of(entry, record, tables.fingerprint_or_raise(key, change.seq))
    tables.put_lifetime(key, Lifetime(bank.id, entry.added.seq, change.seq), marks)
    return retracted


MOVES: Mapping[EntryState, Collection[EntryState]] = {
    EntryState.DRAFT: (EntryState.SHADOW, EntryState.ACTIVE),
    EntryState.SHADOW: (EntryState.ACTIVE, EntryState.DISPUTED, EntryState.QUARANTINED),
    EntryState.ACTIVE: (EntryState.SHADOW, EntryState.DISPUTED, EntryState.QUARANTINED),
    EntryState.DISPUTED: (EntryState.SHADOW, EntryState.ACTIVE, EntryState.QUARANTINED),
    EntryState.QUARANTINED: (EntryState.SHADOW, EntryState.ACTIVE, EntryState.DISPUTED),
}
"""The states that an entry may move to from each state. None leads back to DRAFT."""


def move_entry(
    tables: Tables,
    bank_name: str,
    key: int,
    state: EntryState,
    until_us: int,
    edit: Edit,
    terms: EditTerms = NO_LIMITS,
) -> tuple[Entry, Change | None]:
    """The moved entry and its change; no change where it is in that state already. Where a second
    person is needed, the unchanged entry and the change that proposes the move."""
    bank = editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    if entry.state is state and entry.until_us == until_us:
        return entry, None
    check_move(entry, state, until_us)
    four_eyes = four_eyes_in_force(bank, terms) and _becomes_active(entry, state, until_us)
    if four_eyes or _needs_review(entry, state, until_us):
        proposal = new_proposal(bank, ProposalKind.MOVE, edit)
        proposal = replace(
            proposal, to=state, until_us=until_us, review_reasons=entry.review_reasons
        )
        return entry, propose(tables, proposal, ProposedRows((key,)), edit, edits=1)
    return apply_move(tables, entry, state, until_us, edit)


def check_move(entry: Entry, state: EntryState, until_us: int) -> None:
    """Raises EntryRetracted, BadRequest."""
    key = entry.key
    if entry.state is EntryState.RETRACTED:
        raise EntryRetracted(f"entry {key} is retracted: ban the item anew")
    if entry.state is state and entry.until_us == until_us:
        raise BadRequest(f"entry {key} is {_word(state)} already")
    if state is not entry.state and state not in MOVES[entry.state]:
        raise BadRequest(
            f"entry {key} is {_word(entry.state)} and cannot become {_word(state)}: it can become "
            + " or ".join(map(_word, MOVES[entry.state]))
        )
    if until_us and until_us <= _now_us():
        raise BadRequest("until lies in the past: give a time to come, or leave it out")


def _becomes_active(entry: Entry, state: EntryState, until_us: int) -> bool:
    """Whether it becomes ACTIVE, at once or when `until_us` has passed."""
    if state is EntryState.ACTIVE:
        return True
    states = [*_state_history(entry), state]
    return (
        bool(until_us)
        and entry.state is not EntryState.ACTIVE
        and _previous_state(states) is (EntryState.ACTIVE)
    )


def _needs_review(entry: Entry, state: EntryState, until_us: int) -> bool:
    """Whether its `review_reasons` demand a second person's approval of this move."""
    if not entry.review_reasons or EntryState.ACTIVE in _state_history(entry):
        return False
    counts = state is EntryState.DISPUTED or _becomes_active(entry, state, until_us)
    return entry.state is EntryState.DRAFT or counts


def apply_move(
    tables: Tables, entry: Entry, state: EntryState, until_us: int, edit: Edit
) -> tuple[Entry, Change]:
    """Moves an entry without checks. A DISPUTED entry, and one that the server quarantined, is on
    the review queue until it moves again."""
    _end_review(tables, entry)
    change = tables.append_change(
        tables.next_change(ChangeKind.ENTRY_MOVED, entry.bank_id, entry.key, edit, _now_us()),
        hash_chain.content_of_move(state, until_us),
    )
    gone = replace(entry, state=state, moves=(*entry.moves, Move(state, change, until_us)))
    tables.put_entry(gone)
    if until_us:
        tables.put_due(until_us, entry.key)
    by_itself = state is EntryState.QUARANTINED and edit.actor == SERVER_ACTOR
    if by_itself or state is EntryState.DISPUTED:
        tables.put_review(change.seq, entry.key)
    return gone, change


def _end_review(tables: Tables, entry: Entry) -> None:
    if entry.moves:
        tables.drop_review(entry.moves[-1].change.seq, entry.key)


def apply_due(tables: Tables, now_us: int, limit: int) -> int:
    """Applies up to `limit` scheduled changes that are due; returns how many it examined."""
    due = tables.due(now_us, limit)
    banks = {bank.id: bank for bank in tables.banks()} if due else {}
    for time_us, key in due:
        tables.drop_due(time_us, key)
        entry = tables.entry(key)
        if entry is None or entry.state is EntryState.RETRACTED:
            continue
        if entry.expires_us == time_us:
            bank = banks[entry.bank_id]
            retract(tables, bank, entry, Edit(SERVER_ACTOR, "it was banned until now"))
            banks[bank.id] = replace(bank, active_entries=bank.active_entries - 1)
            tables.put_bank(banks[bank.id])
        elif entry.until_us == time_us:
            edit = Edit(SERVER_ACTOR, f"it was {_word(entry.state)} until now")
            apply_move(tables, entry, _previous_state(_state_history(entry)), 0, edit)
    return len(due)


def _state_history(entry: Entry) -> list[EntryState]:
    """All states of the entry, oldest first; the last is the current one."""
    return [entry.first_state, *(move.state for move in entry.moves)]


def _previous_state(states: Sequence[EntryState]) -> EntryState:
    """The newest state that differs from the current one."""
    return next((s for s in reversed(states) if s is not states[-1]), EntryState.ACTIVE)


def _word(state: EntryState) -> str:
    return state.name.lower()


def extend_entry(
    tables: Tables, bank_name: str, key: int, fingerprint: Fingerprint, edit: Edit
) -> tuple[Entry, Fingerprint]:
    """The extended entry, and the part of `fingerprint` that it lacked; empty: nothing was
    written."""
    bank = editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    if entry.state is EntryState.RETRACTED:
        raise EntryRetracted(f"entry {key} of bank {bank_name!r} is retracted: ban the item anew")
    new = _without(fingerprint, tables.fingerprint_or_raise(key, tables.seq()))
    if not new.rows():
        return entry, new
    record = fingerprint_to_bytes(new)
    change = tables.append_change(
        tables.next_change(ChangeKind.ENTRY_EXTENDED, bank.id, key, edit, _now_us()),
        hash_chain.content_of_extension(record),
    )
    extended = replace(
        entry, signals={**entry.signals, **new.rows()}, extended=(*entry.extended, change)
    )
    tables.put_entry(extended)
    tables.put_extension(key, change.seq, record)
    tables.put_lifetime(key, Lifetime(bank.id, entry.added.seq), _digest_marks(new))
    return extended, new


_DIGESTS_OF_FORMS = (Signal.TEXT_LIGHT_SHA256, Signal.TEXT_STRONG_SHA256)


def _without(fingerprint: Fingerprint, had: Fingerprint) -> Fingerprint:
    """The signals that `had` lacks. Of digests only those of the forms of texts: the others
    identify the entry, so they stay as they were when it was added."""
    return Fingerprint(
        digests={
            s: values
            for s, values in fingerprint.digests.items()
            if s in _DIGESTS_OF_FORMS and s not in had.digests
        },
        bits={s: rows for s, rows in fingerprint.bits.items() if s not in had.bits and len(rows)},
        vectors={
            s: rows for s, rows in fingerprint.vectors.items() if s not in had.vectors and len(rows)
        },
    )


def _entry(draft: EntryDraft, added: Change) -> Entry:
    return Entry(
        key=added.entry_key,
        bank_id=added.bank_id,
        state=draft.state,
        labels=tuple(draft.labels),
        source=draft.source,
        source_id=draft.source_id,
        note=draft.note,
        signals={signal: rows for signal, rows in draft.fingerprint.rows().items() if rows},
        added=added,
        first_state=draft.state,
        expires_us=draft.expires_us,
        severity=draft.severity,
        aliases=tuple(draft.aliases),
        review_reasons=tuple(draft.review_reasons),
    )


def _now_us() -> int:
    return time.time_ns() // 1000

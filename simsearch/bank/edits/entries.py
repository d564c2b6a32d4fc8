"""The edits, each inside one transaction: a record changes, the log gets a change."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from simsearch.bank.edits.propose import NO_ROWS, asked, four_eyes_in_force, propose
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import hash_chain
from simsearch.bank.records.fingerprints import fingerprint_from_bytes, fingerprint_to_bytes
from simsearch.bank.records.keys import Life, digest_prefix, source_mark, whole_mark
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
)

ITSELF = "simsearch"
"""Who signs what happens without a person: because its time has come, or enough people doubt it."""


def create_bank(
    tables: Tables, name: str, kind: BankKind, settings: BankUpdate, edit: Edit
) -> tuple[Bank, Change]:
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
    """The bank as it is and the change that proposes it, where that waits for a second person."""
    bank = tables.bank_or_raise(name)
    if etag and etag != bank.etag:
        raise BankChanged(f"bank {name!r} is at {bank.etag}, not at {etag}: read it again first")
    updated = updated_bank(bank, update)
    if bank.archived and updated.archived:
        raise _archived(bank)
    if four_eyes_in_force(bank, terms):
        wanted = asked(bank, ProposalKind.BANK_UPDATE, edit)
        wanted = replace(wanted, update=update, etag=bank.etag)
        return bank, propose(tables, wanted, NO_ROWS, edit, edits=1)
    return updated, replace_bank(tables, bank, updated, edit)


def updated_bank(bank: Bank, update: BankUpdate) -> Bank:
    return _updated(replace(bank, version=bank.version + 1, restores=0), update)


def _updated(bank: Bank, update: BankUpdate) -> Bank:
    said = {name: value for name, value in vars(update).items() if value is not None}
    return replace(bank, **said)


def editable_bank(tables: Tables, name: str) -> Bank:
    """Raises BankNotFound, BankArchived."""
    bank = tables.bank_or_raise(name)
    if bank.archived:
        raise _archived(bank)
    return bank


def _archived(bank: Bank) -> BankArchived:
    return BankArchived(f"bank {bank.name!r} is archived: bring it back first, or use another one")


def replace_bank(tables: Tables, before: Bank, after: Bank, edit: Edit) -> Change:
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
    """`fingerprints` are the records of the drafts' fingerprints, made before the transaction. What
    waits for a second person is a DRAFT until then: all of it as one proposal, which the changes
    that added it name, but for what is held, each as one of its own."""
    bank = editable_bank(tables, bank_name)
    adding = _Adding(tables, bank, edit, four_eyes=four_eyes_in_force(bank, terms))
    entries = [adding.add(*each) for each in zip(drafts, fingerprints, strict=True)]
    adding.finish()
    tables.put_bank(replace(bank, active_entries=bank.active_entries + len(entries)))
    return entries


_ASKED = (EntryState.ACTIVE, EntryState.SHADOW, EntryState.DISPUTED)


class _Adding:
    """One transaction of new entries."""

    def __init__(self, tables: Tables, bank: Bank, edit: Edit, *, four_eyes: bool) -> None:
        self._tables = tables
        self._bank = bank
        self._edit = edit
        self._four_eyes = four_eyes
        self._now_us = _now_us()
        self._together: list[int] = []
        self._number = 0

    def add(self, draft: EntryDraft, fingerprint: bytes) -> Entry:
        if draft.held and draft.state in _ASKED:
            number = self._tables.next_proposal_id()
            entry = self._add_waiting(draft, fingerprint, number)
            wanted = asked(self._bank, ProposalKind.MOVE, self._edit, number)
            wanted = replace(wanted, to=draft.state, held=draft.held)
            propose(self._tables, wanted, ProposedRows((entry.key,)), self._edit)
            return entry
        if self._four_eyes and draft.state is EntryState.ACTIVE:
            self._number = self._number or self._tables.next_proposal_id()
            entry = self._add_waiting(draft, fingerprint, self._number)
            self._together.append(entry.key)
            return entry
        return add_entry(self._tables, self._bank, draft, fingerprint, self._edit, self._now_us)

    def finish(self) -> None:
        if self._together:
            wanted = asked(self._bank, ProposalKind.MOVE, self._edit, self._number)
            propose(self._tables, wanted, ProposedRows(tuple(self._together)), self._edit)

    def _add_waiting(self, draft: EntryDraft, fingerprint: bytes, number: int) -> Entry:
        """As a draft, or in quarantine where no draft may go to what it is to be."""
        goes = draft.state in MOVES[EntryState.DRAFT]
        waiting = replace(draft, state=EntryState.DRAFT if goes else EntryState.QUARANTINED)
        edit = replace(self._edit, proposal=number)
        return add_entry(self._tables, self._bank, waiting, fingerprint, edit, self._now_us)


def add_entry(
    tables: Tables, bank: Bank, draft: EntryDraft, fingerprint: bytes, edit: Edit, now_us: int
) -> Entry:
    """All but the bank's count."""
    key = tables.next_entry_key()
    change = tables.next_change(ChangeKind.ENTRY_ADDED, bank.id, key, edit, now_us)
    entry = _entry(draft, change)
    tables.append_change(change, hash_chain.content_of_entry(entry, fingerprint))
    tables.put_entry(entry)
    tables.put_fingerprint(key, fingerprint)
    marks = marks_of(entry, fingerprint, draft.fingerprint)
    tables.put_life(key, Life(bank.id, change.seq), marks)
    if entry.expires_us:
        tables.put_due(entry.expires_us, key)
    return entry


def marks_of(entry: Entry, record: bytes, fingerprint: Fingerprint) -> Iterator[bytes]:
    """What an entry is found by: each digest, its whole fingerprint, and its source's ids."""
    for signal, values in fingerprint.digests.items():
        for digest in values:
            yield digest_prefix(signal, digest)
    yield whole_mark(record)
    for source_id in dict.fromkeys((entry.source_id, *entry.aliases)):
        if source_id:
            yield source_mark(entry.source, source_id)


def retract_entry(
    tables: Tables, bank_name: str, key: int, edit: Edit, terms: EditTerms = NO_LIMITS
) -> tuple[Entry, Change]:
    """The entry as it is and the change that proposes it, where that waits for a second person."""
    bank = editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    if entry.state is EntryState.RETRACTED:
        raise EntryRetracted(f"entry {key} of bank {bank_name!r} is retracted already")
    if four_eyes_in_force(bank, terms):
        wanted = asked(bank, ProposalKind.RETRACTION, edit)
        rows = ProposedRows(retracted=(key,))
        return entry, propose(tables, wanted, rows, edit, edits=1)
    retracted = retract(tables, bank, entry, edit)
    tables.put_bank(replace(bank, active_entries=bank.active_entries - 1))
    return retracted, retracted.last


def retract(tables: Tables, bank: Bank, entry: Entry, edit: Edit) -> Entry:
    """All but the bank's count."""
    _end_review(tables, entry)
    key = entry.key
    change = tables.append_change(
        tables.next_change(ChangeKind.ENTRY_RETRACTED, bank.id, key, edit, _now_us())
    )
    retracted = replace(entry, state=EntryState.RETRACTED, retracted=change)
    tables.put_entry(retracted)
    record = tables.brought_bytes(entry.added)
    marks = marks_of(entry, record, fingerprint_from_bytes(key, record))
    tables.put_life(key, Life(bank.id, entry.added.seq, change.seq), marks)
    return retracted


MOVES: Mapping[EntryState, Collection[EntryState]] = {
    EntryState.DRAFT: (EntryState.SHADOW, EntryState.ACTIVE),
    EntryState.SHADOW: (EntryState.ACTIVE, EntryState.DISPUTED, EntryState.QUARANTINED),
    EntryState.ACTIVE: (EntryState.SHADOW, EntryState.DISPUTED, EntryState.QUARANTINED),
    EntryState.DISPUTED: (EntryState.SHADOW, EntryState.ACTIVE, EntryState.QUARANTINED),
    EntryState.QUARANTINED: (EntryState.SHADOW, EntryState.ACTIVE, EntryState.DISPUTED),
}
"""Where an entry may go from each state. Whatever was asked once is a draft no more."""


def move_entry(
    tables: Tables,
    bank_name: str,
    key: int,
    state: EntryState,
    until_us: int,
    edit: Edit,
    terms: EditTerms = NO_LIMITS,
) -> tuple[Entry, Change | None]:
    """No change, where the entry is there already; the change that proposes it, where that waits
    for a second person."""
    bank = editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    if entry.state is state and entry.until_us == until_us:
        return entry, None
    check_move(entry, state, until_us)
    four_eyes = four_eyes_in_force(bank, terms) and _comes_to_count(entry, state, until_us)
    if four_eyes or _is_held(entry, state, until_us):
        wanted = asked(bank, ProposalKind.MOVE, edit)
        wanted = replace(wanted, to=state, until_us=until_us, held=entry.held)
        return entry, propose(tables, wanted, ProposedRows((key,)), edit, edits=1)
    return moved(tables, entry, state, until_us, edit)


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


def _comes_to_count(entry: Entry, state: EntryState, until_us: int) -> bool:
    """Whether it becomes ACTIVE, at once or by itself once `until_us` has come."""
    if state is EntryState.ACTIVE:
        return True
    states = [*_states(entry), state]
    return (
        bool(until_us)
        and entry.state is not EntryState.ACTIVE
        and _other(states) is (EntryState.ACTIVE)
    )


def _is_held(entry: Entry, state: EntryState, until_us: int) -> bool:
    """Whether it says too little to be asked before a second person has said so."""
    if not entry.held or EntryState.ACTIVE in _states(entry):
        return False
    counts = state is EntryState.DISPUTED or _comes_to_count(entry, state, until_us)
    return entry.state is EntryState.DRAFT or counts


def moved(
    tables: Tables, entry: Entry, state: EntryState, until_us: int, edit: Edit
) -> tuple[Entry, Change]:
    """Whether it may go there is known. What is doubted, and what the server itself put into
    quarantine, is under review until it moves again."""
    _end_review(tables, entry)
    change = tables.append_change(
        tables.next_change(ChangeKind.ENTRY_MOVED, entry.bank_id, entry.key, edit, _now_us()),
        hash_chain.content_of_move(state, until_us),
    )
    gone = replace(entry, state=state, moves=(*entry.moves, Move(state, change, until_us)))
    tables.put_entry(gone)
    if until_us:
        tables.put_due(until_us, entry.key)
    by_itself = state is EntryState.QUARANTINED and edit.actor == ITSELF
    if by_itself or state is EntryState.DISPUTED:
        tables.put_review(change.seq, entry.key)
    return gone, change


def _end_review(tables: Tables, entry: Entry) -> None:
    if entry.moves:
        tables.drop_review(entry.moves[-1].change.seq, entry.key)


def settle_due(tables: Tables, now_us: int, limit: int) -> int:
    """What was to happen by itself by now; returns how much of it was looked at."""
    due = tables.due(now_us, limit)
    banks = {bank.id: bank for bank in tables.banks()} if due else {}
    for time_us, key in due:
        tables.drop_due(time_us, key)
        entry = tables.entry(key)
        if entry is None or entry.state is EntryState.RETRACTED:
            continue
        if entry.expires_us == time_us:
            bank = banks[entry.bank_id]
            retract(tables, bank, entry, Edit(ITSELF, "it was banned until now"))
            banks[bank.id] = replace(bank, active_entries=bank.active_entries - 1)
            tables.put_bank(banks[bank.id])
        elif entry.until_us == time_us:
            edit = Edit(ITSELF, f"it was {_word(entry.state)} until now")
            moved(tables, entry, _other(_states(entry)), 0, edit)
    return len(due)


def _states(entry: Entry) -> list[EntryState]:
    """All that it was in, the last of them its own."""
    return [entry.first_state, *(move.state for move in entry.moves)]


def _other(states: Sequence[EntryState]) -> EntryState:
    """The last that was another than the last."""
    return next((s for s in reversed(states) if s is not states[-1]), EntryState.ACTIVE)


def _word(state: EntryState) -> str:
    return state.name.lower()


def extend_entry(
    tables: Tables, bank_name: str, key: int, fingerprint: Fingerprint, edit: Edit
) -> tuple[Entry, Fingerprint]:
    """The entry, and the part of `fingerprint` that was new to it; empty: nothing was written."""
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
    return extended, new


def _without(fingerprint: Fingerprint, had: Fingerprint) -> Fingerprint:
    """The spaces and binary signals that `had` lacks. No digests: they are what an entry is
    recognised by, so they stay as they were when it was banned."""
    return Fingerprint(
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
        held=tuple(draft.held),
    )


def _now_us() -> int:
    return time.time_ns() // 1000

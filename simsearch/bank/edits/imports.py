"""Lists into a bank: what is new is added, what is withdrawn taken back, and nothing twice.

A part of an import is one transaction, and what became of its rows is written with it: a part that
is sent again, because its answer was lost or its sender was killed, is answered and not done again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from simsearch.bank.edits.entries import add_entry, editable_bank, retract
from simsearch.bank.edits.propose import asked, four_eyes_in_force, number_of, propose
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records.keys import NEVER, digest_prefix, source_mark, whole_mark
from simsearch.errors import BadRequest
from simsearch.storage.v1 import records_pb2 as pb
from simsearch.types import (
    Bank,
    Edit,
    EditTerms,
    EntryDraft,
    EntryState,
    Proposal,
    ProposalKind,
    ProposedRows,
    Signal,
)

SAME_CONTENT: Final = (Signal.SHA256, Signal.TEXT_SHA256)
"""Digests of which one is enough to say that an item is there already."""


class RowOutcome(IntEnum):
    """What became of a row; for ever, like field numbers."""

    ADDED = 1
    DUPLICATE = 2
    """The bank has it, and keeps it as it is."""
    TOMBSTONE = 3
    """The bank had it and took it back: it is not banned again by a list."""
    WITHDRAWN = 4
    """The source takes it back, and so did the bank."""
    ABSENT = 5
    """The source takes it back, and the bank has nothing of the kind."""
    HELD = 7  # 6 is, on the wire, a row that cannot be used
    """The source takes it back, and the bank will once a second person says so."""


@dataclass(frozen=True)
class ImportItem:
    """A row. What is `withdrawn` may have no fingerprint: then its source's ids say what it is."""

    draft: EntryDraft
    withdrawn: bool = False


@dataclass(frozen=True)
class ImportedPart:
    """Of each row what became of it, and the entry that it became, that it repeats, or that it took
    back (0: none). `seq` is the last change; 0: nothing was written. `repeated`: it was done
    before, and this is what was found then."""

    outcomes: tuple[RowOutcome, ...]
    keys: tuple[int, ...]
    seq: int
    repeated: bool = False
    proposal: int = 0
    """What was added and held waits for it; 0: nothing does."""


def import_part(
    tables: Tables,
    bank_name: str,
    import_id: str,
    part: int,
    items: Sequence[ImportItem],
    fingerprints: Sequence[bytes],
    edit: Edit,
    *,
    revive: bool,
    terms: EditTerms,
) -> ImportedPart:
    """`fingerprints` are the records of the items' fingerprints."""
    bank = editable_bank(tables, bank_name)
    content = _content(bank, items, fingerprints)
    before = tables.import_part(import_id, part)
    if before is not None:
        return _as_it_was(before, content, part)
    work = _Part(tables, bank, edit, revive, import_id if four_eyes_in_force(bank, terms) else "")
    for item, fingerprint in zip(items, fingerprints, strict=True):
        work.take(item, fingerprint)
    return work.finish(import_id, part, content)


class _Part:
    """One part on its way through the tables."""

    def __init__(
        self, tables: Tables, bank: Bank, edit: Edit, revive: bool, waiting_as: str
    ) -> None:
        """`waiting_as`: the import whose proposal its rows wait for; empty: for none."""
        self._wanted = replace(asked(bank, ProposalKind.IMPORT, edit), import_id=waiting_as)
        self._moved: list[int] = []
        self._retracted: list[int] = []
        self._tables = tables
        self._bank = bank
        self._edit = edit
        self._revive = revive
        self._now_us = time.time_ns() // 1000
        self._begun_at = tables.seq()
        self._living = 0
        self._outcomes: list[RowOutcome] = []
        self._keys: list[int] = []

    def take(self, item: ImportItem, fingerprint: bytes) -> None:
        found, key = (
            self._take_back(item, fingerprint)
            if item.withdrawn
            else self._take_in(item.draft, fingerprint)
        )
        self._outcomes.append(found)
        self._keys.append(key)

    def finish(self, import_id: str, part: int, content: bytes) -> ImportedPart:
        if self._living:
            active = self._bank.active_entries + self._living
            self._tables.put_bank(replace(self._bank, active_entries=active))
        rows = ProposedRows(tuple(self._moved), tuple(self._retracted))
        if len(rows):
            held = len(rows.retracted)
            propose(self._tables, self._waiting(), rows, self._edit, edits=held)
        end = self._tables.seq()
        seq = end if end > self._begun_at else 0
        record = pb.ImportPartRecord(
            content=content,
            outcomes=bytes(self._outcomes),
            keys=self._keys,
            seq=seq,
            proposal=self._wanted.id,
        )
        self._tables.put_import_part(import_id, part, record)
        return ImportedPart(tuple(self._outcomes), tuple(self._keys), seq, proposal=self._wanted.id)

    def _waiting(self) -> Proposal:
        """The proposal that this import's rows wait for; it has its number from the first."""
        if not self._wanted.id:
            self._wanted = replace(self._wanted, id=number_of(self._tables, self._wanted))
        return self._wanted

    def _take_in(self, draft: EntryDraft, fingerprint: bytes) -> tuple[RowOutcome, int]:
        living, dead = self._find(_marks_of_content(draft, fingerprint))
        if living:
            return RowOutcome.DUPLICATE, living
        if dead and not self._revive:
            return RowOutcome.TOMBSTONE, dead
        edit, waits = self._edit, self._waits and draft.state is EntryState.ACTIVE
        if waits:
            draft = replace(draft, state=EntryState.DRAFT)
            edit = replace(edit, proposal=self._waiting().id)
        entry = add_entry(self._tables, self._bank, draft, fingerprint, edit, self._now_us)
        self._living += 1
        if waits:
            self._moved.append(entry.key)
        return RowOutcome.ADDED, entry.key

    @property
    def _waits(self) -> bool:
        return bool(self._wanted.import_id)

    def _take_back(self, item: ImportItem, fingerprint: bytes) -> tuple[RowOutcome, int]:
        """Every entry of this source that is the same, or that the source names so. What others
        banned is theirs to take back."""
        found = {
            key
            for mark in _marks_of_row(item.draft, fingerprint)
            for key, life in self._tables.marked(mark, self._bank.id)
            if life.retired == NEVER
        }
        entries = [self._tables.entry_or_raise(self._bank, key) for key in sorted(found)]
        own = [entry for entry in entries if entry.source == item.draft.source]
        if own and self._waits:
            self._waiting()
            self._retracted += [entry.key for entry in own]
            return RowOutcome.HELD, own[-1].key
        for entry in own:
            retract(self._tables, self._bank, entry, self._edit)
            self._living -= 1
        return (RowOutcome.WITHDRAWN, own[-1].key) if own else (RowOutcome.ABSENT, 0)

    def _find(self, marks: Iterator[bytes]) -> tuple[int, int]:
        """The oldest living entry that has one of the marks, and the newest dead one; 0: none."""
        dead = 0
        for mark in marks:
            for key, life in self._tables.marked(mark, self._bank.id):
                if life.retired == NEVER:
                    return key, dead
                dead = max(dead, key)
        return 0, dead


def _marks_of_content(draft: EntryDraft, fingerprint: bytes) -> Iterator[bytes]:
    if fingerprint:
        yield whole_mark(fingerprint)
    for signal in SAME_CONTENT:
        for digest in draft.fingerprint.digests.get(signal, ()):
            yield digest_prefix(signal, digest)


def _marks_of_row(draft: EntryDraft, fingerprint: bytes) -> Iterator[bytes]:
    yield from _marks_of_content(draft, fingerprint)
    for source_id in (draft.source_id, *draft.aliases):
        if source_id:
            yield source_mark(draft.source, source_id)


def _content(bank: Bank, items: Sequence[ImportItem], fingerprints: Sequence[bytes]) -> bytes:
    """What tells one part from another that is sent under its name."""
    whole = hashlib.sha256(bank.name.encode())
    for item, fingerprint in zip(items, fingerprints, strict=True):
        draft = item.draft
        said = (item.withdrawn, draft.source, draft.source_id, draft.labels, int(draft.state))
        # A vector that is computed again may differ in the last bit; a digest does not.
        known = [d for s in SAME_CONTENT for d in draft.fingerprint.digests.get(s, ())]
        what = b"".join(known) or fingerprint
        whole.update(f"{len(what)} {said!r}".encode())
        whole.update(what)
    return whole.digest()


def _as_it_was(record: pb.ImportPartRecord, content: bytes, part: int) -> ImportedPart:
    if record.content != content:
        raise BadRequest(
            f"part {part} of this import held other rows: give another import_id to another list"
        )
    outcomes = tuple(map(RowOutcome, record.outcomes))
    keys = tuple(record.keys)
    return ImportedPart(outcomes, keys, record.seq, repeated=True, proposal=record.proposal)

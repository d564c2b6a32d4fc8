"""List imports: adds new rows, retracts withdrawn ones, and skips duplicates.

A part of an import is one transaction, which also stores the outcome of each row. So a part that is
sent again, because the answer was lost or the sender was killed, is answered from the store.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from simsearch.bank.edits.entries import add_entry, editable_bank, retract
from simsearch.bank.edits.propose import four_eyes_in_force, new_proposal, proposal_id_for, propose
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

SAME_CONTENT: Final = (Signal.SHA256, Signal.TEXT_LIGHT_SHA256, Signal.TEXT_SHA256)
"""Digests of which one equal value makes an item a duplicate."""


class RowOutcome(IntEnum):
    """The outcome of a row. The numbers are on disk and never change."""

    ADDED = 1
    DUPLICATE = 2
    """The bank has it already; it was left unchanged."""
    TOMBSTONE = 3
    """The bank had it and retracted it: an import does not ban it again."""
    WITHDRAWN = 4
    """The source withdraws it; its entries were retracted."""
    ABSENT = 5
    """The source withdraws it; the bank has no such entry."""
    HELD = 7  # 6 is taken on the wire, by rows that cannot be used
    """The source withdraws it; the retraction waits for a second person."""


@dataclass(frozen=True)
class ImportItem:
    """A row. A `withdrawn` one may lack a fingerprint: then its source's ids identify it."""

    draft: EntryDraft
    withdrawn: bool = False


@dataclass(frozen=True)
class ImportedPart:
    """The result of a part: by row the outcome, and the key of the entry that was added, duplicated
    or retracted (0: none). `seq` is the last change; 0: nothing was written. `repeated`: this is
    the stored result of an earlier run."""

    outcomes: tuple[RowOutcome, ...]
    keys: tuple[int, ...]
    seq: int
    repeated: bool = False
    proposal: int = 0
    """The proposal that its rows wait for; 0: none."""


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
    """Runs a part, or returns its stored result. `fingerprints` are the serialised fingerprints of
    the items. Raises BankNotFound, BankArchived, BadRequest."""
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
    """Runs one part within one transaction."""

    def __init__(
        self, tables: Tables, bank: Bank, edit: Edit, revive: bool, waiting_as: str
    ) -> None:
        """`waiting_as`: the import id that its rows wait for approval under; empty: they do not."""
        self._proposal = replace(
            new_proposal(bank, ProposalKind.IMPORT, edit), import_id=waiting_as
        )
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
            retractions = len(rows.retracted)
            propose(self._tables, self._waiting(), rows, self._edit, edits=retractions)
        end = self._tables.seq()
        seq = end if end > self._begun_at else 0
        record = pb.ImportPartRecord(
            content=content,
            outcomes=bytes(self._outcomes),
            keys=self._keys,
            seq=seq,
            proposal=self._proposal.id,
        )
        self._tables.put_import_part(import_id, part, record)
        return ImportedPart(
            tuple(self._outcomes), tuple(self._keys), seq, proposal=self._proposal.id
        )

    def _waiting(self) -> Proposal:
        """The proposal that this import's rows wait for; its id is assigned on the first call."""
        if not self._proposal.id:
            self._proposal = replace(
                self._proposal, id=proposal_id_for(self._tables, self._proposal)
            )
        return self._proposal

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
        return bool(self._proposal.import_id)

    def _take_back(self, item: ImportItem, fingerprint: bytes) -> tuple[RowOutcome, int]:
        """Retracts every entry of this source with the same content or source id. Entries of other
        sources stay."""
        found = {
            key
            for mark in _marks_of_row(item.draft, fingerprint)
            for key, lifetime in self._tables.marked(mark, self._bank.id)
            if lifetime.retired == NEVER
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
        """The oldest entry with one of the marks that is not retracted, and the newest that is; 0:
        none."""
        dead = 0
        for mark in marks:
            for key, lifetime in self._tables.marked(mark, self._bank.id):
                if lifetime.retired == NEVER:
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
    """A hash that differs where other rows are sent under the same import id and part number."""
    whole = hashlib.sha256(bank.name.encode())
    for item, fingerprint in zip(items, fingerprints, strict=True):
        draft = item.draft
        row = (item.withdrawn, draft.source, draft.source_id, draft.labels, int(draft.state))
        # A vector that is computed again may differ in the last bit; a digest does not.
        digests = [d for s in SAME_CONTENT for d in draft.fingerprint.digests.get(s, ())]
        what = b"".join(digests) or fingerprint
        whole.update(f"{len(what)} {row!r}".encode())
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

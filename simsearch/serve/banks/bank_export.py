"""Bank export: entries with their fingerprints, page by page, all as of one seq."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simsearch.bank.edits.exports import NOT_RETRACTED, ExportFilter
from simsearch.bank.entry_search import EntryFilter, search
from simsearch.bank.state_reader import StateReader
from simsearch.serve.auth.identity import Identity
from simsearch.serve.banks.edit_terms import current_terms, proposal_id_of
from simsearch.serve.banks.entry_pages import page_pair
from simsearch.serve.core.server_core import Core
from simsearch.types import (
    Bank,
    Content,
    Entry,
    Fingerprint,
    HashContent,
    VectorContent,
)
from simsearch.v1 import bank_pb2
from simsearch.wire import content_to, edit_from, entry_to, states_from

ENTRIES_AT_ONCE: Final = 256
PAGE_BYTES: Final = 1 << 20
"""A page ends with the entry that reaches this size."""


def export_entries(
    core: Core, request: bank_pb2.ExportEntriesRequest, caller: Identity
) -> bank_pb2.ExportEntriesResponse:
    """One page of an export. The first one is recorded in the log, or proposed where two persons
    are needed; the page token keeps the seq of that record, as of which all pages are read."""
    bank = core.store.bank(request.bank)
    chosen = ExportFilter(
        states_from(request.states) or NOT_RETRACTED,
        frozenset(request.labels),
        frozenset(request.sources),
    )
    edit = edit_from(request.edit)
    if request.page_token:
        seq, after_key = page_pair(request.page_token)
        core.store.check_export(bank.name, seq, edit.actor)
    else:
        begun = core.store.begin_export(
            bank.name, edit, proposal_id=request.proposal_id, terms=current_terms(core)
        )
        if proposal_id_of(begun):
            return bank_pb2.ExportEntriesResponse(seq=begun.seq, proposal_id=proposal_id_of(begun))
        seq, after_key = begun.seq, 0
    with core.store.reading() as reading:
        return _page(reading.at(seq), bank, chosen, after_key, with_vectors=request.with_vectors)


def _page(
    reading: StateReader, bank: Bank, chosen: ExportFilter, after_key: int, *, with_vectors: bool
) -> bank_pb2.ExportEntriesResponse:
    found = search(reading, bank.id, EntryFilter(), after_key=after_key, limit=ENTRIES_AT_ONCE)
    wanted = [entry for entry in found.entries if chosen.matches(entry, reading.seq)]
    fingerprints = reading.fingerprints([entry.key for entry in wanted])
    answer = bank_pb2.ExportEntriesResponse(seq=reading.seq)
    size_bytes, ends_after = 0, found.after_key
    for entry in wanted:
        exported = _exported(entry, bank, fingerprints[entry.key], reading.seq, with_vectors)
        answer.entries.append(exported)
        size_bytes += exported.ByteSize()
        if size_bytes >= PAGE_BYTES and entry.key != found.entries[-1].key:
            ends_after = entry.key
            break
    if ends_after is not None:
        answer.next_page_token = f"{reading.seq}-{ends_after}"
    return answer


def _exported(
    entry: Entry, bank: Bank, fingerprint: Fingerprint, seq: int, with_vectors: bool
) -> bank_pb2.ExportedEntry:
    message = entry_to(entry, bank.name)
    message.state = int(entry.state_at(seq))  # type: ignore[assignment]
    contents = _contents(fingerprint, with_vectors)
    return bank_pb2.ExportedEntry(entry=message, fingerprint=map(content_to, contents))


def _contents(fingerprint: Fingerprint, with_vectors: bool) -> Iterator[Content]:
    for digest, values in fingerprint.digests.items():
        yield from (HashContent(digest, value) for value in values)
    for signal, rows in fingerprint.bits.items():
        yield from (HashContent(signal, row.tobytes()) for row in rows)
    if with_vectors:
        for space, vectors in fingerprint.vectors.items():
            yield VectorContent(space, vectors.astype("<f2"))

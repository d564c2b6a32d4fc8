"""Entry search: pages of one bank's entries, filtered by their metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import keys
from simsearch.bank.records.fingerprints import content_id
from simsearch.bank.records.keys import Lifetime
from simsearch.bank.state_reader import StateReader
from simsearch.types import Entry, EntryState, Signal

ENTRIES_AT_ONCE: Final = 512
"""Examined in one transaction."""

LOOKED_AT_MAX: Final = 16_384
"""Examined by one search, which then returns a short page."""


@dataclass(frozen=True)
class EntryFilter:
    """Conditions on entries, all of which must hold; empty or 0: no condition. Times are in
    microseconds since 1970; `since_us` and `until_us` bound the time of the ban. `source_id` also
    matches aliases, `note_contains` ignores case, and `digest` is one of the entry's digests."""

    states: frozenset[EntryState] = frozenset()
    labels: frozenset[str] = frozenset()
    source: str = ""
    source_id: str = ""
    actor: str = ""
    since_us: int = 0
    until_us: int = 0
    severity: str = ""
    changed_since_us: int = 0
    note_contains: str = ""
    digest: tuple[Signal, bytes] | None = None

    @property
    def mark(self) -> bytes:
        """The index key that finds such entries directly; empty where none applies."""
        if self.digest:
            return keys.digest_prefix(*self.digest)
        if self.source and self.source_id:
            return keys.source_mark(self.source, self.source_id)
        return b""

    def may_have(self, lifetime: Lifetime) -> bool:
        """Whether an entry of this lifetime can match, as far as `states` goes."""
        if not self.states:
            return True
        if lifetime.retired != keys.NEVER:
            return EntryState.RETRACTED in self.states
        return self.states != {EntryState.RETRACTED}

    def matches(self, entry: Entry) -> bool:
        """Whether the entry meets every condition but `digest`, which its record does not hold."""
        return (
            (not self.states or entry.state in self.states)
            and self.labels <= set(entry.labels)
            and self.source in ("", entry.source)
            and self.source_id in ("", entry.source_id, *entry.aliases)
            and self.actor in ("", entry.added.actor)
            and self.severity in ("", entry.severity)
            and self.since_us <= entry.added.time_us
            and not (0 < self.until_us <= entry.added.time_us)
            and self.changed_since_us <= entry.last.time_us
            and self.note_contains.casefold() in entry.note.casefold()
        )


@dataclass(frozen=True)
class EntryPage:
    """A page of entries, in key order. `after_key`: the cursor of the next page; None: this is the
    last one."""

    entries: tuple[Entry, ...]
    after_key: int | None


def search(
    reading: StateReader, bank_id: int, selected: EntryFilter, *, after_key: int, limit: int
) -> EntryPage:
    """Up to `limit` entries of the bank with a key above `after_key`, as they are when they are
    read. Keys only grow, so consecutive pages neither skip nor repeat an entry, whatever is edited
    meanwhile. Raises Corrupt."""
    found: list[Entry] = []
    looked_at = 0
    while len(found) < limit:
        if looked_at >= LOOKED_AT_MAX:
            return EntryPage(tuple(found), after_key)
        left = limit - len(found)
        part = reading.read(partial(_part, bank_id, selected, after_key, left))
        found += part.entries
        looked_at += part.looked_at
        if part.is_last:
            return EntryPage(tuple(found), None)
        after_key = part.after_key
    return EntryPage(tuple(found), after_key)


class _Part(NamedTuple):
    entries: list[Entry]
    looked_at: int
    after_key: int
    is_last: bool


def _part(bank_id: int, selected: EntryFilter, after_key: int, limit: int, tables: Tables) -> _Part:
    entries: list[Entry] = []
    looked_at = 0
    for key, lifetime in islice(_lifetimes(tables, bank_id, selected, after_key), ENTRIES_AT_ONCE):
        if len(entries) == limit:
            return _Part(entries, looked_at, after_key, False)
        looked_at, after_key = looked_at + 1, key
        if lifetime.bank_id != bank_id or not selected.may_have(lifetime):
            continue
        entry = tables.indexed_entry(key)
        if selected.matches(entry):
            entries.append(entry)
    return _Part(entries, looked_at, after_key, looked_at < ENTRIES_AT_ONCE)


def _lifetimes(
    tables: Tables, bank_id: int, selected: EntryFilter, after_key: int
) -> Iterator[tuple[int, Lifetime]]:
    """In key order; with a mark, the entries of every bank."""
    if selected.mark:
        return tables.marked_lifetimes(selected.mark, after_key)
    return tables.bank_lifetimes(bank_id, after_key)


def content_ids(reading: StateReader, entries: Sequence[Entry]) -> list[str]:
    """The content id of each entry's first fingerprint, in hex. Raises Corrupt."""

    def read(tables: Tables) -> list[str]:
        return [content_id(e.key, tables.change_fingerprint_bytes(e.added)).hex() for e in entries]

    return reading.read(read)

"""State reader: a consistent state of the whole store, without an open transaction.

Records are versioned by seq and never deleted: a lifetime says from which seq to which an entry
counts, and an extension is stored under the seq that added it. So the state at one seq can be read
by many short transactions. A long one would pin old pages (the file grew 12× in a trial) and keep
the writer from growing its map. A release that deletes records must not break this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from simsearch.bank.lmdb.environment import Environment
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records.fingerprints import fingerprint_from_bytes
from simsearch.types import Bank, Change, Fingerprint

T = TypeVar("T")

CHUNK_ENTRIES = 512
CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class StateReader:
    """Reads the store as of `seq`, whatever is edited meanwhile. Safe to use from any thread."""

    seq: int
    _banks: tuple[Bank, ...]
    _environment: Environment

    @classmethod
    def begin(cls, environment: Environment) -> StateReader:
        """The newest state of the store."""
        seq, banks = environment.read(lambda tables: (tables.seq(), tables.banks()))
        return cls(seq, tuple(banks), environment)

    def at(self, seq: int) -> StateReader:
        """A reader of an earlier `seq`; its banks are those of this one."""
        assert seq <= self.seq
        return replace(self, seq=seq)

    def banks(self) -> list[Bank]:
        """All banks, in the order of their creation."""
        return list(self._banks)

    def active_entries(self) -> Iterator[tuple[int, int, Fingerprint]]:
        """(key, bank id, fingerprint) of every entry alive at `seq`, in key order."""
        after_key: int | None = 0
        while after_key is not None:
            chunk = self._chunk(after_key)
            for key, bank_id, fingerprint in chunk.rows:
                yield key, bank_id, fingerprint_from_bytes(key, fingerprint)
            after_key = chunk.after_key

    def active_chunks(self, size: int) -> Iterator[list[tuple[int, int, Fingerprint]]]:
        """`active_entries` in lists of `size`; the last may be shorter, none is empty."""
        entries = self.active_entries()
        while chunk := list(islice(entries, size)):
            yield chunk

    def changes(self, after_seq: int, limit: int) -> list[Change]:
        """Up to `limit` changes after `after_seq`, up to `seq`, without a gap."""
        limit = min(limit, self.seq - after_seq)
        if limit <= 0:
            return []
        return self._environment.read(lambda tables: tables.changes(after_seq, limit))

    def read(self, work: Callable[[Tables], T]) -> T:
        """Runs `work` in one short transaction, which also sees records newer than `seq`."""
        return self._environment.read(work)

    def fingerprints(self, keys: Sequence[int]) -> dict[int, Fingerprint]:
        """The fingerprints of `keys`, of retracted entries too; keys unknown at `seq` are
        left out."""
        found: dict[int, Fingerprint] = {}
        rest = iter(keys)
        while some := list(islice(rest, CHUNK_ENTRIES)):
            found |= self._environment.read(partial(self._some, some))
        return found

    def fingerprints_of_changes(self, changes: Sequence[Change]) -> list[Fingerprint]:
        """The signals that each of `changes`, which added or extended an entry, added."""
        found: list[Fingerprint] = []
        rest = iter(changes)
        while some := list(islice(rest, CHUNK_ENTRIES)):
            found += self._environment.read(partial(_change_fingerprints, some))
        return found

    def _some(self, keys: Sequence[int], tables: Tables) -> dict[int, Fingerprint]:
        existing = [
            key for key in keys if (lifetime := tables.lifetime(key)) and lifetime.born <= self.seq
        ]
        return {key: tables.fingerprint_or_raise(key, self.seq) for key in existing}

    def _chunk(self, after_key: int) -> _Chunk:
        return self._environment.read(lambda tables: _read_chunk(tables, after_key, self.seq))


def _change_fingerprints(changes: Sequence[Change], tables: Tables) -> list[Fingerprint]:
    return [tables.change_fingerprint(change) for change in changes]


class _Chunk(NamedTuple):
    rows: list[tuple[int, int, bytes]]
    after_key: int | None


def _read_chunk(tables: Tables, after_key: int, seq: int) -> _Chunk:
    """Bounded in entries examined and, but for the last entry, in bytes."""
    rows: list[tuple[int, int, bytes]] = []
    size_bytes = 0
    for seen, (key, lifetime) in enumerate(tables.lifetimes(after_key)):
        if lifetime.born > seq:  # keys follow the order of the log: only newer entries follow
            break
        if seen == CHUNK_ENTRIES or size_bytes >= CHUNK_BYTES:
            return _Chunk(rows, after_key)
        after_key = key
        if lifetime.alive_at(seq):
            rows.append((key, lifetime.bank_id, tables.fingerprint_bytes(key, seq)))
            size_bytes += len(rows[-1][2])
    return _Chunk(rows, None)

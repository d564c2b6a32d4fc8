"""A consistent state of the whole store that holds no transaction open.

Nothing is ever deleted or, retraction apart, changed: a life says from which seq to which an
entry counts, and what extends an entry stands under the seq that did. So the state at one seq
can be read by many short transactions. One long one would pin old pages (the file grew 12× in a
trial) and would keep the writer from growing its map. Should a later release delete anything,
this is what it must not break.
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
    """The store as it was at `seq`, whatever is edited meanwhile. May be used by any thread."""

    seq: int
    _banks: tuple[Bank, ...]
    _environment: Environment

    @classmethod
    def begin(cls, environment: Environment) -> StateReader:
        """The newest state of the store."""
        seq, banks = environment.read(lambda tables: (tables.seq(), tables.banks()))
        return cls(seq, tuple(banks), environment)

    def at(self, seq: int) -> StateReader:
        """The same as it was at an earlier `seq`; but the banks as they are."""
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

    def changes(self, after_seq: int, limit: int) -> list[Change]:
        """Changes after `after_seq`, up to `seq` and up to `limit` of them, without a gap."""
        limit = min(limit, self.seq - after_seq)
        if limit <= 0:
            return []
        return self._environment.read(lambda tables: tables.changes(after_seq, limit))

    def read(self, work: Callable[[Tables], T]) -> T:
        """One short transaction: it may see what is younger than `seq`."""
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
        """What each of `changes`, which added or extended an entry, brought and no other."""
        found: list[Fingerprint] = []
        rest = iter(changes)
        while some := list(islice(rest, CHUNK_ENTRIES)):
            found += self._environment.read(partial(_brought, some))
        return found

    def _some(self, keys: Sequence[int], tables: Tables) -> dict[int, Fingerprint]:
        known = [
            key for key in keys if (lifetime := tables.lifetime(key)) and lifetime.born <= self.seq
        ]
        return {key: tables.fingerprint_or_raise(key, self.seq) for key in known}

    def _chunk(self, after_key: int) -> _Chunk:
        return self._environment.read(lambda tables: _read_chunk(tables, after_key, self.seq))


def _brought(changes: Sequence[Change], tables: Tables) -> list[Fingerprint]:
    return [tables.change_fingerprint(change) for change in changes]


class _Chunk(NamedTuple):
    rows: list[tuple[int, int, bytes]]
    after_key: int | None


def _read_chunk(tables: Tables, after_key: int, seq: int) -> _Chunk:
    """Bounded in entries looked at and, but for its last one, in bytes."""
    rows: list[tuple[int, int, bytes]] = []
    size_bytes = 0
    for seen, (key, lifetime) in enumerate(tables.lifetimes(after_key)):
        if lifetime.born > seq:  # keys are given in the order of the log: only younger ones follow
            break
        if seen == CHUNK_ENTRIES or size_bytes >= CHUNK_BYTES:
            return _Chunk(rows, after_key)
        after_key = key
        if lifetime.alive_at(seq):
            rows.append((key, lifetime.bank_id, tables.fingerprint_bytes(key, seq)))
            size_bytes += len(rows[-1][2])
    return _Chunk(rows, None)

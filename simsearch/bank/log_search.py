"""Log search: pages of filtered changes, from either end of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from simsearch.bank.records import entries, hash_chain
from simsearch.bank.state_reader import StateReader
from simsearch.types import Bank, Change, ChangeKind

CHANGES_AT_ONCE: Final = 1_024
LOOKED_AT_MAX: Final = 16_384
"""Examined by one search, which then returns a short page."""


@dataclass(frozen=True)
class ChangeFilter:
    """Conditions on changes, all of which must hold: bank, time (`since_us` inclusive, `until_us`
    exclusive, microseconds since 1970; 0: no end), actor, entry and kinds; empty or 0: any."""

    bank_ids: frozenset[int]
    since_us: int = 0
    until_us: int = 0
    actor: str = ""
    entry_key: int = 0
    kinds: frozenset[ChangeKind] = frozenset()

    def matches(self, change: Change) -> bool:
        """Whether the change meets every condition."""
        return (
            change.bank_id in self.bank_ids
            and self.since_us <= change.time_us
            and not (0 < self.until_us <= change.time_us)
            and self.actor in ("", change.actor)
            and self.entry_key in (0, change.entry_key)
            and (not self.kinds or change.kind in self.kinds)
        )


class LinkedChange(NamedTuple):
    """A change and its link in the hash chain; empty where it was written without one."""

    change: Change
    link: bytes


@dataclass(frozen=True)
class StoredChange:
    """A change with its content hash (SHA-256 of what it stored; empty: not recorded) and, for an
    update of a bank, the bank as it was before."""

    change: Change
    link: bytes
    content: bytes
    bank_before: Bank | None


@dataclass(frozen=True)
class ChangePage:
    """Matching changes, oldest first. `rest`: the (after_seq, before_seq) not examined yet; None:
    the search is complete."""

    changes: tuple[LinkedChange, ...]
    rest: tuple[int, int] | None


def search(
    reading: StateReader,
    selected: ChangeFilter,
    *,
    after_seq: int,
    before_seq: int,
    limit: int,
    newest: bool = False,
) -> ChangePage:
    """Up to `limit` changes between the two seqs, both exclusive: the oldest, or the `newest`.
    Raises Corrupt."""
    low, high = after_seq, min(before_seq, reading.seq + 1)
    found: list[LinkedChange] = []
    looked_at = 0
    while high - low > 1:
        if len(found) == limit or looked_at >= LOOKED_AT_MAX:
            return _found(found, newest, (low, high))
        count = min(CHANGES_AT_ONCE, high - low - 1)
        some = _read(reading, high - 1 - count if newest else low, count)
        for logged in reversed(some) if newest else some:
            if len(found) == limit:
                break
            low, high = (low, logged.change.seq) if newest else (logged.change.seq, high)
            looked_at += 1
            if selected.matches(logged.change):
                found.append(logged)
    return _found(found, newest, None)


def stored_change(reading: StateReader, seq: int) -> StoredChange | None:
    """The change numbered `seq`; None: there is none. Raises Corrupt."""
    if not 0 < seq <= reading.seq:
        return None
    [(_, record)] = reading.read(lambda tables: tables.log(seq - 1, 1))
    return StoredChange(
        entries.change_from_bytes(seq, record),
        hash_chain.split_link(record).link,
        entries.content_of_change(seq, record),
        entries.bank_before(seq, record),
    )


def _found(found: list[LinkedChange], newest: bool, rest: tuple[int, int] | None) -> ChangePage:
    return ChangePage(tuple(reversed(found) if newest else found), rest)


def _read(reading: StateReader, after_seq: int, count: int) -> list[LinkedChange]:
    return [
        LinkedChange(entries.change_from_bytes(seq, record), hash_chain.split_link(record).link)
        for seq, record in reading.read(lambda tables: tables.log(after_seq, count))
    ]

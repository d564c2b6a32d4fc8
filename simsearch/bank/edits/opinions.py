"""What people think of hits: opinions, and the entries that these or a flood take out of the way.

An opinion is a change of the log, and never changed itself: whoever thinks otherwise says so anew.
Of each person the newest counts; once a person has moved the entry, only what was said since.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from simsearch.bank.edits import entries
from simsearch.bank.edits.entries import ITSELF
from simsearch.bank.lmdb.tables import Tables
from simsearch.bank.records import hash_chain
from simsearch.errors import LimitExceeded
from simsearch.types import (
    Change,
    ChangeKind,
    Edit,
    Entry,
    EntryState,
    Opinion,
    OpinionDraft,
    OpinionKind,
)

OPINIONS_MAX: Final = 1_000
"""Of one entry: each new one reads them all."""

NAMES_MAX: Final = 10
"""Doubters whom a reason names."""

LOOKED_AT_MAX: Final = 4_096
"""Opinions, or entries under review, that one page looks at."""

RESPITE_US: Final = 24 * 3_600 * 1_000_000
"""How long an entry whose quarantine a person ended is not quarantined for a flood again."""

_FLOODING: Final = (EntryState.ACTIVE, EntryState.DISPUTED)


class Given(NamedTuple):
    """`disputed`: the change that made the entry DISPUTED because of this opinion."""

    opinion: Opinion
    disputed: Change | None


def give(
    tables: Tables, bank_name: str, key: int, said: OpinionDraft, edit: Edit, disputes_max: int
) -> Given:
    """The same opinion of the same person, given again, is the one that stands already."""
    bank = entries.editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    before = tables.opinions(key)
    mine = {o.actor: o for o in counting(entry, before)}.get(edit.actor)
    if mine and mine.said == said:
        return Given(mine, None)
    if len(before) >= OPINIONS_MAX:
        raise LimitExceeded(
            f"entry {key} has {OPINIONS_MAX} opinions, the limit: decide about it by moving it"
        )
    change = tables.append_change(
        tables.next_change(ChangeKind.OPINION_GIVEN, bank.id, key, edit, _now_us()),
        hash_chain.content_of_opinion(said),
    )
    opinion = Opinion(said, change)
    tables.put_opinion(opinion)
    doubters = doubters_of(entry, (*before, opinion))
    if entry.state is not EntryState.ACTIVE or not 0 < disputes_max <= len(doubters):
        return Given(opinion, None)
    doubted = Edit(ITSELF, f"held a false positive by {_named(doubters)}")
    return Given(opinion, entries.moved(tables, entry, EntryState.DISPUTED, 0, doubted)[1])


def counting(entry: Entry, opinions: Sequence[Opinion]) -> list[Opinion]:
    """Of those given since a person last moved the entry, the newest of each, oldest first."""
    decided = max((m.change.seq for m in entry.moves if m.change.actor != ITSELF), default=0)
    return standing([o for o in opinions if o.change.seq > decided])


def standing(opinions: Sequence[Opinion]) -> list[Opinion]:
    """The newest of each person, oldest first; `opinions` are of one entry, oldest first."""
    newest = {opinion.actor: opinion for opinion in opinions}
    return sorted(newest.values(), key=lambda opinion: opinion.change.seq)


def doubters_of(entry: Entry, opinions: Sequence[Opinion]) -> list[str]:
    """Who holds, since the last decision, that the entry matched what it should not have."""
    held = counting(entry, opinions)
    return [o.actor for o in held if o.said.kind is OpinionKind.FALSE_POSITIVE]


def _named(people: Sequence[str]) -> str:
    *others, last = people[:NAMES_MAX]
    more = f" and {len(people) - NAMES_MAX} more" if len(people) > NAMES_MAX else ""
    return f"{', '.join(others)} and {last}{more}" if others else last


# ---------------------------------------------------------------- floods


@dataclass(frozen=True)
class Stopped:
    """What became of a flooding entry of `bank`: quarantined by `change`. None: left alone, since
    a person ended its last quarantine less than a day ago."""

    bank: str
    change: Change | None


def quarantine(tables: Tables, key: int, reason: str, since_us: int) -> Stopped | None:
    """None: there is nothing to do, for it is not asked any more, or a person has moved it since
    `since_us`, when the flood was seen."""
    entry = tables.entry(key)
    bank = next((b for b in tables.banks() if entry and b.id == entry.bank_id), None)
    if entry is None or bank is None or bank.archived or entry.state not in _FLOODING:
        return None
    last = entry.moves[-1].change if entry.moves else entry.added
    if last.actor != ITSELF and last.time_us > since_us:
        return None
    if _was_released(entry) and since_us < last.time_us + RESPITE_US:
        return Stopped(bank.name, None)
    flooded = Edit(ITSELF, reason)
    return Stopped(bank.name, entries.moved(tables, entry, EntryState.QUARANTINED, 0, flooded)[1])


def _was_released(entry: Entry) -> bool:
    """Whether its last move is a person's who ended a quarantine of the server's own."""
    if len(entry.moves) < 2:
        return False
    before, last = entry.moves[-2:]
    by_itself = before.state is EntryState.QUARANTINED and before.change.actor == ITSELF
    return by_itself and last.change.actor != ITSELF


# ---------------------------------------------------------------- lists


@dataclass(frozen=True)
class Wanted:
    """Which opinions: of one bank, of one entry (0: any), of a kind (None: any), from when to
    before when (microseconds since 1970; `until_us` 0: no end), whose (empty: anybody's)."""

    bank_id: int
    key: int = 0
    kind: OpinionKind | None = None
    since_us: int = 0
    until_us: int = 0
    actor: str = ""

    def has(self, opinion: Opinion) -> bool:
        change = opinion.change
        return (
            change.bank_id == self.bank_id
            and self.kind in (None, opinion.said.kind)
            and self.since_us <= change.time_us
            and not (0 < self.until_us <= change.time_us)
            and self.actor in ("", change.actor)
        )


class Told(NamedTuple):
    opinion: Opinion
    superseded: bool


@dataclass(frozen=True)
class Page:
    """`rest`: the (entry key, seq) after which to go on; None: there is no more."""

    opinions: tuple[Told, ...]
    rest: tuple[int, int] | None


def listed(tables: Tables, wanted: Wanted, after: tuple[int, int], limit: int) -> Page:
    """Up to `limit` opinions behind (entry key, seq), by these two."""
    found: list[Told] = []
    newest: dict[str, int] = {}
    of_key, last = 0, after
    rows = tables.opinions_after(max(after, (wanted.key, 0)))
    for looked_at, opinion in enumerate(rows):
        key, seq = opinion.change.entry_key, opinion.change.seq
        if wanted.key and key != wanted.key:
            break
        if len(found) == limit or looked_at == LOOKED_AT_MAX:
            return Page(tuple(found), last)
        last = (key, seq)
        if not wanted.has(opinion):
            continue
        if key != of_key:
            of_key, newest = key, {o.actor: o.change.seq for o in tables.opinions(key)}
        found.append(Told(opinion, newest[opinion.actor] != seq))
    return Page(tuple(found), None)


@dataclass(frozen=True)
class Waiting:
    """An entry that a person is to decide about, since its last move, and what people hold."""

    entry: Entry
    opinions: tuple[Opinion, ...]

    @property
    def since(self) -> Change:
        return self.entry.moves[-1].change


@dataclass(frozen=True)
class Queue:
    """`rest`: the seq after which to go on; 0: there is no more."""

    waiting: tuple[Waiting, ...]
    rest: int


def review(tables: Tables, bank_ids: frozenset[int], after_seq: int, limit: int) -> Queue:
    """Up to `limit` entries of these banks that wait for a person, the longest first."""
    found: list[Waiting] = []
    last = after_seq
    for looked_at, (seq, key) in enumerate(tables.under_review(after_seq)):
        if len(found) == limit or looked_at == LOOKED_AT_MAX:
            return Queue(tuple(found), last)
        last = seq
        entry = tables.listed(key)
        if entry.bank_id in bank_ids:
            found.append(Waiting(entry, tuple(standing(tables.opinions(key)))))
    return Queue(tuple(found), 0)


def _now_us() -> int:
    return time.time_ns() // 1000

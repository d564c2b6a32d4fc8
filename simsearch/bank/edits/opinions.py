"""Opinions on hits, the disputes and quarantines that follow, and the review queue.

An opinion is a change of the log and never altered; to revise it, the same person gives a new one.
Only each person's newest opinion counts, and only opinions given since a person last moved the
entry.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from simsearch.bank.edits import entries
from simsearch.bank.edits.entries import SERVER_ACTOR
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
"""Opinions on one entry: each new one reads them all."""

NAMES_MAX: Final = 10
"""People that the reason of a dispute lists by name."""

LOOKED_AT_MAX: Final = 4_096
"""Opinions, or entries under review, that one page examines."""

RELEASE_GRACE_US: Final = 24 * 3_600 * 1_000_000
"""How long after a person ended its quarantine an entry is not quarantined for a flood again."""

_FLOODING: Final = (EntryState.ACTIVE, EntryState.DISPUTED)


class RecordedOpinion(NamedTuple):
    """An opinion, and the change that made the entry DISPUTED because of it, if any."""

    opinion: Opinion
    disputed: Change | None


def give_opinion(
    tables: Tables, bank_name: str, key: int, draft: OpinionDraft, edit: Edit, disputes_max: int
) -> RecordedOpinion:
    """Records an opinion. Where it repeats the person's current one, that is returned instead.
    Raises BankNotFound, BankArchived, EntryNotFound, EntryInOtherBank, LimitExceeded."""
    bank = entries.editable_bank(tables, bank_name)
    entry = tables.entry_or_raise(bank, key)
    before = tables.opinions(key)
    mine = {o.actor: o for o in current_opinions(entry, before)}.get(edit.actor)
    if mine and mine.draft == draft:
        return RecordedOpinion(mine, None)
    if len(before) >= OPINIONS_MAX:
        raise LimitExceeded(
            f"entry {key} has {OPINIONS_MAX} opinions, the limit: decide about it by moving it"
        )
    change = tables.append_change(
        tables.next_change(ChangeKind.OPINION_GIVEN, bank.id, key, edit, _now_us()),
        hash_chain.content_of_opinion(draft),
    )
    opinion = Opinion(draft, change)
    tables.put_opinion(opinion)
    doubters = false_positive_actors(entry, (*before, opinion))
    if entry.state is not EntryState.ACTIVE or not 0 < disputes_max <= len(doubters):
        return RecordedOpinion(opinion, None)
    doubted = Edit(SERVER_ACTOR, f"held a false positive by {_named(doubters)}")
    return RecordedOpinion(
        opinion, entries.apply_move(tables, entry, EntryState.DISPUTED, 0, doubted)[1]
    )


def current_opinions(entry: Entry, opinions: Sequence[Opinion]) -> list[Opinion]:
    """Each person's newest opinion since a person last moved the entry, oldest first."""
    decided = max((m.change.seq for m in entry.moves if m.change.actor != SERVER_ACTOR), default=0)
    return newest_by_person([o for o in opinions if o.change.seq > decided])


def newest_by_person(opinions: Sequence[Opinion]) -> list[Opinion]:
    """Each person's newest opinion, oldest first; `opinions` are of one entry, oldest first."""
    newest = {opinion.actor: opinion for opinion in opinions}
    return sorted(newest.values(), key=lambda opinion: opinion.change.seq)


def false_positive_actors(entry: Entry, opinions: Sequence[Opinion]) -> list[str]:
    """The people whose current opinion is FALSE_POSITIVE."""
    current = current_opinions(entry, opinions)
    return [o.actor for o in current if o.draft.kind is OpinionKind.FALSE_POSITIVE]


def _named(people: Sequence[str]) -> str:
    *others, last = people[:NAMES_MAX]
    more = f" and {len(people) - NAMES_MAX} more" if len(people) > NAMES_MAX else ""
    return f"{', '.join(others)} and {last}{more}" if others else last


# ---------------------------------------------------------------- floods


@dataclass(frozen=True)
class FloodQuarantine:
    """The response to a flood of an entry of `bank`: `change` quarantined it; None: it was left
    alone, because a person ended its last quarantine less than RELEASE_GRACE_US ago."""

    bank: str
    change: Change | None


def quarantine_flooding(
    tables: Tables, key: int, reason: str, since_us: int
) -> FloodQuarantine | None:
    """Quarantines an entry because of a flood detected at `since_us`. None: there is nothing to do,
    because it is not searched any more, or a person has moved it since."""
    entry = tables.entry(key)
    bank = next((b for b in tables.banks() if entry and b.id == entry.bank_id), None)
    if entry is None or bank is None or bank.archived or entry.state not in _FLOODING:
        return None
    last = entry.moves[-1].change if entry.moves else entry.added
    if last.actor != SERVER_ACTOR and last.time_us > since_us:
        return None
    if _was_released(entry) and since_us < last.time_us + RELEASE_GRACE_US:
        return FloodQuarantine(bank.name, None)
    flooded = Edit(SERVER_ACTOR, reason)
    return FloodQuarantine(
        bank.name, entries.apply_move(tables, entry, EntryState.QUARANTINED, 0, flooded)[1]
    )


def _was_released(entry: Entry) -> bool:
    """Whether its last move was a person's, ending a quarantine by the server."""
    if len(entry.moves) < 2:
        return False
    before, last = entry.moves[-2:]
    by_itself = before.state is EntryState.QUARANTINED and before.change.actor == SERVER_ACTOR
    return by_itself and last.change.actor != SERVER_ACTOR


# ---------------------------------------------------------------- lists


@dataclass(frozen=True)
class OpinionFilter:
    """Conditions on opinions, all of which must hold: bank, entry (0: any), kind (None: any), time
    (`since_us` inclusive, `until_us` exclusive, microseconds since 1970; 0: no end), and actor
    (empty: any)."""

    bank_id: int
    key: int = 0
    kind: OpinionKind | None = None
    since_us: int = 0
    until_us: int = 0
    actor: str = ""

    def matches(self, opinion: Opinion) -> bool:
        """Whether the opinion meets every condition."""
        change = opinion.change
        return (
            change.bank_id == self.bank_id
            and self.kind in (None, opinion.draft.kind)
            and self.since_us <= change.time_us
            and not (0 < self.until_us <= change.time_us)
            and self.actor in ("", change.actor)
        )


class ListedOpinion(NamedTuple):
    """`superseded`: the same person has given a newer one."""

    opinion: Opinion
    superseded: bool


@dataclass(frozen=True)
class OpinionPage:
    """`rest`: the (entry key, seq) cursor of the next page; None: this is the last one."""

    opinions: tuple[ListedOpinion, ...]
    rest: tuple[int, int] | None


def list_opinions(
    tables: Tables, selected: OpinionFilter, after: tuple[int, int], limit: int
) -> OpinionPage:
    """Up to `limit` matching opinions after (entry key, seq), ordered by these two."""
    found: list[ListedOpinion] = []
    newest: dict[str, int] = {}
    of_key, last = 0, after
    rows = tables.opinions_after(max(after, (selected.key, 0)))
    for looked_at, opinion in enumerate(rows):
        key, seq = opinion.change.entry_key, opinion.change.seq
        if selected.key and key != selected.key:
            break
        if len(found) == limit or looked_at == LOOKED_AT_MAX:
            return OpinionPage(tuple(found), last)
        last = (key, seq)
        if not selected.matches(opinion):
            continue
        if key != of_key:
            of_key, newest = key, {o.actor: o.change.seq for o in tables.opinions(key)}
        found.append(ListedOpinion(opinion, newest[opinion.actor] != seq))
    return OpinionPage(tuple(found), None)


@dataclass(frozen=True)
class ReviewItem:
    """An entry that waits for a person's decision, and each person's newest opinion on it."""

    entry: Entry
    opinions: tuple[Opinion, ...]

    @property
    def since(self) -> Change:
        """The change since which the entry waits."""
        return self.entry.moves[-1].change


@dataclass(frozen=True)
class ReviewQueue:
    """A page of the review queue. `rest`: the seq cursor of the next page; 0: this is the last."""

    items: tuple[ReviewItem, ...]
    rest: int


def review_queue(
    tables: Tables, bank_ids: frozenset[int], after_seq: int, limit: int
) -> ReviewQueue:
    """Up to `limit` entries of these banks that wait for a decision, longest wait first."""
    found: list[ReviewItem] = []
    last = after_seq
    for looked_at, (seq, key) in enumerate(tables.under_review(after_seq)):
        if len(found) == limit or looked_at == LOOKED_AT_MAX:
            return ReviewQueue(tuple(found), last)
        last = seq
        entry = tables.indexed_entry(key)
        if entry.bank_id in bank_ids:
            found.append(ReviewItem(entry, tuple(newest_by_person(tables.opinions(key)))))
    return ReviewQueue(tuple(found), 0)


def _now_us() -> int:
    return time.time_ns() // 1000

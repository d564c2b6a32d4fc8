"""Entries: states, moves, drafts, and counts of hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from simsearch.types.banks import Change
from simsearch.types.content import Fingerprint


class EntryState(IntEnum):
    """What becomes of what an entry matches. A DRAFT is not asked yet, a QUARANTINED entry not for
    now; what a SHADOW entry matches is counted and decides nothing; what a DISPUTED one matches
    is reviewed at most. RETRACTED is for good."""

    ACTIVE = 1
    RETRACTED = 2
    DRAFT = 3
    SHADOW = 4
    QUARANTINED = 5
    DISPUTED = 6


@dataclass(frozen=True)
class Move:
    """A change of an entry's state. `until_us`: when it goes back by itself; 0: never."""

    state: EntryState
    change: Change
    until_us: int = 0


@dataclass(frozen=True)
class Entry:
    """One banned item, without its fingerprint."""

    key: int
    bank_id: int
    state: EntryState
    labels: tuple[str, ...]
    source: str
    source_id: str
    note: str
    signals: Mapping[str, int]
    added: Change
    retracted: Change | None = None
    extended: tuple[Change, ...] = ()
    """The changes that added signals to it later, oldest first."""
    first_state: EntryState = EntryState.ACTIVE
    """The state that it was added in."""
    moves: tuple[Move, ...] = ()
    """The changes of its state since, oldest first; a retraction is not among them."""
    expires_us: int = 0
    """When it retracts itself; 0: never."""
    severity: str = ""
    """In the source's own words."""
    aliases: tuple[str, ...] = ()
    """The source's other ids for it."""
    review_reasons: tuple[str, ...] = ()
    """Why it may not be asked before a second person says so; empty: it may."""

    @property
    def last(self) -> Change:
        """The newest change of it."""
        changes = (self.added, *self.extended, *(move.change for move in self.moves))
        return self.retracted or max(changes, key=lambda change: change.seq)

    @property
    def until_us(self) -> int:
        """When it goes back by itself to the state before; 0: never."""
        return self.moves[-1].until_us if self.moves else 0

    def state_at(self, seq: int) -> EntryState:
        """Its state at a log position at which it was there."""
        if self.retracted and self.retracted.seq <= seq:
            return EntryState.RETRACTED
        return self.unretracted_at(seq)

    def unretracted_at(self, seq: int) -> EntryState:
        """The same, were it never retracted."""
        past = [move.state for move in self.moves if move.change.seq <= seq]
        return past[-1] if past else self.first_state


@dataclass(frozen=True)
class EntryDraft:
    """An item to ban: its fingerprint and what is known about it."""

    fingerprint: Fingerprint
    labels: tuple[str, ...] = ()
    source: str = ""
    source_id: str = ""
    note: str = ""
    state: EntryState = EntryState.ACTIVE
    expires_us: int = 0
    severity: str = ""
    aliases: tuple[str, ...] = ()
    review_reasons: tuple[str, ...] = ()
    """Why it is to be stored as a DRAFT until a second person says otherwise."""


@dataclass(frozen=True)
class HitCounts:
    """How often an entry was hit, by band. `near`: of these, without an equal digest; `shadow`:
    apart from them, hits that decided nothing. `last_us`: of the newest that counts, 0: none."""

    block: int = 0
    review: int = 0
    log: int = 0
    near: int = 0
    shadow: int = 0
    last_us: int = 0

    @property
    def total(self) -> int:
        """Hits that counted, of every band."""
        return self.block + self.review + self.log

    def __add__(self, other: HitCounts) -> HitCounts:
        return HitCounts(
            self.block + other.block,
            self.review + other.review,
            self.log + other.log,
            self.near + other.near,
            self.shadow + other.shadow,
            max(self.last_us, other.last_us),
        )

"""Entries: states, moves, drafts, and counts of hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from simsearch.types.banks import Change
from simsearch.types.content import Fingerprint


class EntryState(IntEnum):
    """The effect of an entry. DRAFT: not searched yet; QUARANTINED: not searched for now; SHADOW:
    hits are counted and decide nothing; DISPUTED: hits are REVIEW at most; RETRACTED: never
    searched again."""

    ACTIVE = 1
    RETRACTED = 2
    DRAFT = 3
    SHADOW = 4
    QUARANTINED = 5
    DISPUTED = 6


@dataclass(frozen=True)
class Move:
    """A change of an entry's state. `until_us`: when the server reverts it; 0: never."""

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
    """The state at creation."""
    moves: tuple[Move, ...] = ()
    """The changes of its state since, oldest first; a retraction is not among them."""
    expires_us: int = 0
    """When the server retracts it; 0: never."""
    severity: str = ""
    """In the source's own words."""
    aliases: tuple[str, ...] = ()
    """The source's other ids for it."""
    review_reasons: tuple[str, ...] = ()
    """Why it needs a second person's approval before it is searched; empty: it does not."""

    @property
    def last(self) -> Change:
        """Its newest change."""
        changes = (self.added, *self.extended, *(move.change for move in self.moves))
        return self.retracted or max(changes, key=lambda change: change.seq)

    @property
    def until_us(self) -> int:
        """When the server moves it back to the state before; 0: never."""
        return self.moves[-1].until_us if self.moves else 0

    def state_at(self, seq: int) -> EntryState:
        """Its state at log position `seq`, at which it must exist."""
        if self.retracted and self.retracted.seq <= seq:
            return EntryState.RETRACTED
        return self.unretracted_at(seq)

    def unretracted_at(self, seq: int) -> EntryState:
        """Its state at log position `seq`, ignoring a retraction."""
        past = [move.state for move in self.moves if move.change.seq <= seq]
        return past[-1] if past else self.first_state


@dataclass(frozen=True)
class EntryDraft:
    """An item to ban: its fingerprint and metadata."""

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
    """Why it is to be stored as a DRAFT until a second person approves it; empty: it is not."""


@dataclass(frozen=True)
class HitCounts:
    """Hits of an entry by band. `near`: how many of these had no equal digest; `shadow`: hits that
    decided nothing, not among the others; `last_us`: time of the newest that counted, 0: none."""

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

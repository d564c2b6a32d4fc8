"""Results of matching: evidence, hits, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simsearch.types.access import EVERY_BANK, BankAccess
from simsearch.types.content import SignalReport
from simsearch.types.signals import Band


@dataclass(frozen=True)
class Region:
    """A part of a picture, upright, in shares of its width and height: 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """A share of the picture's width."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """A share of the picture's height."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Evidence:
    """One signal by which an entry was hit. Exactly one of `cosine`, `hamming` is set, or
    neither for an equal digest. `threshold` is in the same scale; `rows` is how many rows of
    the entry lie within the loosest band of this signal; `region` is the part of the query's
    picture that was nearest, None for the whole. Where `withheld`, this caller is not granted
    scores: measure, threshold and region are None and `rows` is 0, whatever the signal."""

    signal: str
    band: Band
    cosine: float | None = None
    hamming: int | None = None
    threshold: float | None = None
    rows: int = 1
    withheld: bool = False
    region: Region | None = None


@dataclass(frozen=True)
class Hit:
    """An entry that the content matched, with its evidence, strongest first."""

    bank: str
    entry_key: int
    band: Band
    evidence: tuple[Evidence, ...]
    labels: tuple[str, ...] = ()
    source: str = ""
    source_id: str = ""
    capped: bool = False
    bank_etag: str = ""
    """Of the bank whose policy decided."""
    disputed: bool = False
    """The entry is DISPUTED: its band is REVIEW at most."""


@dataclass(frozen=True)
class Suppressed:
    """A hit that does not count, because `by`, of an allow-listed bank, is as near or nearer."""

    hit: Hit
    by: Hit


@dataclass(frozen=True)
class MatchOptions:
    """`banks` empty means all of them that lie within `access`. With `stop_at_block`, content that
    is blocked by a digest is asked about no further: the answer is `stopped_early`. `with_shadow`:
    the answer says what shadow entries were hit, too."""

    banks: tuple[str, ...] = ()
    hits_max: int = 10
    with_stage_times: bool = False
    access: BankAccess = EVERY_BANK
    stop_at_block: bool = False
    with_shadow: bool = False


@dataclass(frozen=True)
class MatchResult:
    """The answer about one content. `complete` is False when a signal that an asked bank's
    policy uses could not be computed or searched, or when no asked bank has a rule for a ready hash
    or vector, or when there is no bank: NONE then does not mean "no match". It is False, too, when
    the answer was `stopped_early` at a BLOCK: there may be more hits."""

    verdict: Band
    hits: tuple[Hit, ...]
    truncated: bool
    complete: bool
    signals: tuple[SignalReport, ...]
    snapshot: str
    seq: int
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    shadow: tuple[Hit, ...] = ()
    """Of entries in the shadow: they decide nothing."""
    suppressed: tuple[Suppressed, ...] = ()
    """What allow-listed banks took out of the hits: it decides nothing."""

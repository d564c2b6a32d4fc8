"""Match results: evidence, hits and verdicts, and the options of a match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simsearch.types.access import EVERY_BANK, BankAccess
from simsearch.types.content import SignalReport
from simsearch.types.signals import Band


@dataclass(frozen=True)
class Region:
    """A rectangle of the upright picture, in shares of its width and height: 0 to 1."""

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
class PicturePart:
    """One of the pictures that a picture file shows: a frame of an animation or a page, by its
    number from 0; a region of it, None for the whole; over black or over white where it is
    transparent."""

    frame: int = 0
    region: Region | None = None
    on_black: bool = False


WHOLE_PICTURE = PicturePart()
"""The whole of the first frame, over white."""


@dataclass(frozen=True)
class Evidence:
    """One signal that an entry matched by. Exactly one of `cosine`, `hamming` is set, or neither
    for an equal digest. `threshold` is on the same scale; `rows` is how many rows of the entry lie
    within the loosest band of this signal. The nearest part of the query's picture: `region`, None
    for the whole; `frame`, counted from 1, None for the first; `on_black`, over black where it is
    transparent. `withheld`: the caller may not see scores, so measure, threshold and part are unset
    and `rows` is 0."""

    signal: str
    band: Band
    cosine: float | None = None
    hamming: int | None = None
    threshold: float | None = None
    rows: int = 1
    withheld: bool = False
    region: Region | None = None
    frame: int | None = None
    on_black: bool = False

    @property
    def part(self) -> PicturePart:
        """The part of the query's picture that was nearest."""
        return PicturePart((self.frame or 1) - 1, self.region, self.on_black)


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
    """Version of the bank whose policy decided."""
    disputed: bool = False
    """The entry is DISPUTED: its band is REVIEW at most."""


@dataclass(frozen=True)
class Suppressed:
    """A hit that does not count: `by`, a hit of an allow-listed bank, is as near or nearer."""

    hit: Hit
    by: Hit


@dataclass(frozen=True)
class MatchOptions:
    """Options of a match. `banks` empty: all that lie within `access`. `stop_at_block`: content
    that an equal digest blocks is not encoded, and its result is `stopped_early`. `with_shadow`:
    the result includes hits of shadow entries."""

    banks: tuple[str, ...] = ()
    hits_max: int = 10
    with_stage_times: bool = False
    access: BankAccess = EVERY_BANK
    stop_at_block: bool = False
    with_shadow: bool = False


@dataclass(frozen=True)
class MatchResult:
    """The result for one content. `complete` is True only if every signal that a searched bank has
    a rule for was computed from all of the content and searched; it is False, too, where no
    searched bank has a rule for a ready hash or vector, and where there is no bank: NONE then does
    not mean "no match". It is also False where the match `stopped_early` at a BLOCK: there may be
    more hits."""

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
    """Hits of SHADOW entries; not part of the verdict."""
    suppressed: tuple[Suppressed, ...] = ()
    """Hits that allow-listed banks suppressed; not part of the verdict."""

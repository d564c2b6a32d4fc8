"""Hit filter: entry states, a bank's rollout ratio, and suppression by allow-listed banks.

Pure functions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from simsearch.encode.digests import content_key
from simsearch.match import policy as rules
from simsearch.types import (
    Bank,
    BankKind,
    Content,
    Entry,
    EntryState,
    Evidence,
    HashContent,
    Hit,
    PicturePart,
    Suppressed,
    VectorContent,
)

_KEY: Final = struct.Struct(">Q")
_WHOLE: Final = 2**64
COVERED_AREA_MIN: Final = 0.25
"""The share of a picture's area from which its whole hash covers a region."""

_KINDS_BY_STRENGTH: Final = ("embedding", "bits", "digest")
"""Kinds of evidence, weakest first."""


@dataclass(frozen=True)
class FilteredHits:
    """Hits by whether they count, each list strongest first."""

    hits: tuple[Hit, ...]
    shadow: tuple[Hit, ...]
    suppressed: tuple[Suppressed, ...]

    def map_hits(self, change: Callable[[Hit], Hit]) -> FilteredHits:
        """Applies `change` to every hit."""
        return FilteredHits(
            tuple(map(change, self.hits)),
            tuple(map(change, self.shadow)),
            tuple(Suppressed(change(s.hit), change(s.by)) for s in self.suppressed),
        )


NO_HITS: Final = FilteredHits((), (), ())


def filter_hits(
    hits: Sequence[Hit],
    banks: Mapping[str, Bank],
    entries: Mapping[int, Entry],
    seq: int,
    content: Content,
) -> FilteredHits:
    """Sorts hits into those that count, shadow hits and suppressed ones. `entries`: those of the
    hits, by key; `seq`: the log position of the view."""
    counting: list[Hit] = []
    shadow: list[Hit] = []
    for hit in hits:
        entry = entries.get(hit.entry_key)
        # Without its record it is still a hit; newer views do not find a retracted entry.
        state = entry.unretracted_at(seq) if entry else EntryState.ACTIVE
        if state in (EntryState.DRAFT, EntryState.QUARANTINED):
            continue
        shown = _with_metadata(_disputed(hit) if state is EntryState.DISPUTED else hit, entry)
        counts = state is not EntryState.SHADOW and is_enabled(banks[hit.bank], hit, content)
        (counting if counts else shadow).append(shown)
    allowed = [h for h in counting if banks[h.bank].kind is BankKind.ALLOWED]
    banned = [h for h in counting if banks[h.bank].kind is BankKind.BANNED]
    by = (
        {h: next((a for a in allowed if suppresses(a, h)), None) for h in banned} if allowed else {}
    )
    return FilteredHits(
        hits=ordered(h for h in banned if by.get(h) is None),
        shadow=ordered(h for h in shadow if banks[h.bank].kind is BankKind.BANNED),
        suppressed=tuple(Suppressed(h, a) for h in ordered(by) if (a := by[h])),
    )


def ordered(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """Strongest first: by band, then by the strongest evidence, then by key."""
    return tuple(sorted(hits, key=_rank))


def _rank(hit: Hit) -> tuple[object, ...]:
    return (-hit.band, *rules.strength(hit.evidence[0])[1:3], hit.entry_key)


def _disputed(hit: Hit) -> Hit:
    return replace(hit, band=rules.capped_at_review(hit.band), disputed=True)


def _with_metadata(hit: Hit, entry: Entry | None) -> Hit:
    if entry is None:
        return hit
    return replace(hit, labels=entry.labels, source=entry.source, source_id=entry.source_id)


# ---------------------------------------------------------------- rollout ratio


def is_enabled(bank: Bank, hit: Hit, content: Content) -> bool:
    """Whether this hit lies within the bank's `enabled_ratio`. Deterministic for an entry and a
    content; a larger ratio includes all hits of a smaller one."""
    if bank.enabled_ratio >= 1:
        return True
    return _portion(hit.entry_key, content) < bank.enabled_ratio


def _portion(key: int, content: Content) -> float:
    """A uniform value in [0, 1) from the SHA-256 of entry and content."""
    digest = hashlib.sha256(_KEY.pack(key) + _identity(content)).digest()
    return int(_KEY.unpack_from(digest)[0]) / _WHOLE


def _identity(content: Content) -> bytes:
    match content:
        case VectorContent(space, vectors):
            return space.encode() + vectors.tobytes()
        case HashContent(signal, value):
            return signal.encode() + value
        case _:
            return content_key(content) or b""


# ---------------------------------------------------------------- allow-lists


def suppresses(allowed: Hit, banned: Hit) -> bool:
    """Whether a hit of an allow-listed bank suppresses a hit of another bank.

    Each evidence of the banned hit must be outweighed: by a stronger kind of evidence (a digest
    over a hash, a hash over an embedding), or by the same signal at the same distance or nearer.
    An equal banned digest is never suppressed. Evidence of one part of a picture does not apply to
    another or to the whole; a digest applies to all parts, and a hash of a frame to its large
    regions (COVERED_AREA_MIN).
    """
    return all(any(_outweighs(a, b) for a in allowed.evidence) for b in banned.evidence)


def _outweighs(allowed: Evidence, banned: Evidence) -> bool:
    if allowed.part != banned.part:
        return allowed.region is None and _covers_part(allowed, banned.part)
    kinds = [_KINDS_BY_STRENGTH.index(rules.kind_of(e)) for e in (allowed, banned)]
    if kinds[0] != kinds[1]:
        return kinds[0] > kinds[1]
    if allowed.signal != banned.signal:
        return False
    if allowed.hamming is not None and banned.hamming is not None:
        return allowed.hamming <= banned.hamming
    if allowed.cosine is not None and banned.cosine is not None:
        return allowed.cosine >= banned.cosine
    return False


def _covers_part(whole: Evidence, part: PicturePart) -> bool:
    """Whether evidence of the whole picture applies to one part. A hash of a whole frame is not
    near if a quarter of it was replaced, but may be if a tenth was; of another frame it says
    nothing. For an embedding no such bound is known."""
    match rules.kind_of(whole):
        case "digest":
            return True
        case "bits":
            region, frame = part.region, replace(part, region=None)
            if region is None or whole.part != frame:
                return False
            return region.width * region.height >= COVERED_AREA_MIN
        case _:
            return False

"""Which hits count: by the state of their entries, by the share of hits that a bank lets count, and
by what allow-listed banks know to be harmless. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from simsearch.encode.cache.fingerprint_cache import content_key
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
    Region,
    Suppressed,
    VectorContent,
)

_KEY: Final = struct.Struct(">Q")
_WHOLE: Final = 2**64
COVERED_AREA_MIN: Final = 0.25
"""Of a picture's area, from which on its hash knows a part of it."""

_KINDS_BY_STRENGTH: Final = ("embedding", "bits", "digest")
"""Kinds of evidence, by how much they know of a content."""


@dataclass(frozen=True)
class FilteredHits:
    """Strongest first, each of them."""

    hits: tuple[Hit, ...]
    shadow: tuple[Hit, ...]
    suppressed: tuple[Suppressed, ...]

    def map_hits(self, change: Callable[[Hit], Hit]) -> FilteredHits:
        """Each hit as its caller is told of it."""
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
    """`entries` are those of the hits, `seq` is the log position that answers."""
    counting: list[Hit] = []
    shadow: list[Hit] = []
    for hit in hits:
        entry = entries.get(hit.entry_key)
        # Without its card it is still a hit. And what is retracted is none in no younger view.
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
    """By band, then by the strongest evidence, then by key."""
    return tuple(sorted(hits, key=_rank))


def _rank(hit: Hit) -> tuple[object, ...]:
    return (-hit.band, *rules.strength(hit.evidence[0])[1:3], hit.entry_key)


def _disputed(hit: Hit) -> Hit:
    return replace(hit, band=rules.capped_at_review(hit.band), disputed=True)


def _with_metadata(hit: Hit, entry: Entry | None) -> Hit:
    if entry is None:
        return hit
    return replace(hit, labels=entry.labels, source=entry.source, source_id=entry.source_id)


# ---------------------------------------------------------------- a share of the hits


def is_enabled(bank: Bank, hit: Hit, content: Content) -> bool:
    """Whether this hit is of the share that the bank lets count: for one entry and one content
    always the same, and of those of a smaller share all are in a larger one."""
    if bank.enabled_ratio >= 1:
        return True
    return _portion(hit.entry_key, content) < bank.enabled_ratio


def _portion(key: int, content: Content) -> float:
    """0 to below 1, evenly, from the SHA-256 of entry and content."""
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


# ---------------------------------------------------------------- what is known to be harmless


def suppresses(allowed: Hit, banned: Hit) -> bool:
    """Whether a hit of an allow-listed bank suppresses another one.

    It must know the content at least as well as each signal that speaks against it: by a kind of
    evidence that is stronger (a digest before a hash, a hash before an embedding), or by the same
    signal and as near or nearer. A digest that is banned is never suppressed. One part of a picture
    says nothing of another or of the whole. The whole, where its digest or its hash is known,
    speaks for its parts, a hash for the large ones alone.
    """
    return all(any(_outweighs(a, b) for a in allowed.evidence) for b in banned.evidence)


def _outweighs(allowed: Evidence, banned: Evidence) -> bool:
    if allowed.region != banned.region:
        return allowed.region is None and _covers_part(allowed, banned.region)
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


def _covers_part(whole: Evidence, part: Region | None) -> bool:
    """A hash of the whole would not be near, had another picture been put in its place: so it is
    with a quarter, and not with a tenth. What an embedding has seen nobody knows."""
    match rules.kind_of(whole):
        case "digest":
            return True
        case "bits":
            return part is not None and part.width * part.height >= COVERED_AREA_MIN
        case _:
            return False

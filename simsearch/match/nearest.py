"""Nearest-entry search, independent of the banks' thresholds, for analysts. No verdict is given."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.fingerprint import ContentFingerprint
from simsearch.errors import BadRequest
from simsearch.index.rescore import exact_cosines
from simsearch.match.evidence import MatchQuery, View, gather_evidence
from simsearch.types import (
    BINARY,
    BINARY_BYTES,
    BITS_BYTES,
    DIGESTS,
    Band,
    Bank,
    Bits,
    Content,
    CosineRule,
    DigestRule,
    Entry,
    EntryState,
    Evidence,
    Fingerprint,
    HammingRule,
    Policy,
    Signal,
    Vectors,
)

UNRELATED: Final = 1 / 2
"""The mean share of bits in which two unrelated hashes differ."""

COSINE_LEAST: Final = 0.2
HAMMING_MOST: Final = 120
"""Limits of DistanceLimits: beyond them unrelated entries match, and a search would sort whole
banks."""

_EXACT_PAIRS: Final = 16
"""How many of the best pairs by float32 are rescored exactly."""


WIDER: Final = BINARY_BYTES[Signal.MINHASH1024] // BITS_BYTES


@dataclass(frozen=True)
class DistanceLimits:
    """Thresholds of a search: a least cosine, and greatest distances in bits of 256; for a signal
    of 1,024 bits they count four times."""

    cosine_min: float = 0.5
    pdq_max: int = 80
    minhash_max: int = 100

    @classmethod
    def of(cls, cosine_min: float | None, hamming_max: int | None) -> DistanceLimits:
        """The given limits; None: the default. Raises BadRequest."""
        limits = cls()
        if cosine_min is not None:
            if not COSINE_LEAST <= cosine_min <= 1:  # as no NaN is, too
                raise BadRequest(f"cosine_min is {cosine_min}: give {COSINE_LEAST} to 1")
            limits = replace(limits, cosine_min=cosine_min)
        if hamming_max is not None:
            if not 0 <= hamming_max <= HAMMING_MOST:
                raise BadRequest(f"hamming_max is {hamming_max}: give 0 to {HAMMING_MOST} bits")
            limits = replace(limits, pdq_max=hamming_max, minhash_max=hamming_max)
        return limits

    def policy(self, fingerprint: ContentFingerprint) -> Policy:
        """A policy with one LOG rule for each signal of the query."""
        spaces = fingerprint.fingerprint.vectors if fingerprint.modality else ()
        return Policy(
            cosine=tuple(
                CosineRule(space, fingerprint.modality, log=self.cosine_min)
                for space in spaces
                if fingerprint.modality
            ),
            hamming=(
                HammingRule(Signal.PDQ, log=self.pdq_max),
                HammingRule(Signal.MINHASH, log=self.minhash_max),
                HammingRule(Signal.MINHASH1024, log=self.minhash_max * WIDER),
            ),
            digests=tuple(DigestRule(signal, Band.LOG) for signal in DIGESTS),
        )


@dataclass(frozen=True)
class NearEntry:
    """A near entry and its evidence, nearest signal first, without bands and thresholds."""

    bank: str
    entry: Entry
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class NearestEntries:
    """Near entries, nearest first. `truncated`: there are more, or a search was truncated."""

    found: tuple[NearEntry, ...]
    truncated: bool


def find_nearest(
    fingerprint: ContentFingerprint,
    content: Content,
    view: View,
    banks: Sequence[Bank],
    states: Collection[EntryState],
    *,
    limit: int,
    limits: DistanceLimits,
) -> NearestEntries:
    """The entries of `banks` in one of `states` (empty: any) that lie within the limits."""
    policy = limits.policy(fingerprint)
    query = MatchQuery(fingerprint, content)
    gather_evidence([query], view, [replace(bank, policy=policy) for bank in banks])
    names = {bank.id: bank.name for bank in banks}
    entries = view.entries([key for _, key in query.evidence])
    near = [
        NearEntry(names[bank_id], entries[key], _each_signal_once(map(_unjudged, evidence)))
        for (bank_id, key), evidence in query.evidence.items()
        if key in entries and _is_wanted(entries[key], states)
    ]
    near.sort(key=lambda each: (*_rank(each.evidence[0]), each.entry.key))
    return NearestEntries(tuple(near[:limit]), query.truncated or len(near) > limit)


def _is_wanted(entry: Entry, states: Collection[EntryState]) -> bool:
    """Also excludes entries retracted since the view was made."""
    return entry.state is not EntryState.RETRACTED and (not states or entry.state in states)


def compare(one: Fingerprint, other: Fingerprint) -> tuple[Evidence, ...]:
    """The best pair of rows of each signal that both have, and equal digests; nearest first.
    Stored rows are compared as they are, without rotations of pictures."""
    equal = [s for s in DIGESTS if set(one.digests.get(s, ())) & set(other.digests.get(s, ()))]
    found = [Evidence(signal, Band.NONE) for signal in equal]
    for signal in BINARY:
        if signal in one.bits and signal in other.bits:
            distance = least_hamming(one.bits[signal], other.bits[signal])
            found.append(Evidence(signal, Band.NONE, hamming=distance))
    for space in one.vectors.keys() & other.vectors.keys():
        cosine = greatest_cosine(one.vectors[space], other.vectors[space])
        found.append(Evidence(space, Band.NONE, cosine=cosine))
    return _best_first(found)


def least_hamming(one: Bits, other: Bits) -> int:
    """The least distance of all pairs of rows, in bits."""
    a, b = (np.unpackbits(rows, axis=1).astype(np.float32) for rows in (one, other))
    distances = a.sum(1)[:, None] + b.sum(1)[None, :] - 2 * (a @ b.T)  # whole numbers up to 1,024
    return int(distances.min())


def greatest_cosine(one: Vectors, other: Vectors) -> float:
    """The greatest cosine of all pairs of rows: candidates by float32, the result exact."""
    rough = (one @ other.T).ravel()
    count = min(_EXACT_PAIRS, len(rough))
    best: NDArray[np.intp] = np.argpartition(rough, -count)[-count:]
    at, beside = np.divmod(best, len(other))
    return float(exact_cosines(one[at], other[beside]).max())


def _unjudged(evidence: Evidence) -> Evidence:
    return replace(evidence, band=Band.NONE, threshold=None)


def _each_signal_once(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Keeps each signal once, for the nearest part of the picture."""
    best: dict[str, Evidence] = {}
    for each in _best_first(evidence):
        best.setdefault(each.signal, each)
    return tuple(best.values())


def _best_first(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    return tuple(sorted(evidence, key=_rank))


def _rank(evidence: Evidence) -> tuple[float, int, str]:
    """A sort key, smaller is nearer. Signals share one scale: a distance counts as 1 minus its
    ratio to that of unrelated hashes, a cosine as it is; an equal digest comes first."""
    if evidence.cosine is not None:
        return -evidence.cosine, 1, evidence.signal
    if evidence.hamming is not None:
        bits = 8 * BINARY_BYTES[Signal(evidence.signal)]
        return evidence.hamming / (bits * UNRELATED) - 1, 1, evidence.signal
    return -1.0, 0, evidence.signal

"""What is nearest to a content, or to an entry, whatever the banks' thresholds: for people who look
around. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simsearch.encode.fingerprint import ContentFingerprint
from simsearch.errors import BadRequest
from simsearch.index.rescore import exact_cosines
from simsearch.match.evidence import Question, View, ask
from simsearch.types import (
    BINARY,
    BITS,
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

UNRELATED_BITS: Final = BITS // 2
"""The distance that two hashes have by chance."""

COSINE_LEAST: Final = 0.2
HAMMING_MOST: Final = 120
"""Beyond these everything is near, and searches would sort whole banks."""

_EXACT_PAIRS: Final = 16
"""How many of the best pairs by float32 are measured exactly."""


@dataclass(frozen=True)
class Reach:
    """How near is near enough: a cosine, and distances in bits."""

    cosine_min: float = 0.5
    pdq_max: int = 80
    minhash_max: int = 100

    @classmethod
    def of(cls, cosine_min: float | None, hamming_max: int | None) -> Reach:
        """None: the default. Raises BadRequest."""
        reach = cls()
        if cosine_min is not None:
            if not COSINE_LEAST <= cosine_min <= 1:  # as no NaN is, too
                raise BadRequest(f"cosine_min is {cosine_min}: give {COSINE_LEAST} to 1")
            reach = replace(reach, cosine_min=cosine_min)
        if hamming_max is not None:
            if not 0 <= hamming_max <= HAMMING_MOST:
                raise BadRequest(f"hamming_max is {hamming_max}: give 0 to {HAMMING_MOST} bits")
            reach = replace(reach, pdq_max=hamming_max, minhash_max=hamming_max)
        return reach

    def policy(self, asked: ContentFingerprint) -> Policy:
        """One rule for each signal of the print."""
        spaces = asked.fingerprint.vectors if asked.modality else ()
        return Policy(
            cosine=tuple(
                CosineRule(space, asked.modality, log=self.cosine_min)
                for space in spaces
                if asked.modality
            ),
            hamming=(
                HammingRule(Signal.PDQ, log=self.pdq_max),
                HammingRule(Signal.MINHASH, log=self.minhash_max),
            ),
            digests=tuple(DigestRule(signal, Band.LOG) for signal in DIGESTS),
        )


@dataclass(frozen=True)
class Near:
    """An entry and by what it is near, the nearest first; of no band and no threshold."""

    bank: str
    entry: Entry
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Nearest:
    """Best first. `truncated`: there are more, or there were more near rows than a search gives."""

    found: tuple[Near, ...]
    truncated: bool


def find(
    asked: ContentFingerprint,
    content: Content,
    view: View,
    banks: Sequence[Bank],
    states: Collection[EntryState],
    *,
    limit: int,
    reach: Reach,
) -> Nearest:
    """The entries of `banks` in one of `states` (none: in any) that lie within reach."""
    policy = reach.policy(asked)
    question = Question(asked, content)
    ask([question], view, [replace(bank, policy=policy) for bank in banks])
    names = {bank.id: bank.name for bank in banks}
    entries = view.entries([key for _, key in question.evidence])
    near = [
        Near(names[bank_id], entries[key], _each_signal_once(map(_unjudged, evidence)))
        for (bank_id, key), evidence in question.evidence.items()
        if key in entries and _is_wanted(entries[key], states)
    ]
    near.sort(key=lambda each: (*_rank(each.evidence[0]), each.entry.key))
    return Nearest(tuple(near[:limit]), question.truncated or len(near) > limit)


def _is_wanted(entry: Entry, states: Collection[EntryState]) -> bool:
    """What was retracted since the view was made is not shown either."""
    return entry.state is not EntryState.RETRACTED and (not states or entry.state in states)


def compare(one: Fingerprint, other: Fingerprint) -> tuple[Evidence, ...]:
    """Of each signal that both have the best pair of rows, and the digests that are equal; the
    nearest first. Rows are compared as they are stored: pictures are not turned."""
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
    """In bits, of all pairs of rows."""
    a, b = (np.unpackbits(rows, axis=1).astype(np.float32) for rows in (one, other))
    distances = a.sum(1)[:, None] + b.sum(1)[None, :] - 2 * (a @ b.T)  # whole numbers up to 256
    return int(distances.min())


def greatest_cosine(one: Vectors, other: Vectors) -> float:
    """Of all pairs of rows: proposed in float32, decided exactly."""
    rough = (one @ other.T).ravel()
    count = min(_EXACT_PAIRS, len(rough))
    best: NDArray[np.intp] = np.argpartition(rough, -count)[-count:]
    at, beside = np.divmod(best, len(other))
    return float(exact_cosines(one[at], other[beside]).max())


def _unjudged(evidence: Evidence) -> Evidence:
    return replace(evidence, band=Band.NONE, threshold=None)


def _each_signal_once(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """By the part of the picture that is nearest."""
    best: dict[str, Evidence] = {}
    for each in _best_first(evidence):
        best.setdefault(each.signal, each)
    return tuple(best.values())


def _best_first(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    return tuple(sorted(evidence, key=_rank))


def _rank(evidence: Evidence) -> tuple[float, int, str]:
    """A sort key, smaller is nearer, on one scale for all signals: a cosine as it is, a distance as
    what it is short of chance. An equal digest comes before all."""
    if evidence.cosine is not None:
        return -evidence.cosine, 1, evidence.signal
    if evidence.hamming is not None:
        return evidence.hamming / UNRELATED_BITS - 1, 1, evidence.signal
    return -1.0, 0, evidence.signal

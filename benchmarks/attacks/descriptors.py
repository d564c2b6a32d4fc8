"""One descriptor each: how close a query is to every entry of a bank, and at which threshold a
policy would say so.

Closeness is larger for nearer pairs: a cosine, a Hamming distance below 0, 1 for an equal digest;
-inf where either side lacks the signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.attacks.statistics import Floats
from simsearch.encode.fingerprint import ContentFingerprint
from simsearch.index.index_protocol import COSINE_DECIMALS
from simsearch.types import (
    BITS,
    Band,
    CosineRule,
    DigestRule,
    Fingerprint,
    HammingRule,
    Modality,
    Policy,
    Signal,
)

Rule: TypeAlias = CosineRule | HammingRule | DigestRule

EQUAL: Final = 1.0


class Descriptor(Protocol):
    """`fixed` is a threshold that is not set by negatives; None where it is. `whole`: it knows
    nothing of pictures found in the picture that asks."""

    @property
    def name(self) -> str: ...

    @property
    def whole(self) -> bool: ...

    @property
    def signal(self) -> str:
        """As evidence names it."""
        ...

    @property
    def fixed(self) -> float | None: ...

    def closeness(self, queries: Sequence[Fingerprint], bank: Sequence[Fingerprint]) -> Floats:
        """(queries, bank)."""
        ...

    def above(self, closeness: float) -> float:
        """The loosest threshold that a pair of this closeness does not pass."""
        ...

    def shown(self, threshold: float) -> str:
        """A threshold as a policy writes it."""
        ...

    def rule(self, threshold: float) -> Rule | None:
        """None for a threshold that nothing can pass."""
        ...


@dataclass(frozen=True)
class Cosine:
    """The cosine of two vectors of one space, rounded as the index rounds it."""

    name: str
    space: str
    modality: Modality
    fixed: float | None = None
    whole: bool = False

    @property
    def signal(self) -> str:
        return self.space

    def closeness(self, queries: Sequence[Fingerprint], bank: Sequence[Fingerprint]) -> Floats:
        asked = _Rows.of([_unit(f.vectors.get(self.space)) for f in queries])
        stored = _Rows.of([_unit(f.vectors.get(self.space)) for f in bank])
        return _nearest(asked, stored, lambda a, b: np.round(a @ b.T, COSINE_DECIMALS))

    def above(self, closeness: float) -> float:
        step = 10.0**-COSINE_DECIMALS
        return max(round(closeness + step, COSINE_DECIMALS), -1.0)

    def shown(self, threshold: float) -> str:
        return f">= {threshold:.5f}" if threshold <= 1 else "off"

    def rule(self, threshold: float) -> CosineRule | None:
        if threshold > 1:
            return None
        return CosineRule(self.space, self.modality, review=threshold)


@dataclass(frozen=True)
class Hamming:
    """The distance of 256 bits; of a query's rows the nearest, or the first alone (`upright`)."""

    name: str
    of: Signal
    fixed: float | None = None
    upright: bool = False
    whole: bool = False

    @property
    def signal(self) -> str:
        return str(self.of)

    def closeness(self, queries: Sequence[Fingerprint], bank: Sequence[Fingerprint]) -> Floats:
        rows = [f.bits.get(self.of) for f in queries]
        if self.upright:
            rows = [r if r is None else r[:1] for r in rows]
        asked = _Rows.of([_signs(r) for r in rows])
        stored = _Rows.of([_signs(f.bits.get(self.of)) for f in bank])
        return _nearest(asked, stored, lambda a, b: (a @ b.T - BITS) / 2)

    def above(self, closeness: float) -> float:
        return max(closeness + 1, -float(BITS))

    def shown(self, threshold: float) -> str:
        return f"<= {-threshold:.0f} bits" if threshold <= 0 else "off"

    def rule(self, threshold: float) -> HammingRule | None:
        return HammingRule(self.of, review=round(-threshold)) if threshold <= 0 else None


@dataclass(frozen=True)
class Digest:
    """Equality of one digest."""

    name: str
    of: Signal
    fixed: float | None = EQUAL
    whole: bool = False

    @property
    def signal(self) -> str:
        return str(self.of)

    def closeness(self, queries: Sequence[Fingerprint], bank: Sequence[Fingerprint]) -> Floats:
        close = np.full((len(queries), len(bank)), -math.inf)
        owners: dict[bytes, list[int]] = {}
        for number, entry in enumerate(bank):
            for value in entry.digests.get(self.of, ()):
                owners.setdefault(value, []).append(number)
        for number, query in enumerate(queries):
            for value in query.digests.get(self.of, ()):
                close[number, owners.get(value, [])] = EQUAL
        return close

    def above(self, closeness: float) -> float:
        return EQUAL

    def shown(self, threshold: float) -> str:
        return "equal"

    def rule(self, threshold: float) -> DigestRule:
        return DigestRule(self.of, Band.REVIEW)


def policy_of(thresholds: Sequence[tuple[Descriptor, float]]) -> Policy:
    """A policy that says REVIEW at each descriptor's threshold, and lacks those that are off."""
    rules = [rule for part, t in thresholds if (rule := part.rule(t)) is not None]
    return Policy(
        tuple(rule for rule in rules if isinstance(rule, CosineRule)),
        tuple(rule for rule in rules if isinstance(rule, HammingRule)),
        tuple(rule for rule in rules if isinstance(rule, DigestRule)),
    )


def held_at(part: Hamming, bits: int) -> Hamming:
    """The same descriptor with a threshold that is not set by negatives."""
    return replace(part, fixed=-float(bits))


def of_the_whole(asked: ContentFingerprint) -> Fingerprint:
    """Without the rows of pictures found in it."""
    held = asked.fingerprint
    whole = [number for number, part in enumerate(asked.parts) if part.region is None]
    kept = {signal: np.isin(rows, whole) for signal, rows in asked.part_of_row.items()}
    return Fingerprint(
        held.digests,
        {s: rows[kept[s]] if s in kept else rows for s, rows in held.bits.items()},
        {s: rows[kept[s]] if s in kept else rows for s, rows in held.vectors.items()},
    )


# ---------------------------------------------------------------- many rows an item


@dataclass(frozen=True)
class _Rows:
    """The rows of several items below each other; item `owners[i]` owns `counts[i]` of them.
    Items without rows own none."""

    rows: NDArray[np.float64]
    owners: NDArray[np.intp]
    starts: NDArray[np.intp]
    items: int

    @classmethod
    def of(cls, items: Sequence[NDArray[np.float64] | None]) -> _Rows:
        there = [(number, rows) for number, rows in enumerate(items) if rows is not None]
        if not there:
            empty = np.zeros(0, np.intp)
            return cls(np.zeros((0, 0)), empty, empty, len(items))
        lengths = np.array([len(rows) for _, rows in there])
        return cls(
            np.concatenate([rows for _, rows in there]),
            np.array([number for number, _ in there]),
            np.concatenate(([0], np.cumsum(lengths[:-1]))),
            len(items),
        )


class _Compare(Protocol):
    def __call__(self, a: NDArray[np.float64], b: NDArray[np.float64], /) -> Floats: ...


def _nearest(asked: _Rows, stored: _Rows, compare: _Compare) -> Floats:
    """Of each query and entry the closest pair of rows."""
    close = np.full((asked.items, stored.items), -math.inf)
    if len(asked.rows) and len(stored.rows):
        pairs = compare(asked.rows, stored.rows)
        pairs = np.maximum.reduceat(pairs, asked.starts, axis=0)
        pairs = np.maximum.reduceat(pairs, stored.starts, axis=1)
        close[np.ix_(asked.owners, stored.owners)] = pairs
    return close


def _unit(vectors: NDArray[np.float32] | None) -> NDArray[np.float64] | None:
    if vectors is None or len(vectors) == 0:
        return None
    exact = vectors.astype(np.float64)
    unit: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit


def _signs(rows: NDArray[np.uint8] | None) -> NDArray[np.float64] | None:
    """-1 for a bit that is 0: the product of two rows is 256 less twice their distance."""
    if rows is None or len(rows) == 0:
        return None
    return np.unpackbits(rows, axis=1).astype(np.float64) * 2 - 1

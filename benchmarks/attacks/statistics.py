"""Thresholds set on one half of the negatives, and shares with their intervals.

Everything is in *closeness*: larger is nearer, whatever the signal (descriptors.py). Negatives are
contents that are not in the bank; the closeness of one is that to its nearest banked entry, so a
false positive is a query that hits anything at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simsearch.match.agreement import clopper_pearson

CONFIDENCE: Final = 0.95
_Z: Final = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)

RESAMPLES: Final = 1_000

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]


class Halves(NamedTuple):
    """Positions of negatives: thresholds see `setting` alone, false positives are counted in
    `reporting` alone."""

    setting: Numbers
    reporting: Numbers


def halves(count: int, seed: int) -> Halves:
    """Of `count` negatives, by a shuffle that `seed` fixes."""
    order = np.random.default_rng(seed).permutation(count)
    return Halves(np.sort(order[: count // 2]), np.sort(order[count // 2 :]))


def cut(closest: Floats, allowed: int) -> float:
    """The (allowed + 1)th largest of `closest` (n,): a threshold just above it is passed by at
    most `allowed` of them. -inf where all may pass."""
    if allowed >= len(closest):
        return -math.inf
    return float(np.sort(closest)[len(closest) - 1 - allowed])


def allowed_of(fpr: float, negatives: int) -> int:
    """False positives that a rate grants to so many negatives."""
    return math.floor(fpr * negatives + 1e-9)


def is_supported(fpr: float, negatives: int) -> bool:
    """Whether a threshold for this rate rests on at least one negative that may pass it. Below
    that it lies above all of them, and how far above is anybody's guess."""
    return allowed_of(fpr, negatives) >= 1


@dataclass(frozen=True)
class FalsePositives:
    """Of negatives that no threshold has seen."""

    hits: int
    negatives: int

    @property
    def rate(self) -> float:
        return self.hits / self.negatives if self.negatives else math.nan

    @property
    def bounds(self) -> tuple[float, float]:
        """Clopper and Pearson's, 95 %."""
        return clopper_pearson(self.hits, self.negatives)

    def figures(self) -> dict[str, object]:
        low, high = self.bounds
        return {
            "hits": self.hits,
            "negatives": self.negatives,
            "rate": round(self.rate, 6),
            "bounds": [round(low, 6), round(high, 6)],
        }

    def __str__(self) -> str:
        low, high = self.bounds
        return f"{self.hits} of {self.negatives}: {self.rate:.2%} ({low:.2%} to {high:.2%})"


@dataclass(frozen=True)
class Recall:
    """Copies that were found, of those that were asked."""

    found: int
    asked: int

    @classmethod
    def of(cls, found: Flags) -> Recall:
        return cls(int(found.sum()), len(found))

    @property
    def share(self) -> float:
        return self.found / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.found, self.asked)

    def __str__(self) -> str:
        """As in "87 (83-90)", in per cent."""
        low, high = self.interval
        return f"{100 * self.share:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The score interval of a share, 95 % (Wilson, JASA 22, 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, extra = successes / trials, _Z**2 / trials
    middle = (share + extra / 2) / (1 + extra)
    half = _Z / (1 + extra) * math.sqrt(share * (1 - share) / trials + extra / (4 * trials))
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True)
class Mean:
    """Of the recall of several attacks, each counting the same, with a 95 % interval."""

    value: float
    low: float
    high: float

    def figures(self) -> list[float]:
        """[value, low, high]."""
        return [round(x, 4) for x in (self.value, self.low, self.high)]

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}-{100 * self.high:.1f})"


def mean_recall(found: Flags, seed: int = 0) -> Mean:
    """`found` is (attacks, entries). The interval is a bootstrap over the entries, every one with
    all its copies: copies of one picture are found or missed together."""
    if found.size == 0:
        return Mean(math.nan, math.nan, math.nan)
    by_entry = found.mean(axis=0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(by_entry), (RESAMPLES, len(by_entry)))
    means = by_entry[drawn].mean(axis=1)
    edges = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
    low, high = np.percentile(means, edges)
    return Mean(float(by_entry.mean()), float(low), float(high))

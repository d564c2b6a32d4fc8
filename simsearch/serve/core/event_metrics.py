"""What was asked and answered, in plain numbers: counted on the way, read when somebody scrapes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Generic, TypeVar

from simsearch.errors import SimsearchError
from simsearch.match.matcher import Outcome
from simsearch.types import Band

K = TypeVar("K")

CALL_BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
STAGE_BOUNDS_S: Final = (0.0001, 0.0005, *CALL_BOUNDS_S[:13])
VISIBLE_BOUNDS_S: Final = CALL_BOUNDS_S[:14]

BANKS_MAX: Final = 200
"""Banks that are counted by name; what is hit in any further one counts for OTHER_BANKS."""

OTHER_BANKS: Final = "(others)"
"""No name that a bank can have."""


@dataclass(frozen=True)
class Spread:
    """`counts[i]` observations were at or below `bounds[i]` and above the bound before; the last
    has no bound. `total` is the sum of all values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, observations at or below it), infinity last."""
        return list(zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True))


class Histogram:
    """Counts of values by size. Safe to use from any number of threads."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._total += value

    @property
    def spread(self) -> Spread:
        with self._lock:
            return Spread(self._bounds, tuple(self._counts), self._total)


class Histograms(Generic[K]):
    """One for each key, of which there must be few: made as it is first met."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._by_key: dict[K, Histogram] = {}

    def observe(self, key: K, value: float) -> None:
        held = self._by_key.get(key)
        (held or self._by_key.setdefault(key, Histogram(self._bounds))).observe(value)

    def spreads(self) -> dict[K, Spread]:
        return {key: histogram.spread for key, histogram in dict(self._by_key).items()}


@dataclass(frozen=True)
class AnswerCounts:
    """Contents by verdict, hits by (bank, band), refused contents by reason; and of the results
    how many were not `complete`, and how many `truncated`."""

    verdicts: Mapping[Band, int]
    hits: Mapping[tuple[str, Band], int]
    shadow_hits: Mapping[tuple[str, Band], int]
    suppressed: Mapping[tuple[str, str], int]
    """By the bank of the hit and the allow-listed one."""
    refused: Mapping[str, int]
    incomplete: int
    truncated: int


class Answers:
    """Counts every content that was judged or refused. Safe to use from any number of threads."""

    def __init__(self, banks_max: int = BANKS_MAX) -> None:
        self._banks_max = banks_max
        self._lock = threading.Lock()
        self._verdicts: Counter[Band] = Counter()
        self._hits: Counter[tuple[str, Band]] = Counter()
        self._shadow_hits: Counter[tuple[str, Band]] = Counter()
        self._suppressed: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()
        self._banks: set[str] = set()
        self._incomplete = self._truncated = 0

    def add(self, outcomes: Iterable[Outcome]) -> None:
        with self._lock:
            for outcome in outcomes:
                if isinstance(outcome, SimsearchError):
                    self._refused[outcome.reason] += 1
                    continue
                self._verdicts[outcome.verdict] += 1
                self._incomplete += not outcome.complete
                self._truncated += outcome.truncated
                for hit in outcome.hits:
                    self._hits[self._named(hit.bank), hit.band] += 1
                for hit in outcome.shadow:
                    self._shadow_hits[self._named(hit.bank), hit.band] += 1
                for s in outcome.suppressed:
                    self._suppressed[self._named(s.hit.bank), self._named(s.by.bank)] += 1

    def _named(self, bank: str) -> str:
        if bank not in self._banks and len(self._banks) >= self._banks_max:
            return OTHER_BANKS
        self._banks.add(bank)
        return bank

    @property
    def counts(self) -> AnswerCounts:
        with self._lock:
            return AnswerCounts(
                verdicts=dict(self._verdicts),
                hits=dict(self._hits),
                shadow_hits=dict(self._shadow_hits),
                suppressed=dict(self._suppressed),
                refused=dict(self._refused),
                incomplete=self._incomplete,
                truncated=self._truncated,
            )

"""Verdict cache: the same content and options against the same view get the cached result.

A result belongs to the view that gave it. Every edit and every new snapshot makes a new view, so no
result outlives what it was true of. The fingerprint cache then still saves the encoding.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count
from typing import Protocol

from simsearch.encode.cache.lru import Lru
from simsearch.encode.digests import content_key
from simsearch.errors import BankArchived, BankNotFound
from simsearch.match.evidence import View
from simsearch.match.matcher import Outcome, ViewSource, selected_banks
from simsearch.telemetry import StageClock
from simsearch.types import (
    NO_CALL,
    Band,
    Bank,
    CallContext,
    Content,
    MatchOptions,
    MatchResult,
    SignalReport,
    SignalState,
)

QUERIES_MAX = 1_024
"""Combinations of banks and options that have a number at a time."""


class Matching(Protocol):
    """Matches batches: a Matcher, or a cache in front of one."""

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """A result or an error for each content."""
        ...


@dataclass(frozen=True)
class VerdictCacheCounts:
    """Lookups of images and texts, found or not, and the size of the cache. Results of past views
    stay until newer ones take their place."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0


class VerdictCache:
    """A cache in front of a Matcher. Safe to call from any number of threads."""

    def __init__(self, matcher: Matching, views: ViewSource, verdicts_max: int) -> None:
        """`views`: those that the matcher searches. Each hit of a result counts as one more
        verdict."""
        self._matcher = matcher
        self._views = views
        self._verdicts = Lru[MatchResult](verdicts_max, _weight)
        self._lock = threading.Lock()
        self._numbers = count()
        self._query_numbers: _QueryNumbers | None = None
        self._hits = self._misses = 0

    @property
    def counts(self) -> VerdictCacheCounts:
        """Totals since the start, and the size of the cache."""
        with self._lock:
            done = (self._hits, self._misses)
        return VerdictCacheCounts(*done, self._verdicts.evictions, len(self._verdicts))

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """The results and errors of Matcher.match. A cached result has the stage "cache" alone."""
        clock = StageClock()
        with clock.stage("cache"):
            view = self._views.view
            keys = self._keys(contents, view, options)
            found = dict(self._cached(keys))
        missing = [i for i in range(len(contents)) if i not in found]
        self._count(len(found), sum(keys[i] is not None for i in missing))
        answers: dict[int, Outcome] = {**found}
        if options.with_stage_times:
            answers = {i: replace(verdict, stage_ms=dict(clock.ms)) for i, verdict in found.items()}
        if missing or not contents:  # without contents, options are checked all the same
            outcomes = self._matcher.match([contents[i] for i in missing], options, call)
            answers |= zip(missing, outcomes, strict=True)
            self._keep([keys[i] for i in missing], outcomes, view)
        return [answers[i] for i in range(len(contents))]

    def _cached(self, keys: Sequence[bytes | None]) -> Iterator[tuple[int, MatchResult]]:
        for i, key in enumerate(keys):
            if key is not None and (verdict := self._verdicts.get(key)) is not None:
                yield i, verdict

    def _keep(self, keys: Sequence[bytes | None], outcomes: Sequence[Outcome], view: View) -> None:
        """Cache the results of this view that would be the same again."""
        if self._views.view is not view:  # the matcher may have searched the next one
            return
        for key, outcome in zip(keys, outcomes, strict=True):
            if key is None or not isinstance(outcome, MatchResult) or not _lasts(outcome):
                continue
            if (outcome.seq, outcome.snapshot) == (view.seq, view.snapshot):
                self._verdicts.put(key, _kept(outcome))

    def _count(self, hits: int, misses: int) -> None:
        with self._lock:
            self._hits += hits
            self._misses += misses

    # ------------------------------------------------------------ keys

    def _keys(
        self, contents: Sequence[Content], view: View, options: MatchOptions
    ) -> list[bytes | None]:
        """None for what is not cached: ready vectors and hashes, and all contents where the view
        has changed already or a bank is missing."""
        number = self._number(view, options)
        if number is None:
            return [None] * len(contents)
        keys = map(content_key, contents)
        return [key if key is None else key + number for key in keys]

    def _number(self, view: View, options: MatchOptions) -> bytes | None:
        query_numbers = self._query_numbers
        if query_numbers is None or query_numbers.view() is not view:
            if self._views.view is not view:
                return None
            query_numbers = self._query_numbers = _QueryNumbers(view, self._numbers)
        timeless = replace(options, with_stage_times=False) if options.with_stage_times else options
        return query_numbers.number_of(timeless)


class _QueryNumbers:
    """Numbers of the combinations of banks and options for one view. No number is used twice, so
    that results of past views are never found, though they are still in the cache."""

    def __init__(self, view: View, numbers: Iterator[int]) -> None:
        self.view = weakref.ref(view)
        self.number_of = lru_cache(QUERIES_MAX)(partial(_number, view.banks, numbers))


def _number(
    banks: Mapping[str, Bank], numbers: Iterator[int], options: MatchOptions
) -> bytes | None:
    """8 bytes; None where a bank is missing or archived."""
    try:
        selected_banks(banks, options)
    except (BankNotFound, BankArchived):
        return None
    return next(numbers).to_bytes(8, "big")


def _weight(result: MatchResult) -> int:
    return 1 + len(result.hits) + len(result.shadow) + 2 * len(result.suppressed)


def _lasts(result: MatchResult) -> bool:
    """Not where it stopped early or an encoder was unavailable: that may pass."""
    states = {report.state for report in result.signals}
    return SignalState.UNAVAILABLE not in states and not result.stopped_early


def _kept(result: MatchResult) -> MatchResult:
    """Without the times. Equal results without hits, the usual case, are one object: the garbage
    collector need not track each."""
    kept = replace(result, stage_ms={}, signals=_same(result.signals))
    alike = _without_hits(kept.truncated, kept.complete, kept.signals, kept.snapshot, kept.seq)
    return alike if alike == kept else kept


@lru_cache(maxsize=1_024)
def _same(signals: tuple[SignalReport, ...]) -> tuple[SignalReport, ...]:
    return signals


@lru_cache(maxsize=256)
def _without_hits(
    truncated: bool,
    complete: bool,
    signals: tuple[SignalReport, ...],
    snapshot: str,
    seq: int,
) -> MatchResult:
    return MatchResult(Band.NONE, (), truncated, complete, signals, snapshot, seq)

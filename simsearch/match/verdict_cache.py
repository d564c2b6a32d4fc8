"""Verdict cache: a content that is asked again of the same view gets the same answer.

An answer belongs to the view that gave it. Every edit, and every new snapshot, makes another view,
so no answer outlives what it was true of. What then needs no encoding is in the fingerprint cache.
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
from simsearch.match.matcher import Outcome, ViewSource, asked_banks
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
)

QUERIES_MAX = 1_024
"""Ways of asking a view (banks and options) that are told apart at a time."""


class Matching(Protocol):
    """What answers batches: a Matcher does."""

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]: ...


@dataclass(frozen=True)
class VerdictCacheCounts:
    """Images and texts asked about, by whether the answer was there; and what the cache holds.
    Answers of views that have gone are held until newer ones take their place."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0


class VerdictCache:
    """The answers of a Matcher. Safe to call from any number of threads."""

    def __init__(self, matcher: Matching, views: ViewSource, verdicts_max: int) -> None:
        """`views`: those that the matcher asks. Every hit takes the place of a verdict."""
        self._matcher = matcher
        self._views = views
        self._verdicts = Lru[MatchResult](verdicts_max, _weight)
        self._lock = threading.Lock()
        self._numbers = count()
        self._query_numbers: _QueryNumbers | None = None
        self._hits = self._misses = 0

    @property
    def counts(self) -> VerdictCacheCounts:
        with self._lock:
            done = (self._hits, self._misses)
        return VerdictCacheCounts(*done, self._verdicts.evictions, len(self._verdicts))

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """As Matcher.match: the same answers and refusals. An answer that was there has the
        stage "cache" and no other."""
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
        """What was answered from this view, and is not to be better answered later."""
        if self._views.view is not view:  # the matcher may have asked the next one
            return
        for key, outcome in zip(keys, outcomes, strict=True):
            if key is None or not isinstance(outcome, MatchResult) or not outcome.complete:
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
        """None for what is not kept: ready vectors and hashes, and everything where the view has
        moved on already or a bank is not there."""
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
    """Ways of asking one view, numbered. A number is never given again for anything else, so that
    the answers of a view that has gone are never found, though they are still held."""

    def __init__(self, view: View, numbers: Iterator[int]) -> None:
        self.view = weakref.ref(view)
        self.number_of = lru_cache(QUERIES_MAX)(partial(_number, view.banks, numbers))


def _number(
    banks: Mapping[str, Bank], numbers: Iterator[int], options: MatchOptions
) -> bytes | None:
    """8 bytes; None where a bank is not there to ask."""
    try:
        asked_banks(banks, options)
    except (BankNotFound, BankArchived):
        return None
    return next(numbers).to_bytes(8, "big")


def _weight(result: MatchResult) -> int:
    return 1 + len(result.hits) + len(result.shadow) + 2 * len(result.suppressed)


def _kept(result: MatchResult) -> MatchResult:
    """Without the times. Where nothing was hit, as mostly, one object for all that are equal: the
    garbage collector need not follow each."""
    kept = replace(result, stage_ms={}, signals=_same(result.signals))
    alike = _without_hits(kept.truncated, kept.signals, kept.snapshot, kept.seq)
    return alike if alike == kept else kept


@lru_cache(maxsize=1_024)
def _same(signals: tuple[SignalReport, ...]) -> tuple[SignalReport, ...]:
    return signals


@lru_cache(maxsize=256)
def _without_hits(
    truncated: bool, signals: tuple[SignalReport, ...], snapshot: str, seq: int
) -> MatchResult:
    return MatchResult(Band.NONE, (), truncated, True, signals, snapshot, seq)

"""Verdicts that were given before: what is asked again of the same view gets the same answer.

An answer belongs to the view that gave it. Every edit, and every new snapshot, makes another view,
so no answer outlives what it was true of; what then needs no encoding is in encode/known.py.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, TypeAlias

from simsearch.encode.cache.fingerprint_cache import content_key
from simsearch.encode.cache.lru import Memory, Numbers, one_of
from simsearch.errors import BankArchived, BankNotFound
from simsearch.match.evidence import View
from simsearch.match.matcher import Outcome, ViewSource, selected_banks
from simsearch.telemetry import StageClock
from simsearch.types import (
    NO_CALL,
    Band,
    CallContext,
    Content,
    MatchOptions,
    MatchResult,
    SignalReport,
)

ASKS_MAX = 1_024
"""Ways of asking (banks and options) that are told apart at a time."""

Ask: TypeAlias = tuple[Hashable, ...]


class Matching(Protocol):
    """What answers batches: a Matcher does."""

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]: ...


@dataclass(frozen=True)
class VerdictCounts:
    """Images and texts asked about, by whether the answer was there; and what is held. Answers of
    views that have gone are held until newer ones take their place."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    held: int = 0


class KnownMatcher:
    """The answers of a Matcher. Safe to call from any number of threads."""

    def __init__(self, matcher: Matching, views: ViewSource, verdicts_max: int) -> None:
        """`views`: those that the matcher asks. Every hit takes the place of a verdict."""
        self._matcher = matcher
        self._views = views
        self._memory = Memory[MatchResult](verdicts_max)
        self._lock = threading.Lock()
        self._seen: weakref.ref[View] | None = None
        self._asks = Numbers[Ask](ASKS_MAX)
        self._hits = self._misses = 0

    @property
    def counts(self) -> VerdictCounts:
        with self._lock:
            done = (self._hits, self._misses)
        return VerdictCounts(*done, self._memory.evictions, len(self._memory))

    def match(
        self, contents: Sequence[Content], options: MatchOptions, call: CallContext = NO_CALL
    ) -> list[Outcome]:
        """As Matcher.match: the same answers and refusals. An answer that was there has the
        stage "known" and no other."""
        clock = StageClock()
        with clock.stage("known"):
            view = self._views.view
            keys = self._keys(contents, view, options)
            found = self._recalled(keys)
        missing = [i for i in range(len(contents)) if i not in found]
        self._count(len(found), sum(keys[i] is not None for i in missing))
        times = clock.ms if options.with_stage_times else {}
        answers: dict[int, Outcome] = {
            i: replace(result, stage_ms=dict(times)) for i, result in found.items()
        }
        if missing or not contents:  # without contents, options are checked all the same
            outcomes = self._matcher.match([contents[i] for i in missing], options, call)
            answers |= zip(missing, outcomes, strict=True)
            self._keep([keys[i] for i in missing], outcomes, view)
        return [answers[i] for i in range(len(contents))]

    def _recalled(self, keys: Sequence[bytes | None]) -> dict[int, MatchResult]:
        found = {i: self._memory.find(key) for i, key in enumerate(keys) if key is not None}
        return {i: result for i, result in found.items() if result is not None}

    def _keep(self, keys: Sequence[bytes | None], outcomes: Sequence[Outcome], view: View) -> None:
        """What was answered from this view, and is not to be better answered later."""
        if self._views.view is not view:  # the matcher may have asked the next one
            return
        for key, outcome in zip(keys, outcomes, strict=True):
            if key is None or not isinstance(outcome, MatchResult) or not outcome.complete:
                continue
            if (outcome.seq, outcome.snapshot) == (view.seq, view.snapshot):
                self._memory.keep(key, _kept(outcome), _weight(outcome))

    def _count(self, hits: int, misses: int) -> None:
        with self._lock:
            self._hits += hits
            self._misses += misses

    # ------------------------------------------------------------ keys

    def _keys(
        self, contents: Sequence[Content], view: View, options: MatchOptions
    ) -> list[bytes | None]:
        """None for what is not remembered: ready vectors and hashes, and everything where the
        view has moved on already or a bank is not there."""
        ask = _ask(view, options)
        number = None if ask is None else self._number(view, ask)
        if number is None:
            return [None] * len(contents)
        digests = [content_key(content) for content in contents]
        return [d if d is None else d + number for d in digests]

    def _number(self, view: View, ask: Ask) -> bytes | None:
        """Of what is asked of this view; never given again for anything else."""
        with self._lock:
            if self._seen is None or self._seen() is not view:
                if self._views.view is not view:
                    return None
                self._seen = weakref.ref(view)
                self._asks.clear()
            return self._asks.of(ask)


def _weight(result: MatchResult) -> int:
    return 1 + len(result.hits) + len(result.shadow) + 2 * len(result.suppressed)


def _kept(result: MatchResult) -> MatchResult:
    """Without the times. Where nothing was hit, as mostly, one object for all that are equal."""
    kept = replace(result, stage_ms={}, signals=one_of(result.signals))
    alike = _without_hits(kept.truncated, kept.signals, kept.snapshot, kept.seq)
    return alike if alike == kept else kept


@lru_cache(maxsize=256)
def _without_hits(
    truncated: bool, signals: tuple[SignalReport, ...], snapshot: str, seq: int
) -> MatchResult:
    return MatchResult(Band.NONE, (), truncated, True, signals, snapshot, seq)


def _ask(view: View, options: MatchOptions) -> Ask | None:
    """All but the content that an answer depends on; None where a bank is not there to ask."""
    try:
        banks = selected_banks(view.banks, options)
    except (BankNotFound, BankArchived):
        return None
    asked = tuple((bank.id, bank.version) for bank in banks)
    return view.seq, view.snapshot, asked, replace(options, banks=(), with_stage_times=False)

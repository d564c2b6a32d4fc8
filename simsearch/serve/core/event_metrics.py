"""Event metrics: the counters and histograms of one server, updated where the event happens.

State (queues, caches, the index) is not here: `metrics.collector` reads it at scrape time.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from simsearch.errors import SimsearchError
from simsearch.match.matcher import Outcome
from simsearch.serve.core.metric_catalogue import BANKS_MAX, METRICS, OTHER_BANKS
from simsearch.types import Band, MatchResult, SignalState

M = TypeVar("M", Counter, Histogram)

_EVENTS: Final = {metric.name: metric for metric in METRICS if metric.event}
_VERDICTS: Final = {band: "NO_MATCH" if band is Band.NONE else band.name for band in Band}


_OF_THE_CONTENT: Final = frozenset(
    {SignalState.LOW_INFORMATION, SignalState.NOT_COMPUTED, SignalState.PARTIAL}
)


def _cause(result: MatchResult) -> str:
    """Why a result is not complete: an operator can mend what the server lacks alone."""
    if result.stopped_early:
        return "stopped"
    states = {report.state for report in result.signals}
    if SignalState.UNAVAILABLE in states:
        return "server"
    return "content" if states & _OF_THE_CONTENT else "server"


class Children(Generic[M]):
    """The children of a metric by label values, each bound once.

    `labels()` of prometheus_client takes longer than the update itself.
    """

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def __getitem__(self, labels: tuple[str, ...]) -> M:
        child = self._children.get(labels)
        if child is None:  # two threads may get here: labels() gives both the same child
            child = self._children[labels] = self._metric.labels(*labels)
        return child


class EventMetrics:
    """All event metrics, on a registry of their own. Safe to use from any number of threads."""

    def __init__(self, banks_max: int = BANKS_MAX) -> None:
        """`banks_max`: banks with a label value of their own."""
        self.registry = CollectorRegistry()
        self.calls = Children(self._histogram("simsearch_call_seconds"))
        """By RPC and outcome."""
        self.stages = Children(self._histogram("simsearch_stage_seconds"))
        self.edit_visible = self._histogram("simsearch_edit_visible_seconds")
        self.canary_probes = Children(self._counter("simsearch_canary_probes_total"))
        for outcome in ("right", "wrong", "late"):
            self.canary_probes[outcome,]
        verdicts = self._counter("simsearch_verdicts_total")
        self._verdicts = {band: verdicts.labels(name) for band, name in _VERDICTS.items()}
        self._hits = Children(self._counter("simsearch_hits_total"))
        self._shadow_hits = Children(self._counter("simsearch_shadow_hits_total"))
        self._suppressed = Children(self._counter("simsearch_suppressed_hits_total"))
        self._refused = Children(self._counter("simsearch_items_refused_total"))
        self._incomplete = Children(self._counter("simsearch_results_incomplete_total"))
        for cause in ("server", "content", "stopped"):
            self._incomplete[cause,]
        self._truncated = self._counter("simsearch_results_truncated_total")
        self._quarantines = Children(self._counter("simsearch_flood_quarantines_total"))
        self._banks_max = banks_max
        self._banks: set[str] = set()
        self._lock = threading.Lock()

    def count_answers(self, outcomes: Iterable[Outcome]) -> None:
        """Count every content of a call that was judged or refused: one update a child."""
        amounts: defaultdict[Counter, int] = defaultdict(int)
        for outcome in outcomes:
            if isinstance(outcome, SimsearchError):
                amounts[self._refused[outcome.reason,]] += 1
                continue
            amounts[self._verdicts[outcome.verdict]] += 1
            if not outcome.complete:
                amounts[self._incomplete[_cause(outcome),]] += 1
            if outcome.truncated:
                amounts[self._truncated] += 1
            for hit in outcome.hits:
                amounts[self._hits[self._bank_label(hit.bank), hit.band.name]] += 1
            for hit in outcome.shadow:
                amounts[self._shadow_hits[self._bank_label(hit.bank), hit.band.name]] += 1
            for s in outcome.suppressed:
                banks = self._bank_label(s.hit.bank), self._bank_label(s.by.bank)
                amounts[self._suppressed[banks]] += 1
        for counter, amount in amounts.items():
            counter.inc(amount)

    def count_quarantine(self, bank: str) -> None:
        """Count an entry that was quarantined because of a flood of hits."""
        self._quarantines[self._bank_label(bank),].inc()

    def _bank_label(self, bank: str) -> str:
        if bank in self._banks:
            return bank
        with self._lock:
            if len(self._banks) < self._banks_max:
                self._banks.add(bank)
            return bank if bank in self._banks else OTHER_BANKS

    def _counter(self, name: str) -> Counter:
        spec = _EVENTS[name]
        return Counter(spec.name, spec.meaning, spec.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        spec = _EVENTS[name]
        return Histogram(
            spec.name, spec.meaning, spec.labels, buckets=spec.bounds, registry=self.registry
        )

"""Hit counts by entry: counted in memory, written every few seconds, and checked for floods, which
put the entry into quarantine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from simsearch.bank.store import BankStore
from simsearch.config import FeedbackConfig
from simsearch.errors import SimsearchError
from simsearch.serve.core.event_metrics import EventMetrics
from simsearch.serve.core.flood_detector import Flood, FloodDetector
from simsearch.telemetry import EventLog
from simsearch.types import Band, Hit, HitCounts, MatchResult

if TYPE_CHECKING:
    from simsearch.match.matcher import Outcome

log = EventLog(__name__)

CHECK_S: Final = 1.0
"""Interval of the checks for floods."""

FLUSH_S: Final = 5.0
"""Interval of the writes."""

RETRY_S: Final = 10.0
"""Time between two attempts to quarantine an entry."""

ENTRIES_AT_ONCE: Final = 4_096
"""Entries in one write transaction: edits wait for it."""

_FIRST: Final = {
    Band.BLOCK: HitCounts(block=1),
    Band.REVIEW: HitCounts(review=1),
    Band.LOG: HitCounts(log=1),
}


class HitCounter:
    """Unflushed hits by entry. Safe to use from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, HitCounts] = {}
        self._near: Counter[int] = Counter()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count the hits of these results. Without any, the usual case, no lock is taken."""
        hit = [o for o in outcomes if isinstance(o, MatchResult) and (o.hits or o.shadow)]
        if not hit:
            return
        now_us = time.time_ns() // 1000
        counted = [(h.entry_key, _counts_of(h, now_us)) for o in hit for h in o.hits]
        counted += [(h.entry_key, HitCounts(shadow=1)) for o in hit for h in o.shadow]
        with self._lock:
            self._add(counted)
            self._near.update(key for key, counts in counted if counts.near)

    def drain(self) -> dict[int, HitCounts]:
        """Return the counts and reset them."""
        with self._lock:
            drained, self._counts = self._counts, {}
        return drained

    def restore(self, counts: Mapping[int, HitCounts]) -> None:
        """Add drained counts again that could not be written."""
        with self._lock:
            self._add(counts.items())

    def drain_near(self) -> Counter[int]:
        """Return the near hits by entry and reset them."""
        with self._lock:
            drained, self._near = self._near, Counter()
        return drained

    def unflushed(self, key: int) -> HitCounts:
        """The counts of one entry that are not written yet."""
        return self._counts.get(key, HitCounts())

    def _add(self, counted: Iterable[tuple[int, HitCounts]]) -> None:
        for key, counts in counted:
            before = self._counts.get(key)
            self._counts[key] = before + counts if before else counts


def hit_counts_of(
    store: BankStore, counter: HitCounter, keys: Sequence[int]
) -> dict[int, HitCounts]:
    """The counts of these entries, written and unflushed."""
    return {key: written + counter.unflushed(key) for key, written in store.hits(keys).items()}


def _counts_of(hit: Hit, now_us: int) -> HitCounts:
    first = _FIRST[hit.band]
    return HitCounts(first.block, first.review, first.log, int(is_near(hit)), 0, now_us)


def is_near(hit: Hit) -> bool:
    """Whether no digest was equal: another file that looks or reads alike."""
    return all(e.cosine is not None or e.hamming is not None for e in hit.evidence)


@dataclass
class _PendingFlood:
    """A flood whose entry is not quarantined yet; `next_s` is the time of the next attempt."""

    flood: Flood
    time_us: int
    next_s: float


class HitCountWriter:
    """A thread that writes hit counts and quarantines flooded entries, from `start` to `close`.

    A killed process loses the counts of the last few seconds, and the usual rates.
    """

    def __init__(
        self,
        store: BankStore,
        hits: HitCounter,
        metrics: EventMetrics,
        detector: FloodDetector | None = None,
    ) -> None:
        """Without a detector nothing is a flood."""
        self._store = store
        self._hits = hits
        self._metrics = metrics
        self._detector = detector
        self._pending: dict[int, _PendingFlood] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hit-count-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and write the remaining counts."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        flushed = time.monotonic()
        while not self._stopping.wait(CHECK_S):
            self.check_floods()
            if time.monotonic() >= flushed + FLUSH_S:
                self.flush()
                flushed = time.monotonic()

    def flush(self) -> None:
        """Write the counts; those that cannot be written are kept for the next flush."""
        counts = iter(self._hits.drain().items())
        while some := dict(islice(counts, ENTRIES_AT_ONCE)):
            try:
                self._store.add_hits(some)
            except SimsearchError as fault:  # such as a full bank
                self._hits.restore(some | dict(counts))
                log.error("hits_not_written", reason=fault.reason, entries=len(some))

    def check_floods(self) -> None:
        """Quarantine flooded entries. An attempt that fails is logged and repeated later."""
        near = self._hits.drain_near()
        if self._detector is None:
            return
        now_s = time.monotonic()
        for flood in self._detector.update(near):
            pending = _PendingFlood(flood, time.time_ns() // 1000, now_s)
            self._pending.setdefault(flood.key, pending)
        for pending in [p for p in self._pending.values() if p.next_s <= now_s]:
            self._quarantine(pending, self._detector)

    def _quarantine(self, pending: _PendingFlood, detector: FloodDetector) -> None:
        flood = pending.flood
        try:
            done = self._store.quarantine_flooding(flood.key, flood.description, pending.time_us)
        except SimsearchError as fault:
            log.error("flood_not_stopped", reason=fault.reason, entry=flood.key)
            pending.next_s += RETRY_S
            return
        del self._pending[flood.key]
        detector.forget_minute(flood.key)
        if done is None:
            return
        event = "flood_quarantined" if done.change else "flood_left_alone"
        log.warning(
            event,
            bank=done.bank,
            entry=flood.key,
            near_hits=flood.near_hits,
            usual=round(flood.usual),
        )
        if done.change:
            self._metrics.count_quarantine(done.bank)


def configured_hit_writer(
    store: BankStore, hits: HitCounter, metrics: EventMetrics, config: FeedbackConfig
) -> HitCountWriter:
    """A writer with the detector of the configuration, where either limit of 0 means none."""
    floor, times_usual = config.flood_near_hits_per_minute, config.flood_times_usual
    detector = FloodDetector(floor, times_usual) if floor and times_usual else None
    return HitCountWriter(store, hits, metrics, detector)
